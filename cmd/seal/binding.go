package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/crypto"
)

// bindingFlags say which object a sealed file is for.
type bindingFlags struct {
	target  string
	unbound bool
}

func (b *bindingFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&b.target, "for", "", `the object that the values are for: NAMESPACE/NAME, or NAMESPACE/* (default: what the file says)`)
	cmd.Flags().BoolVar(&b.unbound, "unbound", false, "let the values be used in any namespace")
	cmd.MarkFlagsMutuallyExclusive("for", "unbound")
}

var errNoNamespace = errors.New("the file does not say which namespace its values are for")

const sayFor = "say --for NAMESPACE/NAME, --for 'NAMESPACE/*' or --unbound; the kube context is never asked"

// binding decides from the flags and the file's documents. Formats that can
// not carry one give "".
func (b bindingFlags) binding(docs []crypto.Document, format crypto.Format) (crypto.Binding, error) {
	carries := format == crypto.Dotenv
	for _, d := range docs {
		carries = carries || d.IsObject()
	}
	if !carries {
		if b.target != "" {
			return "", fmt.Errorf("a %s file that is not a Kubernetes object can not carry a binding; leave --for out", format)
		}
		return "", nil
	}
	if b.unbound {
		return "*", nil
	}
	if b.target != "" {
		bind, err := crypto.ParseBinding(b.target)
		if err != nil {
			return "", fmt.Errorf("--for: %w", err)
		}
		for _, d := range docs {
			if d.IsObject() && !bind.Allows(orElse(d.Namespace, namespaceOf(bind)), d.Name) {
				return "", fmt.Errorf("--for %s does not fit %s %s/%s in the file; the agent would refuse it", bind, d.Kind, d.Namespace, d.Name)
			}
		}
		return bind, nil
	}
	return fromDocuments(docs)
}

func fromDocuments(docs []crypto.Document) (crypto.Binding, error) {
	var found []string
	namespaces := map[string]bool{}
	for _, d := range docs {
		if !d.IsObject() {
			continue
		}
		if d.Namespace == "" || d.Name == "" {
			return "", hint(errNoNamespace, sayFor)
		}
		namespaces[d.Namespace] = true
		if id := d.Namespace + "/" + d.Name; len(found) == 0 || found[0] != id {
			found = append(found, id)
		}
	}
	switch {
	case len(found) == 0:
		return "", hint(errNoNamespace, sayFor)
	case len(found) == 1:
		return crypto.ParseBinding(found[0])
	case len(namespaces) == 1:
		ns, _, _ := strings.Cut(found[0], "/")
		return "", hint(fmt.Errorf("the file holds several objects (%s, …), and one file has one binding", strings.Join(found[:2], ", ")), "say --for '%s/*', or put each object into a file of its own", ns)
	default:
		return "", hint(fmt.Errorf("the file holds objects of several namespaces (%s, …), and one file has one binding", strings.Join(found[:2], ", ")), "put the objects of each namespace into a file of their own, or say --unbound")
	}
}

func namespaceOf(b crypto.Binding) string {
	ns, _, _ := strings.Cut(string(b), "/")
	return ns
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
