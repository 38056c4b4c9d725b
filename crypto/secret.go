package crypto

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every Secret prints as.
const Redacted = "[redacted]"

// ErrSecretEncode is returned by every encoder that is handed a Secret: a mask
// must never become data.
var ErrSecretEncode = errors.New("refusing to encode a secret")

// Secret holds plaintext or private key bytes. Printing it in any way gives
// "[redacted]"; encoding it is an error; it can not be compared with ==.
//
// The bytes sit inside a closure. Package fmt skips Formatter for %p and for
// unexported fields of an enclosing struct, and for a verb that does not fit
// (%s of a struct with a pointer in it) it follows even pointers; of a func it
// only ever prints an address. Copies of a Secret share the bytes. A Secret is never changed after
// it is made, so it is safe for concurrent use.
//
// What Go can not promise: the runtime may have copied the bytes, and they are
// not zeroed when the Secret is dropped.
type Secret struct {
	bytes func() []byte // nil in the zero Secret; funcs are not comparable
}

// NewSecret takes over b: the caller must not use b afterwards.
func NewSecret(b []byte) Secret { return Secret{bytes: func() []byte { return b }} }

// NewSecretString copies s into a Secret.
func NewSecretString(s string) Secret { return NewSecret([]byte(s)) }

// Reveal returns the bytes themselves, not a copy; they must not be changed.
// It is the only way to read a Secret, and test/arch_test.go lists who may
// call it. The zero Secret reveals nil.
func (s Secret) Reveal() []byte {
	if s.bytes == nil {
		return nil
	}
	return s.bytes()
}

// IsZero reports whether s was never given a value. A Secret made from no
// bytes is not zero.
func (s Secret) IsZero() bool { return s.bytes == nil }

// Equal reports in constant time whether both hold the same bytes. The zero
// Secret equals only another zero Secret.
func (s Secret) Equal(o Secret) bool {
	if s.IsZero() || o.IsZero() {
		return s.IsZero() && o.IsZero()
	}
	return subtle.ConstantTimeCompare(s.bytes(), o.bytes()) == 1
}

// Format implements fmt.Formatter for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) } // fmt has no way to report it

// String implements fmt.Stringer.
func (Secret) String() string { return Redacted }

// GoString implements fmt.GoStringer.
func (Secret) GoString() string { return Redacted }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON always fails with ErrSecretEncode.
func (Secret) MarshalJSON() ([]byte, error) { return nil, ErrSecretEncode }

// MarshalText always fails with ErrSecretEncode.
func (Secret) MarshalText() ([]byte, error) { return nil, ErrSecretEncode }

// MarshalBinary always fails with ErrSecretEncode.
func (Secret) MarshalBinary() ([]byte, error) { return nil, ErrSecretEncode }

// MarshalYAML always fails with ErrSecretEncode.
func (Secret) MarshalYAML() (any, error) { return nil, ErrSecretEncode }

// GobEncode always fails with ErrSecretEncode.
func (Secret) GobEncode() ([]byte, error) { return nil, ErrSecretEncode }
