package crypto

import (
	"crypto/rand"
	"crypto/rsa"
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

// SealedValueError says why a SealedSecret value does not open.
type SealedValueError struct {
	Key    string // the key of encryptedData
	Reason string
	Held   []string // fingerprints of the keys that were tried
}

func (e *SealedValueError) Error() string {
	return fmt.Sprintf("encryptedData.%s: %s", e.Key, e.Reason)
}

// OpenValue opens one value with the first key that fits; keys should be in
// the order newest first. The error is a *SealedValueError, whose Reason tells
// a wrong scope, a wrong key and a changed value apart.
func OpenValue(keys []CertificateKey, t Target, key, text string) (Secret, error) {
	fail := func(format string, args ...any) (Secret, error) {
		return Secret{}, &SealedValueError{Key: key, Reason: fmt.Sprintf(format, args...), Held: heldCerts(keys)}
	}
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return fail("not base64")
	}
	for _, k := range keys {
		if plain, err := open(k, blob, t); err == nil {
			return NewSecret(plain), nil
		}
	}
	// Diagnosis: which other scope of the same object would have fitted.
	for _, s := range []Scope{Strict, NamespaceWide, ClusterWide} {
		if s == t.Scope {
			continue
		}
		for _, k := range keys {
			if _, err := open(k, blob, Target{t.Namespace, t.Name, s}); err == nil {
				return fail("sealed with scope %s, but the object's annotations say %s", s, t.Scope)
			}
		}
	}
	if len(keys) == 0 {
		return fail("no key held")
	}
	return fail("no key opens it as %s in scope %s: sealed for another name or namespace, with another key, or changed; keys held: %s",
		t.Namespace+"/"+t.Name, t.Scope, strings.Join(heldCerts(keys), ", "))
}

func open(k CertificateKey, blob []byte, t Target) ([]byte, error) {
	return ssv1.HybridDecrypt(rand.Reader, map[string]*rsa.PrivateKey{"": k.priv()}, blob, t.Scope.label(t.Namespace, t.Name))
}

func heldCerts(keys []CertificateKey) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.cert.Fingerprint()
	}
	return out
}
