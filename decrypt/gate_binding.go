package decrypt

import (
	"regexp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var generatedSuffix = regexp.MustCompile(`-[bcdfghkmt2456789]{10}$`)

// BaseName is the name without what kustomize appends to that of an object that
// it generates, and whether there was any.
func BaseName(name string) (base string, generated bool) {
	base = generatedSuffix.ReplaceAllString(name, "")
	return base, base != name
}

// bindings compares the place of each value with the binding of the file that
// it came from. A generated name counts without its suffix.
func (g *gate) bindings(u *unstructured.Unstructured, field string, tokens []string) {
	for _, token := range tokens {
		if origins := g.masked.values.sealed[token].origins; !g.allowed(u, origins) {
			g.refuseBinding(u, field, origins)
		}
	}
}

func (g *gate) allowed(u *unstructured.Unstructured, origins []origin) bool {
	ns, name := g.place(u)
	base, _ := BaseName(name)
	for _, o := range origins {
		if o.binding == "" {
			if g.masked.policy.Binding != BindingRequired || o.own {
				return true
			}
			continue
		}
		if o.binding.Allows(ns, name) || o.binding.Allows(ns, base) {
			return true
		}
	}
	return false
}

func (g *gate) place(u *unstructured.Unstructured) (namespace, name string) {
	namespace = u.GetNamespace()
	if namespace == "" {
		namespace = g.masked.policy.Namespace
	}
	return namespace, u.GetName()
}

func (g *gate) refuseBinding(u *unstructured.Unstructured, field string, origins []origin) {
	ns, name := g.place(u)
	name, _ = BaseName(name)
	if len(origins) == 0 {
		g.refuse(ReasonPlaceholderBroken, field, "%v", errUnknown)
		return
	}
	o := origins[0]
	if o.binding == "" {
		g.refuse(ReasonBindingMissing, field, "%s says of no object that its values are for it, and the policy requires that; seal it again with --for %s/%s", o.file, ns, name)
		return
	}
	g.refuse(ReasonBindingMismatch, field, "%s was sealed for %s, not for %s/%s; seal it again with --for %s/%s", o.file, o.binding, ns, name, ns, name)
}
