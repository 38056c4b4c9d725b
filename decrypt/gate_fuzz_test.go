package decrypt

import (
	"encoding/base64"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/corpus"
)

// FuzzGate: of any object in which placeholders stand anywhere, either nothing is
// sent, or the values stand where the policy lets them and no placeholder is left.
// In the fuzzed text @S, @C, @M and @U stand for placeholders, of a Secret, a
// ConfigMap, a file and one that does not open; @s, @c and @m for their base64; @P
// and @Q for that of sealed files.
func FuzzGate(f *testing.F) {
	c := corpus.Of(f)
	keys := fixedKeys(f)
	tree := fstest.MapFS{}
	for name, file := range corpus.Files(f, "../crypto/testdata/sealed") {
		tree[name] = &fstest.MapFile{Data: file}
	}
	masker := NewMasker(MaskerConfig{Tree: tree, Keys: keys, Digester: digesterOf(f)})
	read := func(name string) string { return string(must(masker.ReadFile(name))(f)) }
	token := func(name, after string) string {
		return tokenPattern.FindString(read(name)[strings.Index(read(name), after):])
	}
	secret, configMap, file := token("secret.yaml", "password:"), token("configmap.yaml", "host:"), read("config.json")
	pass := masker.Pass()
	closed := unopened("ENC[of a file that does not open")
	pass.values.missing[closed] = "closed.yaml"
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	fill := strings.NewReplacer("@S", secret, "@C", configMap, "@U", closed, "@s", encode(secret), "@c", encode(configMap), "@m", encode(file),
		"@P", encode(string(tree["secret.yaml"].Data)), "@Q", encode(string(tree["units.yaml"].Data)),
		"@M", strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(file))
	f.Fuzz(func(t *testing.T, text string, policy uint8) {
		if len(text) > 1<<14 {
			return
		}
		masked := *pass
		masked.policy = Policy{Plaintext: []PlaintextPolicy{PlaintextDeny, PlaintextWarn, PlaintextAllow}[policy%3], Namespace: "prod"}
		if policy&4 != 0 {
			masked.policy.Outside = OutsideAllow
		}
		if policy&8 != 0 {
			masked.policy.Binding = BindingRequired
		}
		if policy&16 != 0 {
			masked.policy.SealedSecrets = PassThrough
		}
		g := masked.Gate(objectsIn(t, fill.Replace(text)))
		assertNoCanary(t, g.Refused, g.Warnings)
		knownRefusals(t, g)
		if len(g.Refused) > 0 {
			c.Saw("refused")
		}
		for _, o := range g.Objects {
			body, digest, err := o.Body(map[string]string{"owner": "test"})
			if err != nil {
				assertNoCanary(t, err)
				if !body.IsZero() || digest != "" {
					t.Errorf("a body and %v", err)
				}
				continue
			}
			if left := findToken(string(body.Reveal())); left != "" {
				t.Errorf("%s is sent with a placeholder in it", o)
			}
			field := []string{"nothing"}
			switch kind := o.Masked.GetKind(); {
			case isSecret(o.Masked):
				field = []string{"data"}
			case kind == "ConfigMap" && masked.policy.Outside == OutsideAllow:
				field = []string{"data", "host"}
			}
			if shows(withoutField(t, body, field...)) {
				t.Errorf("%s is sent with a value where it may not be:\n%s", o, text)
			}
			if shows(body.Reveal()) {
				c.Saw("sent with a value, " + o.Masked.GetKind())
				if !o.CarriesPlaintext() {
					t.Errorf("%s does not say that it carries plaintext", o)
				}
			}
		}
	})
	c.Reached("refused", "sent with a value, Secret", "sent with a value, ConfigMap")
}

// FuzzSealedSecretObjects: of any SealedSecret, either nothing is sent and it is
// said why without a value, or a Secret of its name with the values in its data.
// In the fuzzed text @S, @N and @C stand for values sealed for prod/db in the three
// scopes, @D for the deprecated form.
func FuzzSealedSecretObjects(f *testing.F) {
	c := corpus.Of(f)
	keys := fixedKeys(f)
	fill := strings.NewReplacer("@S", sealedText(f, "strict"), "@N", sealedText(f, "namespace-wide"), "@C", sealedText(f, "cluster-wide"), "@D", sealedText(f, "blob"), "@E", sealedText(f, "sopsvalue"))
	f.Fuzz(func(t *testing.T, text string, deprecated, through bool) {
		if len(text) > 1<<14 {
			return
		}
		policy := Policy{DeprecatedData: deprecated, Namespace: "prod"}
		if through {
			policy.SealedSecrets = PassThrough
		}
		objects := objectsIn(t, fill.Replace(text))
		if len(objects) > 4 {
			return // each value costs some milliseconds
		}
		g := NewMasker(MaskerConfig{Keys: keys, Digester: digesterOf(t), Policy: policy}).Pass().Gate(objects)
		assertNoCanary(t, g, g.Refused, g.Warnings)
		knownRefusals(t, g)
		if len(g.Refused) > 0 {
			c.Saw("refused")
		}
		for _, o := range g.Objects {
			assertNoCanary(t, o, o.Masked.Object)
			body, digest, err := o.Body(map[string]string{"owner": "test"})
			if err != nil {
				c.Saw("does not open")
				assertNoCanary(t, err)
				if !body.IsZero() || digest != "" {
					t.Errorf("a body and %v", err)
				}
				continue
			}
			if !o.FromSealedSecret() {
				c.Saw("another object")
				if shows(body.Reveal()) {
					t.Errorf("%s shows a value", o)
				}
				continue
			}
			c.Saw("opened")
			u := o.Masked.DeepCopy()
			if err := u.UnmarshalJSON(body.Reveal()); err != nil {
				t.Fatal(err)
			}
			_, reserved := u.GetLabels()[keyLabel]
			if !isSecret(u) || u.GetName() != o.Name() || u.GetNamespace() != o.Namespace() || reserved || u.GetLabels()["owner"] != "test" {
				t.Errorf("%s becomes %s with the labels %v", o, describe(u), u.GetLabels())
			}
			decodedData(t, u)
			if shows(withoutField(t, body, "data")) {
				t.Errorf("%s shows a value outside of its data", o)
			}
			if !o.Volatile() {
				if again, _, err := o.Body(map[string]string{"owner": "test"}); err != nil || !again.Equal(body) {
					t.Errorf("%s has another body the second time: %v", o, err)
				}
			}
		}
	})
	c.Reached("refused", "does not open", "another object", "opened")
}

// FuzzMaskedTree: whatever a file of the repository holds, with keys and without,
// nothing that comes out of the render shows a sealed value.
func FuzzMaskedTree(f *testing.F) {
	c := corpus.Of(f)
	keys := fixedKeys(f)
	for name, file := range corpus.Files(f, "../crypto/testdata/sealed") {
		f.Add(name, file, false, false)
		f.Add(name, file, true, false)
		f.Add(name, file, false, true)
	}
	f.Fuzz(func(t *testing.T, name string, file []byte, warn, generate bool) {
		if !fileName.MatchString(name) || shows(file) || len(file) > 1<<16 {
			return
		}
		at := name
		tree := fstest.MapFS{}
		if generate {
			at = "sub/" + name
			tree = mapFS("kustomization.yaml", `{"configMapGenerator": [{"name": "c", "files": ["k=`+at+`"]}], "secretGenerator": [{"name": "s", "files": ["k=`+at+`"]}]}`)
		}
		tree[at] = &fstest.MapFile{Data: file}
		policy := Policy{Plaintext: PlaintextAllow, DeprecatedData: true}
		if warn {
			policy.MAC = crypto.MACWarn
		}
		for _, k := range []Keys{keys, nil} {
			masker := NewMasker(MaskerConfig{Tree: tree, Keys: k, Digester: digesterOf(t), Policy: policy})
			masked, err := masker.ReadFile(at)
			if err != nil && masked != nil {
				t.Errorf("%d bytes and %v", len(masked), err)
			}
			if shows(masked) {
				t.Errorf("the masked file shows a value:\n%s", masked)
			}
			if err == nil && !crypto.MayBeSOPS(file) && string(masked) != string(file) {
				t.Errorf("a file that is not sealed was changed:\n%s", masked)
			}
			objects, err := build.Run(t.Context(), masker, "", build.AsWritten)
			assertNoCanary(t, err, masker.Err(), masker.Problems(), masker.Warnings())
			g := masker.Pass().Gate(objects)
			assertNoCanary(t, g.Refused, g.Warnings, g.Objects)
			knownRefusals(t, g)
			for _, o := range g.Objects {
				assertNoCanary(t, o.Masked.Object)
				body, _, err := o.Body(nil)
				assertNoCanary(t, err)
				if err != nil {
					continue
				}
				c.Saw("a body")
				if isSecret(o.Masked) && shows(withoutField(t, body, "data")) || !isSecret(o.Masked) && shows(body.Reveal()) {
					t.Errorf("the body of %s shows a sealed value outside of a Secret's data", o)
				}
				if k == nil && shows(body.Reveal()) {
					t.Errorf("the body of %s shows a value, without a key", o)
				}
			}
			if len(g.Refused) > 0 {
				c.Saw("refused")
			}
			if len(masker.Problems()) > 0 {
				c.Saw("a problem")
			}
		}
	})
	c.Reached("a body", "refused", "a problem")
}
