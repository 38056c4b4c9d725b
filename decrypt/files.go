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

// filesOf finds the files that an object was probably read from, for messages:
// kustomize does not say. A name may have gained a prefix or suffix on the way.
func (m *Masked) filesOf(u *unstructured.Unstructured) []string {
	return m.filesWith(u.GetKind(), u.GetName())
}

// inFiles adds the files to an error about an object.
func (m *Masked) inFiles(err error, kind, name string) error {
	if files := m.filesWith(kind, name); len(files) > 0 {
		return fmt.Errorf("%w (in %s)", err, strings.Join(files, ", "))
	}
	return err
}

func (m *Masked) filesWith(kind, name string) []string {
	if name == "" || kind == "" {
		return nil
	}
	var exact, near []string
	for file, b := range m.files {
		switch ext := path.Ext(file); {
		case ext != ".yaml" && ext != ".yml" && ext != ".json" && path.Base(file) != "Kustomization":
			continue
		case !bytes.Contains(b, []byte("name")):
			continue
		}
		switch named(b, kind, name) {
		case nameExact:
			exact = append(exact, file)
		case nameNear:
			near = append(near, file)
		}
	}
	if len(exact) == 0 {
		exact = near
	}
	slices.Sort(exact)
	return exact[:min(len(exact), maxFilesNamed)]
}

type nameMatch int

const (
	nameNone nameMatch = iota
	nameNear
	nameExact
)

// named looks for an object, or a generator of one, in a file.
func named(file []byte, kind, name string) nameMatch {
	best := nameNone
	note := func(got any) {
		s, _ := got.(string)
		switch {
		case s == "":
		case s == name || s == generatedSuffix.ReplaceAllString(name, ""):
			best = nameExact
		case strings.Contains(name, s):
			best = max(best, nameNear)
		}
	}
	for d := yaml.NewDecoder(bytes.NewReader(file)); ; {
		var doc map[string]any
		if d.Decode(&doc) != nil {
			return best
		}
		meta, _ := doc["metadata"].(map[string]any)
		if doc["kind"] == kind {
			note(meta["name"])
		}
		for _, field := range []string{strings.ToLower(kind[:1]) + kind[1:] + "Generator"} {
			list, _ := doc[field].([]any)
			for _, item := range list {
				g, _ := item.(map[string]any)
				note(g["name"])
			}
		}
		items, _ := doc["items"].([]any)
		for _, item := range items {
			o, _ := item.(map[string]any)
			meta, _ := o["metadata"].(map[string]any)
			if o["kind"] == kind {
				note(meta["name"])
			}
		}
	}
}
