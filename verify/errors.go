package verify

import (
	"errors"
	"fmt"
	"time"
)

// What Keys.Commit, Keys.Tag and Policy.Check fail with, beside the error types
// of this package.
var (
	// ErrUnsigned: there is no signature.
	ErrUnsigned = errors.New("not signed")
	// ErrBadSignature: a trusted key is named, but the signature does not fit the
	// content: one of the two was altered.
	ErrBadSignature = errors.New("the signature does not fit the content")
	// ErrRefused: the object or its signature has a form that is not accepted,
	// whoever made it. The text says which.
	ErrRefused = errors.New("signature not accepted")
)

// ErrNoKeys: there is nothing in the Secret.
var ErrNoKeys = errors.New("no keys of trusted signers")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// UnknownSignerError says that the key that a signature names is not trusted. Of
// such a signature nothing else was looked at.
type UnknownSignerError struct {
	Kind Kind
	// KeyID is the key that the signature names: of OpenPGP its fingerprint, or
	// the last 16 digits of it if there is no more, of ssh SHA256:...
	KeyID string
}

func (e *UnknownSignerError) Error() string {
	return fmt.Sprintf("signed by %s key %s, which is not trusted", e.Kind, e.KeyID)
}

// Fault is what is wrong with a trusted key.
type Fault string

// The faults.
const (
	Expired     Fault = "expired"       // now, or for ssh at the date of the commit
	NotYetValid Fault = "not yet valid" // now, or for ssh at the date of the commit
	Revoked     Fault = "revoked"
	Unfit       Fault = "not fit to sign" // may not sign commits, is too weak, or is not bound to its certificate
)

// KeyError says that the signature was made by a trusted key and fits, and that
// the key does not count.
type KeyError struct {
	Kind  Kind
	KeyID string // the fingerprint
	Fault Fault
	At    time.Time // when it was judged
}

func (e *KeyError) Error() string {
	text := fmt.Sprintf("signed by %s key %s, which is %s", e.Kind, e.KeyID, e.Fault)
	if e.Fault == Expired || e.Fault == NotYetValid {
		text += " at " + e.At.UTC().Format(time.RFC3339)
	}
	return text
}
