package crypto

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gitseal/gitseal/test/corpus"
)

// sealedCanary is in every value that is sealed in testdata, and nowhere in the
// clear there.
const sealedCanary = "hunter2canary"

// A fuzzing run has several processes, which must hold the same keys.
func testdata(tb testing.TB, file string) []byte {
	tb.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func fixedIdentity(tb testing.TB) Identity {
	tb.Helper()
	ids, err := ParseIdentities(NewSecret(testdata(tb, "keys/identity.txt")))
	if err != nil {
		tb.Fatal(err)
	}
	return ids[0]
}

func fixedRing(tb testing.TB) Keyring {
	tb.Helper()
	keys, err := ParsePGPKeys(NewSecret(testdata(tb, "keys/pgp.asc")))
	if err != nil {
		tb.Fatal(err)
	}
	return Keyring{Identities: []Identity{fixedIdentity(tb)}, PGPKeys: keys}
}

func fixedCertificateKey(tb testing.TB) CertificateKey {
	tb.Helper()
	k, err := ParseCertificateKey(testdata(tb, "keys/tls.crt"), NewSecret(testdata(tb, "keys/tls.key")))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

// hides fails the test if an error, or anything it wraps, shows one of the texts.
func hides(t *testing.T, err error, texts ...string) {
	t.Helper()
	said := fmt.Sprintf("%v %+v %#v %q", err, err, err, err)
	for e := err; e != nil; e = errors.Unwrap(e) {
		said += fmt.Sprintf(" %+v", e)
	}
	for _, text := range texts {
		if strings.Contains(said, text) {
			t.Errorf("the error shows content (%q): %s", text, said)
		}
	}
}

// documented reports whether the error is one that OpenSOPS and SealSOPS name.
func documented(err error) bool {
	for _, known := range []error{ErrNotSOPS, ErrNoMAC, ErrMAC, ErrNoIdentity, ErrBindingMoved, ErrBindingNotSealed, ErrAlreadySealed, ErrNothingSealed, ErrNoRecipient} {
		if errors.Is(err, known) {
			return true
		}
	}
	var noKey *NoKeyError
	var value *ValueError
	var limit *LimitError
	var format *FormatError
	var structure *StructureSealedError
	var inClear *LeftInClearError
	return errors.As(err, &noKey) || errors.As(err, &value) || errors.As(err, &limit) || errors.As(err, &format) ||
		errors.As(err, &structure) || errors.As(err, &inClear)
}

func TestSealedTestdataOpens(t *testing.T) {
	t.Parallel()
	for name, file := range corpus.Files(t, "testdata/sealed") {
		f, err := OpenSOPS(OpenRequest{File: file, Format: FormatOf(name), Keys: fixedRing(t)})
		if name == "encrypted-comments.yaml" && err == nil && len(f.Leaves) == 0 {
			continue
		}
		if err != nil || len(f.Leaves) == 0 || strings.Contains(string(file), sealedCanary) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range corpus.Files(t, "testdata/values") {
		opened := false
		for _, s := range []Scope{Strict, NamespaceWide, ClusterWide} {
			v, err := OpenValue(OpenValueRequest{Keys: []CertificateKey{fixedCertificateKey(t)}, Target: Target{"prod", "db", s}, Text: string(text)})
			opened = opened || err == nil && strings.Contains(string(v.Reveal()), sealedCanary)
		}
		if !opened {
			t.Errorf("%s does not open", name)
		}
	}
}
