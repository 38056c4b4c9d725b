package crypto

import (
	"errors"
	"strings"
)

// Where the binding of a sealed file is kept (DESIGN.md section 4). It is an
// encrypted leaf like any other, so only someone with the data key can make or
// change one.
const (
	BindingAnnotation = "gitseal.io/sealed-for"
	BindingVariable   = "GITSEAL_SEALED_FOR"
)

// Binding says which object a sealed file was made for: "namespace/name",
// "namespace/*" or "*". The empty Binding means that the file carries none.
type Binding string

// ParseBinding checks the form. Namespace and name must not be empty and hold
// no further "/" or "*".
func ParseBinding(s string) (Binding, error) {
	if s == "*" {
		return Binding(s), nil
	}
	ns, name, ok := strings.Cut(s, "/")
	if !ok || ns == "" || name == "" || strings.ContainsAny(ns, "*/ \t\n") ||
		strings.ContainsAny(name, "/ \t\n") || (name != "*" && strings.Contains(name, "*")) {
		return "", errors.New(`a binding is "namespace/name", "namespace/*" or "*"`)
	}
	return Binding(s), nil
}

// Allows reports whether a value with this binding may be put into the object
// namespace/name. The empty Binding allows nothing; whether a missing binding
// is tolerated is the caller's policy.
func (b Binding) Allows(namespace, name string) bool {
	if b == "*" {
		return true
	}
	ns, n, _ := strings.Cut(string(b), "/")
	return b != "" && ns == namespace && (n == "*" || n == name)
}
