package decrypt

import (
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// mayGoOutside reports whether a scalar is the token of a value that was sealed
// in this very field of an object of this kind, where the policy lets it go.
// The kind must be one that a MAC covers: who changes it chooses who can read.
func (g *gate) mayGoOutside(token, path string) bool {
	// A rule that seals all but the metadata seals these two fields of a Secret,
	// which only who may read the Secret sees.
	own := isSecret(g.rendered) && (path == "type" || path == "immutable")
	if g.masked.policy.Outside != OutsideAllow && !own || structuralField(path) || g.listKey(path) {
		return false
	}
	origins := slices.DeleteFunc(slices.Clone(g.masked.values.sealed[token].origins), func(o origin) bool {
		return o.path != path || o.objectKind != g.rendered.GroupVersionKind().GroupKind().String() && !own
	})
	if len(origins) == 0 {
		return false
	}
	if !g.allowed(g.rendered, origins) {
		g.refuseBinding(g.rendered, path, origins)
		return true
	}
	g.outside = true
	return true
}

// putBackOutside replaces the tokens that the gate let pass outside of a
// Secret's data. A scalar that is one token gets the value with its type.
func (m *Masked) putBackOutside(u *unstructured.Unstructured) {
	for k, v := range u.Object {
		if k == "data" && isSecret(u) {
			continue
		}
		u.Object[k] = m.valueOutside(v)
	}
}

func (m *Masked) valueOutside(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			v[k] = m.valueOutside(item)
		}
		return v
	case []any:
		for i, item := range v {
			v[i] = m.valueOutside(item)
		}
		return v
	case string:
		if value, ok := m.values.sealed[v]; ok {
			return typed(value.kind, string(value.text.Reveal()))
		}
		return v
	default:
		return v
	}
}

func typed(kind, text string) any {
	switch kind {
	case "int":
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n
		}
	case "float":
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	case "bool":
		return text == "true"
	}
	return text
}
