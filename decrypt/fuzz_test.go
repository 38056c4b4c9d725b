package decrypt

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/corpus"
)

// fixedKeys are those of crypto/testdata: a fuzzing run has several processes,
// which must hold the same.
func fixedKeys(tb testing.TB) *fakeKeys {
	tb.Helper()
	read := func(name string) []byte { return must(os.ReadFile("../crypto/testdata/keys/" + name))(tb) }
	return &fakeKeys{
		ids:   must(crypto.ParseIdentities(crypto.NewSecret(read("identity.txt"))))(tb),
		certs: []crypto.CertificateKey{must(crypto.ParseCertificateKey(read("tls.crt"), crypto.NewSecret(read("tls.key"))))(tb)},
	}
}

// sealedText is a value of crypto/testdata, sealed for prod/db.
func sealedText(tb testing.TB, name string) string {
	tb.Helper()
	return string(must(os.ReadFile("../crypto/testdata/values/" + name))(tb))
}

// shows reports whether a text holds the canary in any form.
func shows(text []byte) bool {
	plain := whiteSpace.Replace(string(text))
	return slices.ContainsFunc(canaryForms, func(form string) bool { return strings.Contains(plain, form) })
}

// objectsIn reads objects as they would come out of a build.
func objectsIn(t *testing.T, file string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := build.Run(t.Context(), mapFS("o.json", file), ".", build.AsWritten)
	if err != nil {
		return nil
	}
	return objects
}

// withoutField is the body less one field.
func withoutField(t *testing.T, body crypto.Secret, path ...string) []byte {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(body.Reveal()); err != nil {
		t.Fatalf("the body is no object: %v", err)
	}
	unstructured.RemoveNestedField(u.Object, path...)
	return must(json.Marshal(u.Object))(t)
}

// knownRefusals fails the test if a refusal has no reason that the documents name.
func knownRefusals(t *testing.T, g Gated) {
	t.Helper()
	for _, r := range append(g.Refused, g.Warnings...) {
		if !slices.Contains(Reasons(), r.Reason) || r.Object == "" || r.Message == "" {
			t.Errorf("refused without a reason: %+v", r)
		}
	}
}

// ruleOf makes the rule that a fuzzed kind and selector stand for.
func ruleOf(kind uint8, selector string, to crypto.Identity) crypto.Rule {
	rule := crypto.Rule{Recipients: []crypto.Recipient{to.Recipient()}}
	if corpus.Pick(kind, selector, &rule.EncryptedRegex, &rule.UnencryptedRegex, &rule.EncryptedSuffix,
		&rule.UnencryptedSuffix, &rule.EncryptedCommentRegex, &rule.UnencryptedCommentRegex) {
		rule.EncryptedRegex, rule.MACOnlyEncrypted = crypto.KubernetesSelector, true
	}
	return rule
}

var fileName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}$`)
