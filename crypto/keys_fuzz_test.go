package crypto

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gitseal/gitseal/test/corpus"
)

// keyCanary is in the seeds where somebody takes another secret for a key.
const keyCanary = "HUNTER2-CANARY"

func FuzzParseIdentities(f *testing.F) {
	c := corpus.Of(f)
	f.Add(testdata(f, "keys/identity.txt"))
	f.Add(testdata(f, "keys/hybrid.txt"))
	f.Fuzz(func(t *testing.T, file []byte) {
		ids, err := ParseIdentities(NewSecret(bytes.Clone(file)))
		if (err == nil) != (len(ids) > 0) {
			t.Fatalf("%d identities and %v", len(ids), err)
		}
		if err != nil {
			c.Saw("an error")
			hides(t, err, keyCanary)
			return
		}
		c.Saw("identities")
		for _, id := range ids {
			again, err := ParseIdentities(id.Text())
			if err != nil || len(again) != 1 || again[0].Recipient().String() != id.Recipient().String() || !again[0].Text().Equal(id.Text()) {
				t.Errorf("written and read it is another: %v", err)
			}
			if _, err := ParseRecipient(id.Recipient().String()); err != nil {
				t.Errorf("its recipient is none: %v", err)
			}
		}
	})
	c.Reached("an error", "identities")
}

func FuzzParseRecipients(f *testing.F) {
	c := corpus.Of(f)
	f.Add([]byte("# held by the cluster\n\n" + fixedIdentity(f).Recipient().String() + "\r\n"))
	f.Add(testdata(f, "keys/hybrid.txt")) // a private key, pasted by mistake
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := ParseRecipients(text)
		if err != nil {
			c.Saw("an error")
			if got != nil {
				t.Errorf("%d recipients and %v", len(got), err)
			}
			hides(t, err, keyCanary, "AGE-SECRET-KEY-")
			return
		}
		for _, r := range got {
			c.Saw("recipients")
			again, err := ParseRecipient(r.String())
			if err != nil || again.String() != r.String() || r.Fingerprint() != again.Fingerprint() {
				t.Errorf("%q is another when it is read again: %v", r, err)
			}
			if !slices.Contains(strings.Fields(string(text)), r.String()) {
				t.Errorf("%q is not in the text", r)
			}
		}
	})
	c.Reached("an error", "recipients")
}

func FuzzParseBinding(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, text, namespace, name string) {
		b, err := ParseBinding(text)
		if err != nil {
			c.Saw("an error")
			if b != "" {
				t.Errorf("%q and %v", b, err)
			}
			return
		}
		ns, n, _ := strings.Cut(text, "/")
		want := text == "*" || ns == namespace && (n == "*" || n == name)
		if string(b) != text || b.Allows(namespace, name) != want {
			t.Errorf("%q is %q and allows %q/%q: %v", text, b, namespace, name, !want)
		}
		if want {
			c.Saw("allowed")
		} else {
			c.Saw("not allowed")
		}
		if text != "*" && (b.Allows("", name) || n != "*" && b.Allows(namespace, "")) {
			t.Errorf("%q allows what has no name", text)
		}
	})
	c.Reached("an error", "allowed", "not allowed")
}

func FuzzParsePGPKeys(f *testing.F) {
	c := corpus.Of(f)
	key := testdata(f, "keys/pgp.asc")
	f.Add(key)
	f.Add(append(append(append([]byte(nil), key...), '\n'), key...))
	f.Fuzz(func(t *testing.T, file []byte) {
		keys, err := ParsePGPKeys(NewSecret(bytes.Clone(file)))
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys and %v", len(keys), err)
		}
		if err != nil {
			c.Saw("an error")
			hides(t, err, keyCanary)
			return
		}
		c.Saw("keys")
		// Opening must not panic on a key that could be read.
		_, _ = OpenSOPS(OpenRequest{File: testdata(t, "sealed/pgp.yaml"), Format: YAML, Keys: Keyring{PGPKeys: keys}})
	})
	c.Reached("an error", "keys")
}

func FuzzParseCertificate(f *testing.F) {
	c := corpus.Of(f)
	f.Add(testdata(f, "keys/tls.crt"))
	f.Fuzz(func(t *testing.T, file []byte) {
		cert, err := ParseCertificate(file)
		if err != nil {
			c.Saw("an error")
			if !cert.IsZero() || cert.PEM() != nil || cert.Fingerprint() != "" {
				t.Errorf("a certificate and %v", err)
			}
			hides(t, err, keyCanary)
			return
		}
		c.Saw("a certificate")
		again, err := ParseCertificate(cert.PEM())
		if err != nil || again.Fingerprint() != cert.Fingerprint() || !again.NotAfter().Equal(cert.NotAfter()) {
			t.Errorf("written and read it is another: %v", err)
		}
		// The key in it may be one that nothing can be sealed to.
		if text, err := SealValue(cert, Target{"prod", "db", Strict}, NewSecretString(sealedCanary), cert.NotBefore()); err != nil {
			hides(t, err, sealedCanary)
		} else if b, err := base64.StdEncoding.DecodeString(text); err != nil || bytes.Contains(b, []byte(sealedCanary)) {
			t.Errorf("the sealed value is not base64 or shows what it seals: %v", err)
		}
	})
	c.Reached("an error", "a certificate")
}

func FuzzParseCertificateKey(f *testing.F) {
	c := corpus.Of(f)
	cert, key := testdata(f, "keys/tls.crt"), testdata(f, "keys/tls.key")
	f.Add(cert, key)
	f.Add(cert, testdata(f, "keys/pkcs8.key"))
	f.Add(cert, cert)
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		k, err := ParseCertificateKey(cert, NewSecret(bytes.Clone(key)))
		if err != nil {
			c.Saw("an error")
			if k.priv != nil || !k.Certificate().IsZero() {
				t.Errorf("a key and %v", err)
			}
			hides(t, err, keyCanary)
			return
		}
		c.Saw("a key")
		if again, err := ParseCertificateKey(k.Certificate().PEM(), k.PEM()); err != nil || again.Certificate().Fingerprint() != k.Certificate().Fingerprint() {
			t.Errorf("written and read it is another: %v", err)
		}
		// Opening must not panic on a key that could be read.
		_, err = OpenValue(OpenValueRequest{Keys: []CertificateKey{k}, Target: Target{"prod", "db", Strict}, Text: string(testdata(t, "values/strict"))})
		var ve *SealedValueError
		if err != nil && !errors.As(err, &ve) {
			t.Errorf("opening with it: %v", err)
		}
	})
	c.Reached("an error", "a key")
}

// FuzzOpenValue: only what was sealed opens, and only for its place.
func FuzzOpenValue(f *testing.F) {
	c := corpus.Of(f)
	key := fixedCertificateKey(f)
	places := map[Scope]func(namespace, name string) bool{
		Strict:        func(namespace, name string) bool { return namespace+"/"+name == "prod/db" },
		NamespaceWide: func(namespace, _ string) bool { return namespace == "prod" },
		ClusterWide:   func(string, string) bool { return true },
	}
	for name, text := range corpus.Files(f, "testdata/values") {
		f.Add(string(text), name, "prod", "db")
		f.Add(string(text), string(ClusterWide), "other", "db")
		f.Add(string(text), string(NamespaceWide), "prod", "other")
	}
	f.Fuzz(func(t *testing.T, text, scope, namespace, name string) {
		allowed := places[Scope(scope)]
		if allowed == nil {
			return
		}
		req := OpenValueRequest{Keys: []CertificateKey{key}, Target: Target{namespace, name, Scope(scope)}, Field: "encryptedData.k", Text: text, Elsewhere: []Target{{Namespace: "prod", Name: "db"}}}
		v, err := OpenValue(req)
		if err != nil {
			var ve *SealedValueError
			if !v.IsZero() || !errors.As(err, &ve) || ve.Field != req.Field || ve.Cause == "" || ve.Reason == "" {
				t.Fatalf("a value %v and %v", !v.IsZero(), err)
			}
			c.Saw(string(ve.Cause))
			hides(t, err, sealedCanary)
			return
		}
		c.Saw("opened")
		if !strings.Contains(string(v.Reveal()), sealedCanary) || !allowed(namespace, name) {
			t.Errorf("%s/%s in scope %s opens to something else, or should not open", namespace, name, scope)
		}
	})
	c.Reached("opened", string(ValueEncoding), string(ValueScope), string(ValuePlace), string(ValueAltered), string(ValueNoKey))
}

func FuzzParseCertificateKeys(f *testing.F) {
	c := corpus.Of(f)
	cert, key := testdata(f, "keys/tls.crt"), testdata(f, "keys/tls.key")
	secret := []byte("kind: Secret\ndata:\n  tls.crt: " + base64.StdEncoding.EncodeToString(cert) + "\n  tls.key: " + base64.StdEncoding.EncodeToString(key) + "\n")
	f.Add(slices.Concat(cert, key))
	f.Add(key)
	f.Add(secret)
	f.Add([]byte("kind: List\nitems:\n- " + strings.ReplaceAll(string(secret), "\n", "\n  ")))
	want := fixedCertificateKey(f).Certificate().Fingerprint()
	f.Fuzz(func(t *testing.T, file []byte) {
		keys, err := ParseCertificateKeys(NewSecret(bytes.Clone(file)))
		if (err == nil) != (len(keys) > 0) {
			t.Fatalf("%d keys and %v", len(keys), err)
		}
		if err != nil {
			c.Saw("an error")
			hides(t, err, keyCanary)
			return
		}
		for _, k := range keys {
			if k.Certificate().Fingerprint() == want {
				c.Saw("the key")
			}
		}
	})
	c.Reached("an error", "the key")
}
