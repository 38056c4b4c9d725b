package decrypt

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
)

// canary is in every value that the tests seal; assertNoCanary looks for it.
const canary = "hunter2canary"

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type fakeKeys struct {
	ids   []crypto.Identity
	certs []crypto.CertificateKey
}

func (k *fakeKeys) Keyring() crypto.Keyring                  { return crypto.Keyring{Identities: k.ids} }
func (k *fakeKeys) CertificateKeys() []crypto.CertificateKey { return k.certs }

var (
	sharedIdentity  = sync.OnceValues(crypto.GenerateIdentity)
	otherIdentity   = sync.OnceValues(crypto.GenerateIdentity)
	sharedCertKey   = sync.OnceValues(func() (crypto.CertificateKey, error) { return crypto.GenerateCertificateKey(testTime) })
	otherCertKey    = sync.OnceValues(func() (crypto.CertificateKey, error) { return crypto.GenerateCertificateKey(testTime) })
	testTokenKey    = crypto.NewSecretString("0123456789abcdef0123456789abcdef")
	identityOf      = func(t testing.TB) crypto.Identity { return must(sharedIdentity())(t) }
	otherIdentityOf = func(t testing.TB) crypto.Identity { return must(otherIdentity())(t) }
	certKeyOf       = func(t testing.TB) crypto.CertificateKey { return must(sharedCertKey())(t) }
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func digesterOf(t testing.TB, sync ...string) Digester {
	t.Helper()
	if sync == nil {
		sync = []string{"gitseal-system", "default"}
	}
	return must(NewDigester(testTokenKey, sync...))(t)
}

func seal(t testing.TB, name, text string, binding crypto.Binding, id crypto.Identity) []byte {
	t.Helper()
	return sealWith(t, crypto.Rule{Recipients: []crypto.Recipient{id.Recipient()}}, name, text, binding)
}

func sealWith(t testing.TB, rule crypto.Rule, name, text string, binding crypto.Binding) []byte {
	t.Helper()
	format := crypto.FormatOf(name)
	if (format == crypto.YAML || format == crypto.JSON) && strings.Contains(text, "apiVersion") {
		rule.EncryptedRegex = crypto.KubernetesSelector
	}
	return must(crypto.SealSOPS(crypto.SealRequest{Plain: crypto.NewSecretString(text), Format: format, Rule: rule, Binding: binding, Now: testTime}))(t)
}

// trees reads sections "-- name --". "-- sealed name --" and "-- sealed name
// for namespace/name --" are sealed in the first tree and as stock sops would
// decrypt them in the second; "-- foreign name --" is sealed to another key,
// "-- tampered name --" changed after sealing, and "-- maconly name --" has a MAC
// of the sealed values only.
func trees(t testing.TB, text string) (sealed, plain fstest.MapFS) {
	t.Helper()
	sealed, plain = fstest.MapFS{}, fstest.MapFS{}
	var name string
	var content strings.Builder
	flush := func() {
		if name == "" {
			return
		}
		put(t, sealed, plain, name, content.String())
		content.Reset()
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(rest, " --\n") {
			flush()
			name = strings.TrimSuffix(rest, " --\n")
			continue
		}
		content.WriteString(line)
	}
	flush()
	if len(sealed) == 0 {
		t.Fatal("the tree of the test is empty")
	}
	return sealed, plain
}

func put(t testing.TB, sealed, plain fstest.MapFS, header, content string) {
	t.Helper()
	words := strings.Fields(header)
	if len(words) == 1 {
		sealed[header] = &fstest.MapFile{Data: []byte(content)}
		plain[header] = &fstest.MapFile{Data: []byte(content)}
		return
	}
	name, binding := words[1], crypto.Binding("")
	if len(words) == 4 && words[2] == "for" {
		binding = must(crypto.ParseBinding(words[3]))(t)
	}
	id := identityOf(t)
	stock := must(crypto.OpenSOPS(crypto.OpenRequest{File: seal(t, name, content, "", id), Format: crypto.FormatOf(name), Keys: crypto.Keyring{Identities: []crypto.Identity{id}}}))(t)
	plain[name] = &fstest.MapFile{Data: must(stock.Plain())(t).Reveal()}
	var data []byte
	switch words[0] {
	case "sealed":
		data = seal(t, name, content, binding, id)
	case "foreign":
		data = seal(t, name, content, binding, otherIdentityOf(t))
	case "tampered":
		before := seal(t, name, content, binding, id)
		data = bytes.Replace(before, []byte("untouched"), []byte("changed"), 1)
		if bytes.Equal(before, data) {
			t.Fatalf("%s: nothing to change", name)
		}
	case "maconly":
		data = sealWith(t, crypto.Rule{Recipients: []crypto.Recipient{id.Recipient()}, MACOnlyEncrypted: true}, name, content, binding)
	case "macless":
		lines := strings.SplitAfter(string(seal(t, name, content, binding, id)), "\n")
		for i, line := range lines {
			if strings.HasPrefix(strings.TrimSpace(line), "mac: ") {
				lines[i] = ""
			}
		}
		data = []byte(strings.Join(lines, ""))
	default:
		t.Fatalf("unknown section %q", header)
	}
	if bytes.Contains(data, []byte(canary)) {
		t.Fatalf("%s is not sealed:\n%s", name, data)
	}
	sealed[name] = &fstest.MapFile{Data: data}
}

// pass is one pass over a tree, everything printable of it checked.
type pass struct {
	masker  *Masker
	masked  *Masked
	objects []*unstructured.Unstructured
	gated   Gated
	yaml    string
}

type passOption struct {
	keys     Keys
	digester *Digester
	policy   Policy
	dir      string
	cache    *Cache
}

func run(t testing.TB, tree fs.FS, o passOption) pass {
	t.Helper()
	p, err := tryRun(t, tree, o)
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	return p
}

func tryRun(t testing.TB, tree fs.FS, o passOption) (pass, error) {
	t.Helper()
	if o.keys == nil {
		o.keys = &fakeKeys{ids: []crypto.Identity{identityOf(t)}}
	}
	d := digesterOf(t)
	if o.digester != nil {
		d = *o.digester
	}
	p := pass{masker: NewMasker(MaskerConfig{Tree: tree, Keys: o.keys, Digester: d, Policy: o.policy, Cache: o.cache})}
	objects, err := build.Run(t.Context(), p.masker, o.dir, build.AsWritten)
	assertNoCanary(t, err, p.masker.Err(), p.masker.Problems(), p.masker)
	if err != nil {
		return p, err
	}
	p.objects = objects
	var all bytes.Buffer
	for _, u := range objects {
		all.Write(must(yaml.Marshal(u.Object))(t))
		all.WriteString("---\n")
	}
	p.yaml = all.String()
	p.masked = p.masker.Pass()
	p.gated = p.masked.Gate(objects)
	assertNoCanary(t, p.yaml, p.masked, p.gated, p.gated.Objects, p.gated.Refused, p.gated.Warnings)
	for _, r := range p.gated.Refused {
		assertNoCanary(t, r, r.Error())
	}
	for _, o := range p.gated.Objects {
		assertNoCanary(t, o, &o, o.String(), o.Masked.Object)
		if _, _, err := o.Body(nil); err != nil {
			assertNoCanary(t, err)
		}
	}
	return p, nil
}

// canaryForms are the canary raw, in hex and in base64 at each alignment.
var canaryForms = func() []string {
	forms := []string{canary, hex.EncodeToString([]byte(canary)), strings.ToUpper(hex.EncodeToString([]byte(canary)))}
	for shift := range 3 {
		b := base64.StdEncoding.EncodeToString(append(make([]byte, shift), canary...))
		forms = append(forms, b[(8*shift+5)/6:8*(shift+len(canary))/6])
	}
	return forms
}()

func assertNoCanary(t testing.TB, values ...any) {
	t.Helper()
	for _, v := range values {
		var printed []string
		for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%s", "%x"} {
			printed = append(printed, fmt.Sprintf(verb, v))
		}
		if b, err := json.Marshal(v); err == nil {
			printed = append(printed, string(b))
		}
		for _, text := range printed {
			for _, form := range canaryForms {
				if strings.Contains(whiteSpace.Replace(text), form) {
					t.Fatalf("%T shows a sealed value (as %s):\n%s", v, form, text)
				}
			}
		}
	}
}

func TestAssertNoCanaryFindsEveryForm(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]any{
		"raw":                    canary,
		"hex":                    hex.EncodeToString([]byte("x" + canary)),
		"base64":                 base64.StdEncoding.EncodeToString([]byte(canary + "!")),
		"base64 one byte in":     base64.StdEncoding.EncodeToString([]byte("x" + canary + "!")),
		"base64 two bytes in":    base64.StdEncoding.EncodeToString([]byte("xy" + canary + "!")),
		"in a struct":            struct{ a []string }{[]string{canary}},
		"bytes":                  []byte(canary),
		"an error":               fmt.Errorf("x: %w", fmt.Errorf("%s", canary)),
		"base64 with line break": "aHVudG\nVyMmNhbmFyeQ==",
	} {
		found := make(chan bool)
		go func() { // Fatal ends the goroutine
			r := &recorder{TB: t}
			defer func() { found <- r.failed }()
			assertNoCanary(r, v)
		}()
		if !<-found {
			t.Errorf("%s: not found", name)
		}
	}
}

type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper() {}
func (r *recorder) Fatalf(string, ...any) {
	r.failed = true
}

// bodies returns the decoded data of every Secret that may be applied, by
// namespace/name without a generator's suffix.
func (p pass) bodies(t testing.TB) map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]string{}
	for _, o := range p.gated.Objects {
		body, digest, err := o.Body(map[string]string{"owner": "test"})
		if err != nil {
			t.Fatalf("body of %s: %v", o, err)
		}
		assertNoCanary(t, body, digest)
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(body.Reveal()); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(body.Reveal()), "gitseal0") || u.Object["stringData"] != nil || u.GetLabels()["owner"] != "test" {
			t.Errorf("the body of %s is not what may be sent", o)
		}
		if isSecret(u) {
			out[plainName(u)] = decodedData(t, u)
		}
	}
	return out
}

func plainName(u *unstructured.Unstructured) string {
	return u.GetNamespace() + "/" + generatedSuffix.ReplaceAllString(u.GetName(), "")
}

// decodedData reads a Secret as the API server would.
func decodedData(t testing.TB, u *unstructured.Unstructured) map[string]string {
	t.Helper()
	out := map[string]string{}
	data, _ := u.Object["data"].(map[string]any)
	for k, v := range data {
		text, _ := v.(string)
		b, err := base64.StdEncoding.DecodeString(whiteSpace.Replace(text))
		if err != nil {
			t.Fatalf("%s data.%s is not base64: %q", plainName(u), k, text)
		}
		out[k] = string(b)
	}
	stringData, _ := u.Object["stringData"].(map[string]any)
	for k, v := range stringData {
		switch v := v.(type) {
		case nil:
			out[k] = ""
		default:
			out[k] = fmt.Sprint(v)
		}
	}
	return out
}

// plaintextBuild is what stock tools would apply.
func plaintextBuild(t testing.TB, plain fs.FS, dir string) map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]string{}
	for _, u := range must(build.Run(t.Context(), plain, dir, build.AsWritten))(t) {
		if isSecret(u) {
			out[plainName(u)] = decodedData(t, u)
		}
	}
	return out
}
