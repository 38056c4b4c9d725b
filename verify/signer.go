package verify

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// maxIdentityRunes cuts what goes into status and logs.
const maxIdentityRunes = 200

var errNoTime = errors.New("no time was given to judge it at")

// Kind is how a signature was made.
type Kind string

// The kinds.
const (
	OpenPGP Kind = "OpenPGP"
	SSH     Kind = "SSH"
)

// Signer is who signed.
type Signer struct {
	Kind        Kind
	Fingerprint string // of the key: in OpenPGP, which may be a subkey, upper-case hex; in ssh SHA256:...
	Primary     string // OpenPGP: fingerprint of the certificate's primary key, which may be the same; else empty
	Identity    string // user id of the certificate, principals of the line, or the comment of a plain ssh key
}

// String is for messages: "OpenPGP key 0123... (Ada <ada@example.com>)".
func (s Signer) String() string {
	if s.Identity == "" {
		return fmt.Sprintf("%s key %s", s.Kind, s.Fingerprint)
	}
	return fmt.Sprintf("%s key %s (%s)", s.Kind, s.Fingerprint, s.Identity)
}

// Commit says who signed the commit raw, the object as git stores it. OpenPGP
// keys are judged as they are now; ssh keys now and at the committer's date.
// Errors are ErrUnsigned, ErrBadSignature, ErrRefused, *UnknownSignerError and
// *KeyError; the Signer beside an error is zero.
func (k Keys) Commit(raw []byte, now time.Time) (Signer, error) {
	o, err := splitCommit(raw)
	return k.signer("commit", o, err, now)
}

// Tag says who signed the annotated tag raw, the object as git stores it, as
// Commit does. It says nothing of what the tag stands for: Policy.Check does.
func (k Keys) Tag(raw []byte, now time.Time) (Signer, error) {
	o, err := splitTag(raw)
	return k.signer("tag", o, err, now)
}

func (k Keys) signer(what string, o signedObject, err error, now time.Time) (Signer, error) {
	if now.IsZero() { // both libraries and we would take it for long ago
		err = errNoTime
	}
	if err != nil {
		return Signer{}, fmt.Errorf("%s: %w", what, err)
	}
	var s Signer
	switch kind, body, err := dearmor(o.signature); {
	case err != nil:
		return Signer{}, fmt.Errorf("%s: %w", what, err)
	case kind == SSH:
		s, err = k.sshSigner(o, body, now)
		if err != nil {
			return Signer{}, fmt.Errorf("%s: %w", what, err)
		}
	default:
		s, err = k.pgpSigner(o.payload, body, now)
		if err != nil {
			return Signer{}, fmt.Errorf("%s: %w", what, err)
		}
	}
	s.Identity = oneLine(s.Identity)
	return s, nil
}

// oneLine makes foreign text fit for status, logs and terminals.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
	if runes := []rune(text); len(runes) > maxIdentityRunes {
		text = string(runes[:maxIdentityRunes-1]) + "…"
	}
	return strings.TrimSpace(text)
}
