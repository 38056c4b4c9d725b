package decrypt

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/build"
)

const sealedSecretYAML = `-- sealed secret.yaml for prod/db --
# who may see this: nobody
apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: prod
stringData:
  password: "hunter2canary: word # \"quoted\" \\ back"   # inline hunter2canary
  port: 5432
  ratio: 0.5
  on: true
  empty: ""
  nothing: null
  multi: |
    hunter2canary one
    two
  unicode: "hunter2canary ✓ ключ"
  spaces: "  hunter2canary  "
  dollar: $(hunter2canary) ${hunter2canary}
data:
  raw: aHVudGVyMmNhbmFyeQ==
  binary: AAECAwT/aHVudGVyMmNhbmFyeQ==
`

func TestBodyEqualsAPlaintextBuild(t *testing.T) {
	t.Parallel()
	for name, tree := range map[string]string{
		"a sealed Secret read from a plain folder": sealedSecretYAML,
		"a sealed Secret as a resource": sealedSecretYAML + `-- kustomization.yaml --
resources: [secret.yaml]
`,
		"namespace: of the kustomization, with a file bound to it": strings.Replace(sealedSecretYAML, "for prod/db", "for other/db", 1) + `-- kustomization.yaml --
resources: [secret.yaml]
namespace: other
`,
		"a dotenv file as envs": `-- sealed a.env for prod/app --
# hunter2canary
PASSWORD=hunter2canary=with=equals
QUOTED="hunter2canary"
SPACES=  hunter2canary  
NEWLINE=hunter2canary\nsecond
EMPTY=
UNICODE=hunter2canary ключ
-- kustomization.yaml --
namespace: prod
secretGenerator:
- name: app
  envs: [a.env]
`,
		"a dotenv file as files, byte for byte with its comments": `-- sealed a.env for prod/app --
# hunter2canary
PASSWORD=hunter2canary
OTHER=hunter2canary\nsecond
-- kustomization.yaml --
namespace: prod
secretGenerator:
- name: app
  files: [a.env, "copy=a.env"]
`,
		"sealed YAML as files, byte for byte with its comments": `-- sealed config.yaml --
# hunter2canary
db:
  password: "hunter2canary: with # a \"lot\" of 'quotes'" # hunter2canary
  list: [hunter2canary one, 2, true, null, ""]
  text: |
    hunter2canary
    second line
-- kustomization.yaml --
namespace: prod
secretGenerator:
- name: app
  files: [config.yaml]
`,
		"sealed Kubernetes YAML as files, less its binding": `-- sealed config.yaml for prod/app --
apiVersion: v1
kind: Secret
metadata: {name: inner}
stringData:
  password: "hunter2canary: \"x\""
-- kustomization.yaml --
namespace: prod
secretGenerator:
- name: app
  files: [config.yaml]
`,
		"sealed JSON, INI and binary as files": `-- sealed config.json --
{"a": {"b": "hunter2canary \"quoted\" <&>", "n": 5, "l": [1, "hunter2canary"]}}
-- sealed config.ini --
[db]
password = hunter2canary
-- sealed key.pem --
-----BEGIN PRIVATE KEY-----
hunter2canary
-----END PRIVATE KEY-----
-- kustomization.yaml --
namespace: prod
secretGenerator:
- name: app
  files: [config.json, config.ini, key.pem]
  type: Opaque
- name: again
  files: [key.pem]
  options: {disableNameSuffixHash: true}
`,
		"a strategic merge patch from a sealed file": `-- sealed patch.yaml for prod/db --
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: prod}
stringData:
  password: hunter2canary patched
  gone: null
-- sealed base.yaml for prod/db --
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: prod}
stringData:
  password: hunter2canary base
  gone: hunter2canary gone
  kept: hunter2canary kept
-- kustomization.yaml --
resources: [base.yaml]
patches:
- path: patch.yaml
`,
		"merge into a generated Secret": `-- sealed a.env for prod/* --
A=hunter2canary a
B=hunter2canary b
-- sealed b.env for prod/* --
B=hunter2canary b of b
-- base/kustomization.yaml --
namespace: prod
secretGenerator:
- name: app
  envs: [../a.env]
-- kustomization.yaml --
resources: [base]
namespace: prod
secretGenerator:
- name: app
  namespace: prod
  behavior: merge
  envs: [b.env]
`,
		"replacements into another Secret and into a URL": sealedSecretYAML + `-- sealed other.yaml for prod/* --
apiVersion: v1
kind: Secret
metadata: {name: other, namespace: prod}
stringData:
  copy: hunter2canary to be replaced
  url: postgres://user:PASSWORD@db/prod
-- sealed token.yaml for prod/* --
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: prod}
stringData:
  token: hunter2canary-token
-- url.yaml --
apiVersion: v1
kind: Secret
metadata: {name: url, namespace: prod}
stringData:
  url: "postgres://user:PASSWORD:x"
-- kustomization.yaml --
resources: [secret.yaml, other.yaml, token.yaml, url.yaml]
replacements:
- source: {kind: Secret, name: token, fieldPath: stringData.token}
  targets:
  - select: {kind: Secret, name: other}
    fieldPaths: [stringData.copy]
  - select: {kind: Secret, name: url}
    fieldPaths: [stringData.url]
    options: {delimiter: ":", index: 2}
`,
		"generated data copied into stringData stays base64": `-- sealed a.env for prod/* --
A=hunter2canary a
-- target.yaml --
apiVersion: v1
kind: Secret
metadata: {name: target, namespace: prod}
stringData: {copy: x}
-- kustomization.yaml --
resources: [target.yaml]
secretGenerator:
- name: app
  namespace: prod
  envs: [a.env]
replacements:
- source: {kind: Secret, name: app, fieldPath: data.A}
  targets:
  - select: {kind: Secret, name: target}
    fieldPaths: [stringData.copy]
`,
		"a JSON patch that adds, copies and moves": sealedSecretYAML + `-- kustomization.yaml --
resources: [secret.yaml]
patches:
- target: {kind: Secret}
  patch: |-
    [{"op": "copy", "from": "/data/raw", "path": "/data/second"},
     {"op": "move", "from": "/stringData/password", "path": "/stringData/moved"},
     {"op": "remove", "path": "/stringData/multi"}]
`,
		"a List of Secrets": `-- sealed list.yaml --
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  metadata: {name: a}
  stringData: {k: hunter2canary a}
- apiVersion: v1
  kind: Secret
  metadata: {name: b}
  data: {k: aHVudGVyMmNhbmFyeQ==}
`,
		"several documents": `-- sealed two.yaml --
apiVersion: v1
kind: Secret
metadata: {name: a}
stringData: {k: hunter2canary a}
---
apiVersion: v1
kind: Secret
metadata: {name: b}
stringData: {k: hunter2canary b}
`,
		"stringData wins over data": `-- sealed both.yaml --
apiVersion: v1
kind: Secret
metadata: {name: a}
data: {k: aHVudGVyMmNhbmFyeQ==, l: aHVudGVyMmNhbmFyeQ==}
stringData: {k: hunter2canary wins}
`,
		"data wrapped over lines": `-- sealed wrapped.yaml --
apiVersion: v1
kind: Secret
metadata: {name: a}
data:
  k: |
    aHVudGVy
    MmNhbmFyeQ==
`,
		"a dotenv with CRLF": "-- sealed a.env --\nA=hunter2canary\r\nB=hunter2canary b\r\n-- kustomization.yaml --\nsecretGenerator:\n- {name: app, envs: [a.env]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed, plain := trees(t, tree)
			policy := Policy{Namespace: "prod", Plaintext: PlaintextAllow}
			p := run(t, sealed, passOption{policy: policy})
			if len(p.gated.Refused) > 0 {
				t.Fatalf("refused: %v", p.gated.Refused)
			}
			want := plaintextBuild(t, plain, "")
			if len(want) == 0 {
				t.Fatal("the plaintext build has no Secret")
			}
			if d := cmp.Diff(want, p.bodies(t)); d != "" {
				t.Errorf("(-plaintext build +put back):\n%s", d)
			}
			again := run(t, sealed, passOption{policy: policy})
			if p.yaml != again.yaml {
				t.Errorf("two passes differ:\n%s", cmp.Diff(p.yaml, again.yaml))
			}
		})
	}
}

const generated = `-- sealed app/a.env --
PASSWORD=hunter2canary
-- app/kustomization.yaml --
secretGenerator:
- {name: app, envs: [a.env]}
`

func nameOf(t *testing.T, p pass) string {
	t.Helper()
	if len(p.objects) != 1 {
		t.Fatalf("got %d objects, want 1", len(p.objects))
	}
	return p.objects[0].GetName()
}

func TestGeneratedNamesChangeOnlyWithTheValues(t *testing.T) {
	t.Parallel()
	first, _ := trees(t, generated)
	second, _ := trees(t, generated) // sealed again: another data key
	changed, _ := trees(t, strings.Replace(generated, "=hunter2canary", "=hunter2canary2", 1))
	if string(first["app/a.env"].Data) == string(second["app/a.env"].Data) {
		t.Fatal("sealing twice gave the same file")
	}
	moved := fstest.MapFS{"app/kustomization.yaml": {Data: []byte("secretGenerator:\n- {name: app, envs: [../elsewhere/b.env]}\n")}, "elsewhere/b.env": first["app/a.env"]}
	a := run(t, first, passOption{dir: "app"})
	for name, tree := range map[string]fstest.MapFS{"the second pass": first, "sealed again": second, "the file moved": moved} {
		if b := run(t, tree, passOption{dir: "app"}); b.yaml != a.yaml || b.gated.Objects[0].Input != a.gated.Objects[0].Input {
			t.Errorf("%s renders differently:\n%s", name, cmp.Diff(a.yaml, b.yaml))
		}
	}
	b := run(t, changed, passOption{dir: "app"})
	if nameOf(t, a) == nameOf(t, b) {
		t.Error("another value has the same name suffix")
	}
	other := digesterOf(t, "tenant", "default")
	c := run(t, first, passOption{dir: "app", digester: &other})
	if nameOf(t, a) == nameOf(t, c) || a.gated.Objects[0].Input == c.gated.Objects[0].Input {
		t.Error("two Syncs show the same token for the same value")
	}
	// A token of one Sync is unknown in another.
	if g := c.masked.Gate(a.objects); len(g.Refused) != 1 || g.Refused[0].Reason != ReasonPlaceholderBroken {
		t.Errorf("got %v, want %s", g.Refused, ReasonPlaceholderBroken)
	}
}

func TestCommentsOfAWholeFileCountForInputAndBody(t *testing.T) {
	t.Parallel()
	tree := func(comment string) fstest.MapFS {
		sealed, _ := trees(t, "-- sealed config.yaml --\na: hunter2canary # "+comment+"\n-- kustomization.yaml --\nsecretGenerator:\n- {name: app, files: [config.yaml]}\n")
		return sealed
	}
	a, b := run(t, tree("hunter2canary one"), passOption{}), run(t, tree("hunter2canary two"), passOption{})
	if a.bodies(t)["/app"]["config.yaml"] == b.bodies(t)["/app"]["config.yaml"] {
		t.Fatal("the comment is not in the body")
	}
	if a.gated.Objects[0].Input == b.gated.Objects[0].Input {
		t.Error("another body has the same Input: it would never be sent")
	}
}

func TestInputAndBodyDigest(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, sealedSecretYAML)
	o := run(t, sealed, passOption{}).gated.Objects[0]
	_, one, err1 := o.Body(map[string]string{"a": "1"})
	_, same, err2 := o.Body(map[string]string{"a": "1"})
	_, two, err3 := o.Body(map[string]string{"a": "2"})
	if err1 != nil || err2 != nil || err3 != nil || one != same || one == two {
		t.Errorf("digests %s %s %s, errors %v %v %v", one, same, two, err1, err2, err3)
	}
	if o.Masked.GetLabels() != nil {
		t.Error("Body changed the masked object")
	}
	if !o.CarriesPlaintext() || o.Name() != "db" || o.Namespace() != "prod" || o.String() != "Secret/prod/db" || o.GroupVersionKind().Kind != "Secret" {
		t.Errorf("got %s", o)
	}
}

func TestWhatCanNotBePutBackIsRefusedNotWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tree    string
		reason  Reason
		message []string
	}{
		"two files that differ in comments only": {`-- sealed a/config.yaml --
a: hunter2canary # hunter2canary one
-- sealed b/config.yaml --
a: hunter2canary # hunter2canary two
-- kustomization.yaml --
secretGenerator:
- {name: app, files: ["a=a/config.yaml", "b=b/config.yaml"]}
`, ReasonPlaceholderBroken, []string{"a/config.yaml", "b/config.yaml"}},
		"a token cut by a delimiter": {`-- sealed s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {k: hunter2canary}
-- t.yaml --
apiVersion: v1
kind: Secret
metadata: {name: t}
stringData: {k: x}
-- kustomization.yaml --
resources: [s.yaml, t.yaml]
replacements:
- source: {kind: Secret, name: s, fieldPath: stringData.k, options: {delimiter: "l0", index: 0}}
  targets:
  - select: {name: t}
    fieldPaths: [stringData.k]
`, "", nil},
		"base64 of a token within a longer text": {`-- sealed a.env --
A=hunter2canary
-- t.yaml --
apiVersion: v1
kind: Secret
metadata: {name: t}
stringData: {k: "url://x"}
-- kustomization.yaml --
resources: [t.yaml]
secretGenerator:
- {name: app, envs: [a.env]}
replacements:
- source: {kind: Secret, name: app, fieldPath: data.A}
  targets:
  - select: {name: t}
    fieldPaths: [stringData.k]
    options: {delimiter: "/", index: 2}
`, ReasonPlaceholderBroken, []string{"base64"}},
		"a raw token and base64 of another one": {`-- sealed a.env --
A=hunter2canary
-- sealed s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {k: hunter2canary}
-- t.yaml --
apiVersion: v1
kind: Secret
metadata: {name: t}
stringData: {k: "x/x"}
-- kustomization.yaml --
resources: [s.yaml, t.yaml]
secretGenerator:
- {name: app, envs: [a.env]}
replacements:
- source: {kind: Secret, name: app, fieldPath: data.A}
  targets:
  - select: {name: t}
    fieldPaths: [stringData.k]
    options: {delimiter: "/", index: 0}
- source: {kind: Secret, name: s, fieldPath: stringData.k}
  targets:
  - select: {name: t}
    fieldPaths: [stringData.k]
    options: {delimiter: "/", index: 1}
`, ReasonPlaceholderBroken, []string{"base64"}},
		"data that is not base64 in the clear": {`-- s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: s}
data: {k: "not base64!"}
`, ReasonInvalidSecret, []string{"base64"}},
		"data that is a number": {`-- s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: s}
data: {k: 5}
`, ReasonInvalidSecret, []string{"stringData"}},
		"stringData that is a list": {`-- s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {k: [a]}
`, ReasonInvalidSecret, nil},
		"data that is a list": {`-- s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: s}
data: [a]
`, ReasonInvalidSecret, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed, _ := trees(t, c.tree)
			p, err := tryRun(t, sealed, passOption{policy: Policy{Plaintext: PlaintextAllow}})
			if c.reason == "" { // refused by the build, by name
				if err == nil {
					t.Fatalf("no error; rendered:\n%s", p.yaml)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(p.gated.Refused) != 1 || p.gated.Refused[0].Reason != c.reason {
				t.Fatalf("got %v, want %s; rendered:\n%s", p.gated.Refused, c.reason, p.yaml)
			}
			for _, m := range c.message {
				if !strings.Contains(p.gated.Refused[0].Message, m) {
					t.Errorf("%q does not say %s", p.gated.Refused[0].Message, m)
				}
			}
		})
	}
}

func TestValuesDoNotBreakTheTextTheyArePutInto(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		value, target, field string
		want                 string // "" means refused
	}{
		"a plain value in JSON":       {"hunter2canary", `{"a": {"pw": "x"}}`, `stringData.k.a.pw`, `{"a":{"pw":"hunter2canary"}}`},
		"a quote in JSON":             {`hunter2canary"x`, `{"a": {"pw": "x"}}`, `stringData.k.a.pw`, ""},
		"an injected field in JSON":   {`hunter2canary","admin":"true`, `{"a": {"pw": "x"}}`, `stringData.k.a.pw`, ""},
		"a line break in YAML":        {"hunter2canary\nadmin: true", "pw: x\n", `stringData.k.pw`, ""},
		"a number in YAML":            {"5432", "pw: x\n", `stringData.k.pw`, ""},
		"a comment in YAML":           {"hunter2canary #x", "pw: x\n", `stringData.k.pw`, ""},
		"the same in no YAML, a text": {"hunter2canary #x\"", "x", `stringData.k`, "hunter2canary #x\""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quote := func(s string) string { return string(must(json.Marshal(s))(t)) }
			sealed, _ := trees(t, "-- sealed s.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: "+quote(c.value)+"}\n"+
				"-- t.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: t}\nstringData: {k: "+quote(c.target)+"}\n"+
				"-- kustomization.yaml --\nresources: [s.yaml, t.yaml]\n"+replacement("{kind: Secret, name: s, fieldPath: stringData.k}", "{name: t}", c.field))
			p := run(t, sealed, passOption{})
			if len(p.gated.Objects) != 2 {
				t.Fatalf("refused %v; rendered:\n%s", p.gated.Refused, p.yaml)
			}
			body, _, err := p.gated.Objects[1].Body(nil)
			if c.want == "" {
				assertNoCanary(t, err)
				if err == nil || !body.IsZero() || !strings.Contains(err.Error(), "data.k is YAML or JSON") {
					t.Errorf("got %v; rendered:\n%s", err, p.yaml)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.bodies(t)["/t"]["k"]; strings.Join(strings.Fields(got), "") != strings.Join(strings.Fields(c.want), "") {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestSealedDataThatIsNotBase64IsSaidByBody(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, "-- sealed s.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {k: hunter2canary!}\n")
	p := run(t, sealed, passOption{})
	if len(p.gated.Objects) != 1 {
		t.Fatalf("refused: %v", p.gated.Refused)
	}
	body, digest, err := p.gated.Objects[0].Body(nil)
	assertNoCanary(t, err)
	if err == nil || !body.IsZero() || digest != "" || !strings.Contains(err.Error(), "s.yaml") || !strings.Contains(err.Error(), "data.k") {
		t.Errorf("got %v", err)
	}
}

func TestBodyOfAnythingElseIsTheObject(t *testing.T) {
	t.Parallel()
	tree := fstest.MapFS{"c.yaml": {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {a: b}}\ndata: {k: v}\n")}}
	p := run(t, tree, passOption{})
	body, _, err := p.gated.Objects[0].Body(map[string]string{"x": "y"})
	if err != nil || p.gated.Objects[0].CarriesPlaintext() {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(body.Reveal(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"k": "v"},
		"metadata": map[string]any{"name": "c", "labels": map[string]any{"a": "b", "x": "y"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestWithoutKeysTheRenderIsCompleteAndNothingApplies(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, sealedSecretYAML+generated)
	m := NewMasker(MaskerConfig{Tree: sealed})
	objects, err := build.Run(t.Context(), m, "", build.AsWritten)
	if err != nil || len(objects) != 2 || m.Err() != nil || len(m.Problems()) != 0 {
		t.Fatal(err, len(objects), m.Problems())
	}
	for _, u := range objects {
		assertNoCanary(t, u.Object)
	}
	g := m.Pass().Gate(objects)
	if len(g.Refused) != 2 || len(g.Objects) != 0 {
		t.Fatalf("got %v", g.Refused)
	}
	for _, r := range g.Refused {
		if r.Reason != ReasonNotOpened {
			t.Errorf("got %v", r)
		}
	}
}
