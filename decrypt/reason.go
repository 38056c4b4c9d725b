package decrypt

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gitseal/gitseal/crypto"
)

// Reason is a stable word for why something was not opened or not let through.
// docs/reasons.md says of each what it means and which command repairs it.
type Reason string

// The reasons of files and values that do not open.
const (
	ReasonNoKey            Reason = "NoKey"
	ReasonKeyNotSupported  Reason = "KeyNotSupported"
	ReasonMACMismatch      Reason = "MACMismatch"
	ReasonMACMissing       Reason = "MACMissing"
	ReasonValueAltered     Reason = "ValueAltered"
	ReasonScopeMismatch    Reason = "ScopeMismatch"
	ReasonPlaceMismatch    Reason = "PlaceMismatch"
	ReasonBindingMoved     Reason = "BindingMoved"
	ReasonBindingNotSealed Reason = "BindingNotSealed"
	ReasonLimitExceeded    Reason = "LimitExceeded"
	ReasonNotReadable      Reason = "NotReadable"
	ReasonTemplateFailed   Reason = "TemplateFailed"
)

// The reasons of the gate.
const (
	ReasonPlaceholderOutsideSecret Reason = "PlaceholderOutsideSecret"
	ReasonStructureSealed          Reason = "StructureSealed"
	ReasonStillSealed              Reason = "StillSealed"
	ReasonNotOpened                Reason = "NotOpened"
	ReasonPlaintextSecret          Reason = "PlaintextSecret"
	ReasonBindingMismatch          Reason = "BindingMismatch"
	ReasonBindingMissing           Reason = "BindingMissing"
	ReasonPlaceholderBroken        Reason = "PlaceholderBroken"
	ReasonInvalidSecret            Reason = "InvalidSecret"
	ReasonInvalidSealedSecret      Reason = "InvalidSealedSecret"
	ReasonReserved                 Reason = "Reserved"
)

// Reasons lists all, for the test that compares them with the documents.
func Reasons() []Reason {
	return []Reason{
		ReasonNoKey, ReasonKeyNotSupported, ReasonMACMismatch, ReasonMACMissing, ReasonValueAltered, ReasonScopeMismatch, ReasonPlaceMismatch,
		ReasonBindingMoved, ReasonBindingNotSealed, ReasonLimitExceeded, ReasonNotReadable, ReasonTemplateFailed,
		ReasonPlaceholderOutsideSecret, ReasonStructureSealed, ReasonStillSealed, ReasonNotOpened, ReasonPlaintextSecret, ReasonBindingMismatch,
		ReasonBindingMissing, ReasonPlaceholderBroken, ReasonInvalidSecret, ReasonInvalidSealedSecret, ReasonReserved,
	}
}

// reasonOf classifies an error of crypto or of a template.
func reasonOf(err error) Reason {
	var noKey *crypto.NoKeyError
	var value *crypto.ValueError
	var sealed *crypto.SealedValueError
	var limit *crypto.LimitError
	var tmpl *templateError
	switch {
	case errors.As(err, &noKey) && noKey.Unsupported:
		return ReasonKeyNotSupported
	case errors.As(err, &noKey):
		return ReasonNoKey
	case errors.As(err, &value):
		return ReasonValueAltered
	case errors.As(err, &sealed):
		switch sealed.Cause {
		case crypto.ValueScope:
			return ReasonScopeMismatch
		case crypto.ValuePlace:
			return ReasonPlaceMismatch
		case crypto.ValueAltered:
			return ReasonValueAltered
		case crypto.ValueNoKey:
			return ReasonNoKey
		}
		return ReasonNotReadable
	case errors.As(err, &limit):
		return ReasonLimitExceeded
	case errors.As(err, &tmpl):
		return ReasonTemplateFailed
	case errors.Is(err, crypto.ErrMAC):
		return ReasonMACMismatch
	case errors.Is(err, crypto.ErrNoMAC):
		return ReasonMACMissing
	case errors.Is(err, crypto.ErrBindingMoved):
		return ReasonBindingMoved
	case errors.Is(err, crypto.ErrBindingNotSealed):
		return ReasonBindingNotSealed
	default:
		return ReasonNotReadable
	}
}

// Problem is a sealed file that could not be opened, and whose values render as
// placeholders that are never applied; or, in a list of warnings, one that was
// opened all the same.
type Problem struct {
	File   string
	Reason Reason
	Err    error // never holds content
}

func (p Problem) Error() string { return fmt.Sprintf("%s: %s: %v", p.File, p.Reason, p.Err) }

// Refusal is an object that must not be applied. Message holds placeholders,
// names and paths, never a value.
type Refusal struct {
	Object  string // Kind/namespace/name
	Target  Target // what would have been applied
	Field   string
	Reason  Reason
	Message string
	Files   []string // where it was read from, as far as that is known
	// Annotations of the rendered object.
	Annotations map[string]string
	// Renamed says that no file has the object under this name: kustomize changed
	// it, and with it the references to it.
	Renamed bool
}

// Target names an object of the cluster; for a SealedSecret it is its Secret.
type Target struct{ Group, Kind, Namespace, Name string }

func (r Refusal) Error() string {
	var b strings.Builder
	b.WriteString(r.Object)
	if r.Field != "" {
		b.WriteString(" " + r.Field)
	}
	fmt.Fprintf(&b, ": %s: %s", r.Reason, r.Message)
	if len(r.Files) > 0 {
		b.WriteString(" (in " + strings.Join(r.Files, ", ") + ")")
	}
	return b.String()
}
