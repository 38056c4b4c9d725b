package build

import (
	"bytes"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
)

// effects is what a part could do to others in a build of the whole, and what of
// others could do something to it. It says too much rather than too little.
type effects struct {
	whole   bool // something that only a build of the whole gets right
	renames bool // names or namespaces change on the way
	affixed bool // by a prefix or suffix, perhaps more than one
	cluster bool // an object without a namespace is among them

	names      map[string]bool // that may change, as the files have them
	namespaces map[string]bool // in which somebody may mean them

	ids []string
}

// saying is everything that the objects of a part say.
type saying struct {
	said map[string]map[string]bool // by namespace
	wide map[string]bool            // of those that name things in other namespaces
}

// localConfig objects are dropped at the end of a build, and count until then.
var localConfig = []byte("config.kubernetes.io/local-config")

// renaming is what a patch needs to change a name or a namespace.
var renaming = regexp.MustCompile(`allowNameChange|/metadata["'\s,}/]|/metadata$`)

func effectsOf(b *built) effects {
	e := effects{names: map[string]bool{}, namespaces: map[string]bool{"": true, "default": true}}
	for name := range b.read.files {
		content, err := fs.ReadFile(b.read.FS, name)
		if err != nil {
			e.whole = true
			return e
		}
		e.whole = e.whole || bytes.Contains(content, localConfig)
		e.renames = e.renames || renaming.Match(content)
		if slices.Contains(konfig.RecognizedKustomizationFileNames(), path.Base(name)) {
			e.kustomization(content)
		}
		e.documents(content)
	}
	for _, u := range b.objects {
		e.object(u)
	}
	return e
}

func (e *effects) kustomization(content []byte) {
	var k types.Kustomization
	if k.Unmarshal(content) != nil {
		e.whole = true
		return
	}
	//lint:ignore SA1019 trees in the field still use it
	vars := k.Vars
	e.whole = e.whole || len(vars)+len(k.Configurations)+len(k.Crds)+len(k.BuildMetadata)+len(k.Generators)+len(k.Transformers)+len(k.Validators)+len(k.OpenAPI) > 0 || k.SortOptions != nil
	e.affixed = e.affixed || k.NamePrefix+k.NameSuffix != ""
	e.renames = e.renames || e.affixed || k.Namespace != "" || len(k.SecretGenerator)+len(k.ConfigMapGenerator) > 0
	e.namespaces[k.Namespace] = true
	for _, g := range k.SecretGenerator {
		e.names[g.Name], e.namespaces[g.Namespace] = true, true
	}
	for _, g := range k.ConfigMapGenerator {
		e.names[g.Name], e.namespaces[g.Namespace] = true, true
	}
	for _, r := range k.Replacements {
		for _, t := range r.Targets {
			for _, p := range t.FieldPaths {
				e.renames = e.renames || strings.HasPrefix(p, "metadata") || strings.HasPrefix(p, "*")
			}
		}
		e.renames = e.renames || r.Path != ""
	}
}

// documents notes each metadata.name and metadata.namespace of a file.
func (e *effects) documents(content []byte) {
	for d := yamlv3.NewDecoder(bytes.NewReader(content)); ; {
		var doc any
		if d.Decode(&doc) != nil {
			return // the end, or no YAML
		}
		e.metadata(doc)
	}
}

func (e *effects) metadata(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			e.metadata(item)
		}
	case map[string]any:
		if m, ok := v["metadata"].(map[string]any); ok {
			if name, ok := m["name"].(string); ok {
				e.names[name] = true
			}
			if ns, ok := m["namespace"].(string); ok {
				e.namespaces[ns] = true
			}
		}
		for _, item := range v {
			e.metadata(item)
		}
	}
}

// generatedSuffix is the hash behind a generated name, which the check for
// duplicates does not see yet.
var generatedSuffix = regexp.MustCompile(`-[bcdfghkmt2456789]{10}$`)

func (e *effects) object(u *unstructured.Unstructured) {
	gvk, ns := u.GroupVersionKind(), u.GetNamespace()
	e.cluster = e.cluster || ns == ""
	e.namespaces[ns] = true
	in := ns
	if in == "" {
		in = "default"
	}
	if openapi.IsCertainlyClusterScoped(kyaml.TypeMeta{APIVersion: u.GetAPIVersion(), Kind: u.GetKind()}) {
		in = ""
	}
	e.ids = append(e.ids, strings.Join([]string{gvk.Group, gvk.Version, gvk.Kind, in, generatedSuffix.ReplaceAllString(u.GetName(), "")}, "\x00"))
}

// textsOf is needed only where another part renames something.
func textsOf(objects []*unstructured.Unstructured) saying {
	t := saying{said: map[string]map[string]bool{}, wide: map[string]bool{}}
	for _, u := range objects {
		t.object(u)
	}
	return t
}

func (t saying) object(u *unstructured.Unstructured) {
	ns, said := u.GetNamespace(), t.wide
	if ns != "" && ns != "default" && !strings.HasSuffix(u.GetKind(), "Binding") {
		if t.said[ns] == nil {
			t.said[ns] = map[string]bool{}
		}
		said = t.said[ns]
	}
	for key, v := range u.Object {
		if m, ok := v.(map[string]any); ok && key == "metadata" {
			v = m["annotations"] // names are no references, but annotations may be
		}
		collect(v, said)
	}
}

func collect(v any, into map[string]bool) {
	switch v := v.(type) {
	case string:
		into[v] = true
	case []any:
		for _, item := range v {
			collect(item, into)
		}
	case map[string]any:
		for _, item := range v {
			collect(item, into)
		}
	}
}

// independent reports whether the parts are together what a build of the whole
// would be.
func independent(parts []*built) bool {
	ids := map[string]bool{}
	all := make([]effects, len(parts))
	for i, b := range parts {
		all[i] = b.effects
		if all[i].whole {
			return false
		}
		for _, id := range all[i].ids {
			if ids[id] {
				return false // the build of the whole refuses it, in its own words
			}
			ids[id] = true
		}
	}
	for i, a := range all {
		for j, b := range parts {
			if i != j && a.renames && a.meantBy(b.texts()) {
				return false
			}
		}
	}
	return true
}

// meantBy reports whether an object that says t may refer to something that the
// part renames.
func (e effects) meantBy(t saying) bool {
	if e.namesAnyOf(t.wide) {
		return true
	}
	for ns, said := range t.said {
		if (e.cluster || e.namespaces[ns]) && e.namesAnyOf(said) {
			return true
		}
	}
	return false
}

func (e effects) namesAnyOf(said map[string]bool) bool {
	for name := range e.names {
		if said[name] {
			return true
		}
	}
	if !e.affixed {
		return false
	}
	for text := range said { // on the way a name may have had some of the prefixes
		for name := range e.names {
			if strings.Contains(text, name) {
				return true
			}
		}
	}
	return false
}
