package crypto

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestScopesDecideWhereAValueOpens is the matrix of kubeseal --raw: sealed for
// one place, opened in another. Each failure has a reason of its own.
func TestScopesDecideWhereAValueOpens(t *testing.T) {
	t.Parallel()
	key := testCertificateKey(t)
	seal := func(ns, name string, s Scope) string {
		text, err := SealValue(key.Certificate(), Target{ns, name, s}, NewSecretString(canary), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	for name, c := range map[string]struct {
		sealed, opened Target
		reason         string // "" opens
		cause          SealedValueCause
		elsewhere      []Target
	}{
		"strict, same place":                                            {Target{"ns", "a", Strict}, Target{"ns", "a", Strict}, "", "", nil},
		"strict, other name":                                            {Target{"ns", "a", Strict}, Target{"ns", "b", Strict}, "no key opens it as ns/b in scope strict", ValueNoKey, nil},
		"strict, other namespace":                                       {Target{"ns", "a", Strict}, Target{"x", "a", Strict}, "no key opens it as x/a in scope strict", ValueNoKey, nil},
		"strict, said to be namespace-wide":                             {Target{"ns", "a", Strict}, Target{"ns", "a", NamespaceWide}, "sealed with scope strict, but the object's annotations say namespace-wide", ValueScope, nil},
		"strict, said to be cluster-wide":                               {Target{"ns", "a", Strict}, Target{"ns", "a", ClusterWide}, "sealed with scope strict, but the object's annotations say cluster-wide", ValueScope, nil},
		"strict, renamed, and the template has the old name":            {Target{"ns", "a", Strict}, Target{"ns", "b", Strict}, "sealed for ns/a in scope strict, but the object is ns/b", ValuePlace, []Target{{"ns", "a", ""}}},
		"namespace-wide, moved, and the template has the old namespace": {Target{"ns", "a", NamespaceWide}, Target{"x", "a", NamespaceWide}, "sealed for namespace ns in scope namespace-wide, but the object is namespace x", ValuePlace, []Target{{"ns", "a", ""}}},
		"namespace-wide, other name":                                    {Target{"ns", "a", NamespaceWide}, Target{"ns", "b", NamespaceWide}, "", "", nil},
		"namespace-wide, other namespace":                               {Target{"ns", "a", NamespaceWide}, Target{"x", "a", NamespaceWide}, "no key opens it as x/a in scope namespace-wide", ValueNoKey, nil},
		"namespace-wide, said to be strict":                             {Target{"ns", "a", NamespaceWide}, Target{"ns", "a", Strict}, "sealed with scope namespace-wide, but the object's annotations say strict", ValueScope, nil},
		"cluster-wide, anywhere":                                        {Target{"ns", "a", ClusterWide}, Target{"x", "b", ClusterWide}, "", "", nil},
		"cluster-wide, said to be strict":                               {Target{"ns", "a", ClusterWide}, Target{"ns", "a", Strict}, "sealed with scope cluster-wide, but the object's annotations say strict", ValueScope, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := OpenValue(OpenValueRequest{Keys: []CertificateKey{key}, Target: c.opened, Field: "password", Text: seal(c.sealed.Namespace, c.sealed.Name, c.sealed.Scope), Elsewhere: c.elsewhere})
			if c.reason == "" {
				if err != nil || string(got.Reveal()) != canary {
					t.Fatalf("got %v", err)
				}
				return
			}
			var ve *SealedValueError
			if !errors.As(err, &ve) || !got.IsZero() || !strings.Contains(ve.Reason, c.reason) || ve.Field != "password" || ve.Cause != c.cause {
				t.Errorf("got %v, want the reason %q", err, c.reason)
			}
		})
	}
	t.Run("damaged", func(t *testing.T) {
		t.Parallel()
		good := seal("ns", "a", Strict)
		for name, c := range map[string]struct {
			text  string
			cause SealedValueCause
		}{
			"not base64": {"?" + good, ValueEncoding}, "cut": {good[:len(good)/2/4*4], ValueNoKey}, "empty": {"", ValueNoKey}, "too short": {"AgAA", ValueNoKey},
			"changed": {good[:len(good)-8] + "AAAAAAA=", ValueAltered},
		} {
			text := c.text
			v, err := OpenValue(OpenValueRequest{Keys: []CertificateKey{key}, Target: Target{"ns", "a", Strict}, Text: text})
			var ve *SealedValueError
			if !errors.As(err, &ve) || !v.IsZero() || ve.Cause != c.cause {
				t.Errorf("%s: got %v, want %s", name, err, c.cause)
			}
		}
		if _, err := OpenValue(OpenValueRequest{Target: Target{"ns", "a", Strict}, Text: good}); err == nil || !strings.Contains(err.Error(), "no key held") {
			t.Errorf("without keys: %v", err)
		}
	})
}

func TestScopeComesFromAnnotations(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		a    map[string]string
		want Scope
	}{
		"none":             {nil, Strict},
		"namespace":        {map[string]string{NamespaceWideAnnotation: "true"}, NamespaceWide},
		"cluster":          {map[string]string{ClusterWideAnnotation: "true"}, ClusterWide},
		"cluster wins":     {map[string]string{ClusterWideAnnotation: "true", NamespaceWideAnnotation: "true"}, ClusterWide},
		"only true counts": {map[string]string{ClusterWideAnnotation: "True", NamespaceWideAnnotation: "yes"}, Strict},
		"an empty one":     {map[string]string{ClusterWideAnnotation: ""}, Strict},
	} {
		if got := ScopeOf(c.a); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestKeysSurviveTheirText(t *testing.T) {
	t.Parallel()
	key := testCertificateKey(t)
	again, err := ParseCertificateKey(key.Certificate().PEM(), key.PEM())
	if err != nil {
		t.Fatal(err)
	}
	if again.Certificate().Fingerprint() != key.Certificate().Fingerprint() || !strings.HasPrefix(key.Certificate().Fingerprint(), "SHA256:") {
		t.Errorf("fingerprints %s and %s", again.Certificate().Fingerprint(), key.Certificate().Fingerprint())
	}
	if years := time.Until(key.Certificate().NotAfter()).Hours() / 24 / 365; years < 9.9 || years > 10.1 {
		t.Errorf("valid for %.1f years, want ten", years)
	}
	id := testIdentity(t)
	ids, err := ParseIdentities(NewSecretString("# a comment\n\n" + string(id.Text().Reveal()) + "\r\n"))
	if err != nil || len(ids) != 1 || ids[0].Recipient().String() != id.Recipient().String() {
		t.Errorf("got %v, %v", ids, err)
	}
	for name, text := range map[string]string{
		"nothing": "", "a comment": "# x", "not a key": "HUNTER2-CANARY", "half a key": string(id.Text().Reveal())[:40], "a recipient": id.Recipient().String(),
		"a plugin": "AGE-PLUGIN-YUBIKEY-1QQPQZLQHX3A",
	} {
		if _, err := ParseIdentities(NewSecretString(text)); err == nil || strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), "AGE-SECRET-KEY-1Q") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "age1", string(id.Text().Reveal()), "ssh-ed25519 AAAA", "age1yubikey1qqqq", id.Recipient().String() + "\n" + id.Recipient().String()} {
		if _, err := ParseRecipient(bad); err == nil || strings.Contains(err.Error(), "AGE-SECRET-KEY-1") {
			t.Errorf("ParseRecipient: %v", err)
		}
	}
}

func TestBindings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][3]bool{ // allows ns/a, ns/b, x/a
		"ns/a": {true, false, false},
		"ns/*": {true, true, false},
		"*":    {true, true, true},
	} {
		b, err := ParseBinding(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]bool{b.Allows("ns", "a"), b.Allows("ns", "b"), b.Allows("x", "a")}; got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
	for _, bad := range []string{"", "ns", "/", "ns/", "/a", "*/a", "ns/a*", "a/b/c", "ns/ a", "**"} {
		if b, err := ParseBinding(bad); err == nil {
			t.Errorf("%q is accepted as %q", bad, b)
		}
	}
	if Binding("").Allows("", "") {
		t.Error("the empty binding allows something")
	}
}

func TestManifestsBecomeSealedSecrets(t *testing.T) {
	t.Parallel()
	key := testCertificateKey(t)
	plain := NewSecretString(`apiVersion: v1
kind: Secret
metadata:
  name: a
  namespace: ns
  ownerReferences: [{name: x}]
  labels: {app: shop}
  annotations: {note: hi, kubectl.kubernetes.io/last-applied-configuration: canary}
type: Opaque
immutable: true
data: {b: aHVudGVyMg==, both: b2xk}
stringData: {both: new, n: 5432, on: true}
`)
	got, err := SealManifests(SealManifestRequest{Plain: plain, Cert: key.Certificate(), Now: time.Now()})
	if err != nil || len(got) != 1 {
		t.Fatal(err)
	}
	spec := got[0]["spec"].(map[string]any)
	values := map[string]string{}
	for k, v := range spec["encryptedData"].(map[string]any) {
		p, err := OpenValue(OpenValueRequest{Keys: []CertificateKey{key}, Target: Target{"ns", "a", Strict}, Text: v.(string)})
		if err != nil {
			t.Fatal(err)
		}
		values[k] = string(p.Reveal())
	}
	if d := cmp.Diff(map[string]string{"b": "hunter2", "both": "new", "n": "5432", "on": "true"}, values); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
	delete(spec, "encryptedData")
	want := map[string]any{
		"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": map[string]any{"name": "a", "namespace": "ns"},
		"spec": map[string]any{"template": map[string]any{"type": "Opaque", "immutable": true, "metadata": map[string]any{
			"name": "a", "namespace": "ns", "labels": map[string]any{"app": "shop"}, "annotations": map[string]any{"note": "hi"},
		}}},
	}
	if d := cmp.Diff(want, got[0]); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
