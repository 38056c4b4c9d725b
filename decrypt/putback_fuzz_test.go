package decrypt

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/corpus"
)

func mapFS(pairs ...string) fstest.MapFS {
	tree := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		tree[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return tree
}

// The ways in which a sealed file becomes a Secret.
const (
	asFile      = iota // content of a generated Secret
	asEnvs             // lines of a generated Secret
	asManifest         // the fuzzed text is the manifest
	asValue            // the fuzzed text is a value
	asResource         // the same, and kustomize changes the object
	asMerged           // the same, merged into an object that is not sealed
	asPasted           // the sealed file is a value of a Secret
	waysIntoOne        // how many there are
)

// FuzzPutBack: whatever is sealed, the Secret that is sent is that of a build of
// the plaintext, or nothing is sent and it is said why, without a value.
func FuzzPutBack(f *testing.F) {
	c := corpus.Of(f)
	keys := fixedKeys(f)
	f.Fuzz(func(t *testing.T, way uint8, name string, plain []byte, selector string, kind uint8, bind bool) {
		way %= waysIntoOne
		sealed, stock := fstest.MapFS{}, fstest.MapFS{}
		both := func(name string, v any) {
			b := must(json.Marshal(v))(t)
			sealed[name], stock[name] = &fstest.MapFile{Data: b}, &fstest.MapFile{Data: b}
		}
		rule := ruleOf(kind, selector, keys.ids[0])
		switch way {
		case asFile, asEnvs:
			if !fileName.MatchString(name) || strings.HasPrefix(strings.ToLower(name), "kustomization") {
				return
			}
			from := m{"name": "app", "namespace": "prod", "files": []string{"k=" + name}}
			if way == asEnvs {
				from = m{"name": "app", "namespace": "prod", "envs": []string{name}}
			}
			both("kustomization.yaml", m{"secretGenerator": []m{from}})
		case asPasted:
			if !fileName.MatchString(name) {
				return
			}
		case asManifest:
			if name = "s.yaml"; kind%2 == 1 {
				name = "s.json"
			}
		default:
			name = "s.yaml"
			object := m{"apiVersion": "v1", "kind": "Secret", "metadata": m{"name": "app", "namespace": "prod"},
				"stringData": m{"k": string(plain)}, "data": m{"b": base64.StdEncoding.EncodeToString(plain)}}
			var err error
			if plain, err = yaml.Marshal(object); err != nil {
				return // not UTF-8
			}
			rule.EncryptedRegex, rule.UnencryptedRegex, rule.EncryptedSuffix, rule.UnencryptedSuffix, rule.EncryptedCommentRegex, rule.UnencryptedCommentRegex = crypto.KubernetesSelector, "", "", "", "", ""
			if way == asResource {
				both("kustomization.yaml", m{"resources": []string{name}, "labels": []m{{"pairs": m{"a": "b"}}}, "patches": []m{{"patch": `[{"op":"copy","from":"/stringData/k","path":"/stringData/copy"}]`, "target": m{"kind": "Secret"}}}})
			}
			if way == asMerged {
				both("base.yaml", m{"apiVersion": "v1", "kind": "Secret", "metadata": m{"name": "app", "namespace": "prod"}, "stringData": m{"k": "x", "other": "y"}})
				both("kustomization.yaml", m{"resources": []string{"base.yaml"}, "patches": []m{{"path": name}}})
			}
		}
		format := crypto.FormatOf(name)
		seal := func(binding crypto.Binding) ([]byte, error) {
			return crypto.SealSOPS(crypto.SealRequest{Plain: crypto.NewSecret(append([]byte(nil), plain...)), Format: format, Rule: rule, Binding: binding, Now: testTime})
		}
		bare, err := seal("")
		if err != nil {
			c.Saw("not sealed")
			return
		}
		opened, err := crypto.OpenSOPS(crypto.OpenRequest{File: bare, Format: format, Keys: keys.Keyring()})
		if err != nil {
			t.Fatalf("does not open: %v", err)
		}
		whole := must(opened.Plain())(t)
		if bind {
			if bare, err = seal("prod/*"); err != nil {
				return
			}
		}
		if way == asPasted {
			both("s.yaml", m{"apiVersion": "v1", "kind": "Secret", "metadata": m{"name": "app", "namespace": "prod"}, "data": m{name: base64.StdEncoding.EncodeToString(bare)}})
		} else {
			sealed[name], stock[name] = &fstest.MapFile{Data: bare}, &fstest.MapFile{Data: whole.Reveal()}
		}
		got, ok := sentBy(t, c, sealed, keys, Policy{Plaintext: PlaintextAllow, Namespace: "prod"}, shows(bare))
		if !ok {
			return
		}
		if key := map[uint8]string{asFile: "k", asPasted: name}[way]; key != "" {
			if got["prod/app"][key] != string(whole.Reveal()) {
				t.Errorf("sent is %q, stock sops gives %q", got["prod/app"][key], whole.Reveal())
			}
			c.Saw(map[uint8]string{asFile: "a file is as stock sops gives it", asPasted: "so is a pasted one"}[way])
			return
		}
		want, err := stockSecrets(t, stock)
		if err != nil {
			c.Saw("sent, and a plaintext build fails")
			return
		}
		if !same(got, want) {
			t.Errorf("sent is\n%q\na plaintext build gives\n%q\nof\n%s", got, want, whole.Reveal())
		}
		c.Saw([]string{asEnvs: "envs are as in a plaintext build", asManifest: "a manifest", asValue: "a value", asResource: "a resource", asMerged: "a merged one"}[way])
	})
	c.Reached("not sealed", "refused", "a file is as stock sops gives it", "so is a pasted one", "envs are as in a plaintext build", "a manifest", "a value", "a resource", "a merged one")
}

// sentBy is the decoded data of every Secret that would be sent, or !ok if one
// would not be. Nothing that can be printed shows the canary, unless it lies in
// git in the clear.
func sentBy(t *testing.T, c *corpus.Corpus, tree fstest.MapFS, keys Keys, policy Policy, inClear bool) (map[string]map[string]string, bool) {
	t.Helper()
	hide := func(v ...any) {
		t.Helper()
		if !inClear {
			assertNoCanary(t, v...)
		}
	}
	masker := NewMasker(MaskerConfig{Tree: tree, Keys: keys, Digester: digesterOf(t), Policy: policy})
	objects, err := build.Run(t.Context(), masker, "", build.AsWritten)
	hide(err, masker.Err(), masker.Problems())
	if err != nil || masker.Err() != nil {
		c.Saw("not built")
		return nil, false
	}
	g := masker.Pass().Gate(objects)
	hide(g.Refused, g.Warnings)
	for _, u := range objects {
		hide(u.Object)
	}
	knownRefusals(t, g)
	if len(g.Refused) > 0 {
		c.Saw("refused")
		return nil, false
	}
	out := map[string]map[string]string{}
	for _, o := range g.Objects {
		body, digest, err := o.Body(map[string]string{"owner": "test"})
		hide(err, digest, o, o.Input)
		if err != nil {
			c.Saw("no body")
			return nil, false
		}
		if !inClear && (isSecret(o.Masked) && shows(withoutField(t, body, "data")) || !isSecret(o.Masked) && shows(body.Reveal())) {
			t.Errorf("the body of %s shows a sealed value outside of a Secret's data", o)
		}
		if isSecret(o.Masked) {
			u := o.Masked.DeepCopy()
			if err := u.UnmarshalJSON(body.Reveal()); err != nil {
				t.Fatal(err)
			}
			out[plainName(u)] = decodedData(t, u)
		}
	}
	return out, true
}

// stockSecrets is what a build of the plaintext gives, numbers and booleans in
// stringData as their text.
func stockSecrets(t *testing.T, tree fstest.MapFS) (map[string]map[string]string, error) {
	t.Helper()
	objects, err := build.Run(t.Context(), tree, "", build.AsWritten)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]string{}
	for _, u := range objects {
		if !isSecret(u) {
			continue
		}
		data, field := secretValues(u)
		if field != nil {
			t.Fatalf("sent, and a plaintext build gives no Secret: %v", field)
		}
		u.Object["data"] = data
		delete(u.Object, "stringData")
		for _, v := range data {
			if _, err := base64.StdEncoding.DecodeString(whiteSpace.Replace(v.(string))); err != nil {
				t.Fatalf("sent, and a plaintext build gives no base64")
			}
		}
		out[plainName(u)] = decodedData(t, u)
	}
	return out, nil
}

// same compares Secrets, but for bytes of a text (!!binary) that are no UTF-8:
// a build of the plaintext loses them.
func same(got, want map[string]map[string]string) bool {
	text := func(a, b string) bool { return a == b || strings.ToValidUTF8(b, "") == b && string([]rune(a)) == b }
	return maps.EqualFunc(got, want, func(a, b map[string]string) bool { return maps.EqualFunc(a, b, text) })
}

// FuzzReplacements: a replacement over sealed values gives what it gives over
// their plaintext, or it is refused.
func FuzzReplacements(f *testing.F) {
	c := corpus.Of(f)
	keys := fixedKeys(f)
	f.Fuzz(func(t *testing.T, from, to uint8, value, target, fromDelimiter, toDelimiter string, fromIndex, toIndex int, create bool) {
		sources := []m{
			{"kind": "Secret", "name": "s", "fieldPath": "stringData.k"},
			{"kind": "Secret", "name": "g", "fieldPath": "data.K"},
			{"kind": "Secret", "name": "p", "fieldPath": "stringData.u"},
			{"name": "s", "fieldPath": "stringData.k"},
		}
		targets := []m{
			{"select": m{"kind": "Secret", "name": "p"}, "fieldPaths": []string{"stringData.u"}},
			{"select": m{"kind": "Secret", "name": "s"}, "fieldPaths": []string{"stringData.k"}},
			{"select": m{"kind": "ConfigMap"}, "fieldPaths": []string{"data.u"}},
			{"select": m{"kind": "Secret"}, "fieldPaths": []string{"stringData.k", "stringData.u"}},
			{"select": m{"kind": "Secret", "name": "g"}, "fieldPaths": []string{"data.K"}},
			{"select": m{"name": "p"}, "fieldPaths": []string{"stringData.new", "metadata.annotations.new"}},
			{"select": m{"kind": "Sec.*|X"}, "fieldPaths": []string{"stringData.*"}},
		}
		if !utf8.ValidString(value + target) {
			return // stock tools refuse it
		}
		value = canary + value
		sealed, stock := fstest.MapFS{}, fstest.MapFS{}
		put := func(name string, v any) {
			b := must(json.Marshal(v))(t)
			sealed[name], stock[name] = &fstest.MapFile{Data: b}, &fstest.MapFile{Data: b}
		}
		source, into := sources[int(from)%len(sources)], targets[int(to)%len(targets)]
		options := m{"delimiter": toDelimiter, "index": toIndex, "create": create}
		into["options"] = options
		if fromDelimiter != "" {
			source["options"] = m{"delimiter": fromDelimiter, "index": fromIndex}
		}
		put("p.yaml", m{"apiVersion": "v1", "kind": "Secret", "metadata": m{"name": "p", "namespace": "prod"}, "stringData": m{"u": target, "k": target}})
		put("c.yaml", m{"apiVersion": "v1", "kind": "ConfigMap", "metadata": m{"name": "c", "namespace": "prod"}, "data": m{"u": target}})
		put("kustomization.yaml", m{"namespace": "prod", "resources": []string{"s.yaml", "p.yaml", "c.yaml"},
			"secretGenerator": []m{{"name": "g", "envs": []string{"g.env"}}},
			"replacements":    []m{{"source": source, "targets": []m{into}}}})
		for name, plain := range map[string]string{
			"s.yaml": string(must(yaml.Marshal(m{"apiVersion": "v1", "kind": "Secret", "metadata": m{"name": "s", "namespace": "prod"}, "stringData": m{"k": value, "u": canary}}))(t)),
			"g.env":  "K=" + strings.NewReplacer("\n", "", "\r", "").Replace(value) + "\n",
		} {
			rule := crypto.Rule{Recipients: []crypto.Recipient{keys.ids[0].Recipient()}}
			if name == "s.yaml" {
				rule.EncryptedRegex = crypto.KubernetesSelector
			}
			b, err := crypto.SealSOPS(crypto.SealRequest{Plain: crypto.NewSecretString(plain), Format: crypto.FormatOf(name), Rule: rule, Now: testTime})
			if err != nil {
				return
			}
			opened := must(crypto.OpenSOPS(crypto.OpenRequest{File: b, Format: crypto.FormatOf(name), Keys: keys.Keyring()}))(t)
			sealed[name], stock[name] = &fstest.MapFile{Data: b}, &fstest.MapFile{Data: must(opened.Plain())(t).Reveal()}
		}
		inClear := false
		for _, file := range sealed {
			inClear = inClear || shows(file.Data)
		}
		got, ok := sentBy(t, c, sealed, keys, Policy{Plaintext: PlaintextAllow}, inClear)
		if !ok {
			return
		}
		want, err := stockSecrets(t, stock)
		if err != nil {
			t.Fatalf("sent, and a plaintext build fails: %v", err)
		}
		if !same(got, want) {
			t.Errorf("sent is\n%q\na plaintext build gives\n%q", got, want)
		}
		c.Saw("as in a plaintext build")
	})
	c.Reached("not built", "refused", "as in a plaintext build")
}
