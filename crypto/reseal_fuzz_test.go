package crypto

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/test/corpus"
)

// FuzzResealSOPS: a file is sealed anew and opens to what it was, for the new key
// only, or it is not sealed anew and nothing is returned.
func FuzzResealSOPS(f *testing.F) {
	c := corpus.Of(f)
	ring := fixedRing(f)
	next := testIdentity(f)
	for name, file := range corpus.Files(f, "testdata/sealed") {
		f.Add(file, string(FormatOf(name)), false)
	}
	f.Fuzz(func(t *testing.T, file []byte, format string, keep bool) {
		if _, ok := sopsFormats[Format(format)]; !ok || bytes.Contains(file, []byte(sealedCanary)) {
			return
		}
		got, err := ResealSOPS(ResealRequest{File: file, Format: Format(format), Keys: ring, Recipients: to(next), KeepDataKey: keep, Now: testTime})
		if err != nil {
			c.Saw("an error")
			if got.File != nil || got.Units != nil {
				t.Errorf("%d bytes and %v", len(got.File), err)
			}
			hides(t, err, sealedCanary)
			return
		}
		c.Saw("sealed " + format)
		if keep {
			c.Saw("kept the data key")
		}
		if len(got.Units) > 1 {
			c.Saw("several units")
		}
		if bytes.Contains(got.File, []byte(sealedCanary)) {
			t.Errorf("the new file shows a value:\n%s", got.File)
		}
		before, err := OpenSOPS(OpenRequest{File: file, Format: Format(format), Keys: ring})
		if err != nil {
			t.Fatalf("sealed anew although it does not open: %v", err)
		}
		after, err := OpenSOPS(OpenRequest{File: got.File, Format: Format(format), Keys: Keyring{Identities: []Identity{next}}})
		if err != nil {
			t.Fatalf("it does not open again: %v\n%s", err, got.File)
		}
		if d := cmp.Diff(leafTexts(before), leafTexts(after)); d != "" {
			t.Errorf("it opens to something else (-want +got):\n%s", d)
		}
		if d := cmp.Diff(before.Bindings(), after.Bindings()); d != "" {
			t.Errorf("its bindings changed (-want +got):\n%s", d)
		}
		if !keep && ring.Identities != nil {
			if _, err := OpenSOPS(OpenRequest{File: got.File, Format: Format(format), Keys: ring}); err == nil {
				t.Error("the old key still opens it")
			}
		}
	})
	c.Reached("an error", "sealed yaml", "sealed json", "sealed dotenv", "sealed ini", "sealed binary", "several units", "kept the data key")
}

// FuzzResealSealedSecrets: the values of a file are sealed anew for the same places
// and scopes, and all else stays, or nothing is returned.
func FuzzResealSealedSecrets(f *testing.F) {
	c := corpus.Of(f)
	key := fixedCertificateKey(f)
	f.Fuzz(func(t *testing.T, file []byte) {
		if bytes.Contains(file, []byte(sealedCanary)) {
			return
		}
		req := SealedSecretsRequest{File: file, Keys: []CertificateKey{key}, To: key.Certificate(), Now: key.Certificate().NotBefore()}
		got, listed, err := ResealSealedSecrets(req)
		if err != nil {
			c.Saw("an error")
			if got != nil || listed != nil {
				t.Errorf("%d bytes and %v", len(got), err)
			}
			hides(t, err, sealedCanary)
			return
		}
		before, err := findSealedSecrets(req)
		if err != nil {
			t.Fatal(err)
		}
		req.File = got
		after, err := findSealedSecrets(req)
		if err != nil || len(after) != len(before) {
			t.Fatalf("it can not be read again: %v\n%s", err, got)
		}
		for i, s := range after {
			c.Saw("sealed " + string(s.target.Scope))
			for j, v := range s.values {
				was, _, err := before[i].values[j].open(req.Keys, before[i].target)
				is, _, err2 := v.open(req.Keys, s.target)
				if err != nil || err2 != nil || !was.Equal(is) {
					t.Errorf("%s opens to something else: %v, %v", v.field, err, err2)
				}
			}
		}
		if !sameButValues(file, got, before, after) {
			t.Errorf("more than the values changed:\n%s\nwas\n%s", got, file)
		}
	})
	c.Reached("an error", "sealed strict", "sealed namespace-wide", "sealed cluster-wide")
}
