package decrypt

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const maxFilesNamed = 3

// namedObject is an object, or a generator of one, that a file names.
type namedObject struct{ name, file string }

// filesOf finds the files that an object was probably read from, for messages:
// kustomize does not say. A name may have gained a prefix or suffix on the way.
func (m *Masked) filesOf(u *unstructured.Unstructured) []string {
	return m.filesWith(u.GetKind(), u.GetName())
}

func (m *Masked) renamed(u *unstructured.Unstructured) bool {
	return !slices.ContainsFunc(m.named()[u.GetKind()], func(o namedObject) bool { return o.name == u.GetName() })
}

// inFiles adds the files to an error about an object.
func (m *Masked) inFiles(err error, kind, name string) error {
	if files := m.filesWith(kind, name); len(files) > 0 {
		return fmt.Errorf("%w (in %s)", err, strings.Join(files, ", "))
	}
	return err
}

func (m *Masked) filesWith(kind, name string) []string {
	plain, _ := BaseName(name)
	var exact, near []string
	for _, o := range m.named()[kind] {
		switch {
		case o.name == name || o.name == plain:
			exact = append(exact, o.file)
		case strings.Contains("-"+name+"-", "-"+o.name+"-"):
			near = append(near, o.file)
		}
	}
	if len(exact) == 0 {
		exact = near
	}
	slices.Sort(exact)
	exact = slices.Compact(exact)
	return exact[:min(len(exact), maxFilesNamed)]
}

// indexFiles lists what the files name, by kind. Files are read for it when the
// first message wants to name one.
func indexFiles(files map[string][]byte) map[string][]namedObject {
	out := map[string][]namedObject{}
	for file, b := range files {
		if ext := path.Ext(file); ext != ".yaml" && ext != ".yml" && ext != ".json" && path.Base(file) != "Kustomization" {
			continue
		}
		for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
			var doc map[string]any
			if d.Decode(&doc) != nil {
				break
			}
			indexDocument(out, file, doc)
		}
	}
	return out
}

func indexDocument(out map[string][]namedObject, file string, doc map[string]any) {
	add := func(kind, name any) {
		k, _ := kind.(string)
		n, _ := name.(string)
		if k != "" && n != "" {
			out[k] = append(out[k], namedObject{n, file})
		}
	}
	object := func(o map[string]any) {
		meta, _ := o["metadata"].(map[string]any)
		add(o["kind"], meta["name"])
	}
	object(doc)
	items, _ := doc["items"].([]any)
	for _, item := range items {
		if o, ok := item.(map[string]any); ok {
			object(o)
		}
	}
	for field, kind := range map[string]string{"secretGenerator": "Secret", "configMapGenerator": "ConfigMap"} {
		list, _ := doc[field].([]any)
		for _, item := range list {
			if g, ok := item.(map[string]any); ok {
				add(kind, g["name"])
			}
		}
	}
}
