package crypto

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Errors of opening a SOPS file. None holds anything of the file's content but
// key paths and public fingerprints.
var (
	ErrNotSOPS          = errors.New("not a SOPS file")
	ErrNoMAC            = errors.New("the file has no MAC, so nobody can tell whether it was changed; seal it again")
	ErrMAC              = errors.New("MAC mismatch: the file was changed after it was sealed; restore it or seal it again")
	ErrBindingMoved     = errors.New("BindingMoved: the sealed binding (" + BindingAnnotation + ") is not in its place, or there are two that differ; seal the file again")
	ErrBindingNotSealed = errors.New("the binding (" + BindingAnnotation + ") is not sealed, so anyone could have written it; the creation rule must select it: encrypted_regex: " + KubernetesSelector)
)

// KubernetesSelector is the encrypted_regex for Kubernetes objects: values and
// the binding are sealed, everything that kustomize needs stays readable.
const KubernetesSelector = `^(data|stringData|gitseal\.io/sealed-for)$`

// NoKeyError says that no key at hand opens the file.
type NoKeyError struct {
	Wanted []string // fingerprints that the file is sealed to
	Held   []string // fingerprints of the keys that were tried
	// Unsupported is set where every key of the file is of a kind that is never
	// called: KMS, Vault and the like.
	Unsupported bool
	// Groups is how many of the file's key groups must be held, if more than one.
	Groups int
}

func (e *NoKeyError) Error() string {
	held := "none"
	if len(e.Held) > 0 {
		held = strings.Join(e.Held, ", ")
	}
	wanted := "nobody"
	if len(e.Wanted) > 0 {
		wanted = strings.Join(e.Wanted, ", ")
	}
	if e.Groups > 1 {
		return fmt.Sprintf("not enough keys: keys of %d groups are needed of those that it is sealed to: %s; keys held: %s", e.Groups, wanted, held)
	}
	return fmt.Sprintf("no key: sealed to %s; keys held: %s", wanted, held)
}

// ValueError says that one sealed value does not open although its file's data
// key does: it was changed, or moved from another place.
type ValueError struct{ Path string }

func (e *ValueError) Error() string {
	return fmt.Sprintf("the sealed value at %s was changed or moved after it was sealed; restore the file or seal it again", e.Path)
}

// FormatError says that a file can not be read. Line is 0 where it is not known.
type FormatError struct {
	Line int
	What string
}

func (e *FormatError) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.What)
	}
	return e.What
}

var lineNumber = regexp.MustCompile(`line (\d+)`)

// formatError keeps only the line of a parser's error: the rest may quote the
// file's content.
func formatError(format Format, err error) error {
	e := &FormatError{What: "not valid " + string(format)}
	if m := lineNumber.FindStringSubmatch(err.Error()); m != nil {
		_, _ = fmt.Sscanf(m[1], "%d", &e.Line) // the pattern matched digits only
	}
	return e
}
