package crypto

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	ssv1 "github.com/bitnami-labs/sealed-secrets/pkg/crypto"
)

// Scope is where a SealedSecret's values may be opened.
type Scope string

// The scopes of sealed-secrets, and the annotations that choose the wider ones.
const (
	Strict        Scope = "strict"
	NamespaceWide Scope = "namespace-wide"
	ClusterWide   Scope = "cluster-wide"

	NamespaceWideAnnotation = "sealedsecrets.bitnami.com/namespace-wide"
	ClusterWideAnnotation   = "sealedsecrets.bitnami.com/cluster-wide"
)

// ScopeOf reads the scope from the annotations of a SealedSecret's metadata,
// never of its template (CVE-2026-22728). A value other than "true" counts as
// not there, and cluster-wide wins.
func ScopeOf(annotations map[string]string) Scope {
	switch {
	case annotations[ClusterWideAnnotation] == "true":
		return ClusterWide
	case annotations[NamespaceWideAnnotation] == "true":
		return NamespaceWide
	default:
		return Strict
	}
}

// ParseScope reads what kubeseal's --scope takes.
func ParseScope(s string) (Scope, error) {
	switch sc := Scope(s); sc {
	case Strict, NamespaceWide, ClusterWide:
		return sc, nil
	}
	return "", errors.New("scope must be strict, namespace-wide or cluster-wide")
}

// Annotation returns the annotation that stands for the scope, "" for Strict.
func (s Scope) Annotation() string {
	switch s {
	case NamespaceWide:
		return NamespaceWideAnnotation
	case ClusterWide:
		return ClusterWideAnnotation
	}
	return ""
}

func (s Scope) label(namespace, name string) []byte {
	switch s {
	case ClusterWide:
		return nil
	case NamespaceWide:
		return []byte(namespace)
	default:
		return []byte(namespace + "/" + name)
	}
}

// Target is the object that a SealedSecret value belongs to.
type Target struct {
	Namespace, Name string
	Scope           Scope
}

// ErrExpiredCertificate is returned by SealValue after the certificate's end.
var ErrExpiredCertificate = errors.New("the certificate has expired; run `seal keys fetch`")

// SealValue seals one value as kubeseal does and returns its base64 text.
func SealValue(cert Certificate, t Target, value Secret, now time.Time) (string, error) {
	if cert.IsZero() {
		return "", errors.New("no certificate to seal to")
	}
	if now.After(cert.notAfter) {
		return "", ErrExpiredCertificate
	}
	b, err := ssv1.HybridEncrypt(rand.Reader, cert.pub, value.Reveal(), t.Scope.label(t.Namespace, t.Name))
	if err != nil {
		return "", errors.New("the value could not be sealed")
	}
	return base64.StdEncoding.EncodeToString(b), nil
}

// SealedValueCause is a stable word for why a SealedSecret value does not open.
type SealedValueCause string

// The causes.
const (
	ValueEncoding SealedValueCause = "NotBase64"
	ValueScope    SealedValueCause = "ScopeMismatch"
	ValuePlace    SealedValueCause = "PlaceMismatch" // sealed for another name or namespace
	ValueAltered  SealedValueCause = "ValueAltered"
	ValueNoKey    SealedValueCause = "NoKey"
)

// SealedValueError says why a SealedSecret value does not open.
type SealedValueError struct {
	Field  string // encryptedData.password
	Cause  SealedValueCause
	Reason string   // for people
	Held   []string // fingerprints of the keys that were tried
}

func (e *SealedValueError) Error() string { return e.Field + ": " + e.Reason }

// OpenValueRequest is what OpenValue works on.
type OpenValueRequest struct {
	Keys   []CertificateKey // newest first
	Target Target
	Field  string // for messages: encryptedData.password
	Text   string // base64
	// Elsewhere are places that the value may have been sealed for instead. They
	// only make the error better: nothing opens there.
	Elsewhere []Target
}

// OpenValue opens one value with the first key that fits. The error is a
// *SealedValueError, which tells a wrong scope, a wrong place, a wrong key and
// a changed value apart.
func OpenValue(r OpenValueRequest) (Secret, error) {
	fail := func(cause SealedValueCause, format string, args ...any) (Secret, error) {
		return Secret{}, &SealedValueError{Field: r.Field, Cause: cause, Reason: fmt.Sprintf(format, args...), Held: heldCerts(r.Keys)}
	}
	if len(r.Text) > MaxSealedFile {
		return fail(ValueEncoding, "larger than %d MiB", MaxSealedFile>>20)
	}
	blob, err := base64.StdEncoding.DecodeString(r.Text)
	if err != nil {
		return fail(ValueEncoding, "not base64")
	}
	for _, k := range r.Keys {
		if plain, err := open(k, blob, r.Target); err == nil {
			return NewSecret(plain), nil
		}
	}
	if len(r.Keys) == 0 {
		return fail(ValueNoKey, "no key held")
	}
	if fits(r.Keys, blob, r.Target) {
		return fail(ValueAltered, "the value was changed after it was sealed; restore it or seal it again")
	}
	for _, s := range []Scope{Strict, NamespaceWide, ClusterWide} {
		if s != r.Target.Scope && fits(r.Keys, blob, Target{r.Target.Namespace, r.Target.Name, s}) {
			return fail(ValueScope, "sealed with scope %s, but the object's annotations say %s", s, r.Target.Scope)
		}
	}
	for _, t := range r.Elsewhere {
		for _, s := range []Scope{Strict, NamespaceWide} {
			t.Scope = s
			if fits(r.Keys, blob, t) {
				return fail(ValuePlace, "sealed for %s in scope %s, but the object is %s", t.place(), s, Target{r.Target.Namespace, r.Target.Name, s}.place())
			}
		}
	}
	return fail(ValueNoKey, "no key opens it as %s/%s in scope %s: sealed with another key, or for another name or namespace; keys held: %s",
		r.Target.Namespace, r.Target.Name, r.Target.Scope, strings.Join(heldCerts(r.Keys), ", "))
}

func (t Target) place() string {
	if t.Scope == NamespaceWide {
		return "namespace " + t.Namespace
	}
	return t.Namespace + "/" + t.Name
}

func open(k CertificateKey, blob []byte, t Target) ([]byte, error) {
	return ssv1.HybridDecrypt(rand.Reader, map[string]*rsa.PrivateKey{"": k.priv()}, blob, t.Scope.label(t.Namespace, t.Name))
}

// fits reports whether one of the keys unwraps the session key for the target:
// what fails after that is the value itself. The layout is that of
// sealed-secrets: two bytes of length, the wrapped session key, the value.
func fits(keys []CertificateKey, blob []byte, t Target) bool {
	if len(blob) < 2 {
		return false
	}
	n := int(blob[0])<<8 | int(blob[1])
	if len(blob) < 2+n {
		return false
	}
	for _, k := range keys {
		if _, err := rsa.DecryptOAEP(sha256.New(), rand.Reader, k.priv(), blob[2:2+n], t.Scope.label(t.Namespace, t.Name)); err == nil {
			return true
		}
	}
	return false
}

// OpenedBy is the fingerprint of the key that a value is sealed to, "" where none of these
// is. The value itself is not opened.
func OpenedBy(keys []CertificateKey, t Target, text string) string {
	if len(text) > MaxSealedFile {
		return ""
	}
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return ""
	}
	for i := range keys {
		if fits(keys[i:i+1], blob, t) {
			return keys[i].cert.Fingerprint()
		}
	}
	return ""
}

func heldCerts(keys []CertificateKey) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.cert.Fingerprint()
	}
	return out
}

// CertificatesDigest identifies a set of keys by its public halves, whatever
// their order.
func CertificatesDigest(keys []CertificateKey) string { return digestOf(heldCerts(keys)) }
