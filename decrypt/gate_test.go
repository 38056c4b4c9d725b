package decrypt

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/crypto"
)

// dbSecret is sealed as s.yaml in most trees here.
const dbSecret = `-- sealed s.yaml --
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: prod, labels: {keep: untouched}}
stringData:
  password: hunter2canary
data:
  raw: aHVudGVyMmNhbmFyeQ==
`

const configMap = `-- c.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: prod}
data: {k: v}
`

const deployment = `-- d.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: prod}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec:
      containers:
      - name: main
        image: x
        env: [{name: PASSWORD, value: x}]
`

func replacement(source, target, path string) string {
	return "replacements:\n- source: " + source + "\n  targets:\n  - select: " + target + "\n    fieldPaths: ['" + path + "']\n"
}

type refused struct {
	Object, Field string
	Reason        Reason
}

func TestGateRefuses(t *testing.T) {
	t.Parallel()
	forced := func(key, value string) string {
		return "-- s.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: prod}\n" + key + ": {k: '" + value + "'}\n"
	}
	const left = "ENC[AES256_GCM,data:AAAA,iv:AAAA,tag:AAAA,type:str]"
	for name, c := range map[string]struct {
		tree   string
		policy Policy
		want   refused
		passes int      // objects that go through all the same
		says   []string // in the message
	}{
		"a sealed dotenv in a ConfigMap by envs": {"-- sealed a.env --\nA=hunter2canary\n-- kustomization.yaml --\nconfigMapGenerator: [{name: c, envs: [a.env], options: {disableNameSuffixHash: true}}]\n",
			Policy{}, refused{"ConfigMap/c", "data.A", ReasonPlaceholderOutsideSecret}, 0, []string{"a.env"}},
		"a sealed file in a ConfigMap by files": {"-- sealed a.yaml --\nA: hunter2canary\n-- kustomization.yaml --\nconfigMapGenerator: [{name: c, files: [a.yaml], options: {disableNameSuffixHash: true}}]\n",
			Policy{}, refused{"ConfigMap/c", `data["a.yaml"]`, ReasonPlaceholderOutsideSecret}, 0, []string{"a.yaml"}},
		"base64 of generated data copied into a ConfigMap": {"-- sealed a.env --\nA=hunter2canary\n" + configMap + "-- kustomization.yaml --\nresources: [c.yaml]\nsecretGenerator: [{name: s, envs: [a.env]}]\n" + replacement("{kind: Secret, name: s, fieldPath: data.A}", "{kind: ConfigMap}", "data.k"),
			Policy{}, refused{"ConfigMap/prod/c", "data.k", ReasonPlaceholderOutsideSecret}, 1, []string{"a.env"}},
		"base64 of a whole file, wrapped over lines, copied into a ConfigMap": {"-- sealed a.env --\nAAAAAAAAAAAAAAAAAAAAA=hunter2canary\nBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB=hunter2canary\n" + configMap + "-- kustomization.yaml --\nresources: [c.yaml]\nsecretGenerator: [{name: s, files: [a.env]}]\n" + replacement("{kind: Secret, name: s, fieldPath: 'data.a\\.env'}", "{kind: ConfigMap}", "data.k"),
			Policy{}, refused{"ConfigMap/prod/c", "data.k", ReasonPlaceholderOutsideSecret}, 1, []string{"a.env"}},
		"an environment variable of a Deployment by replacements": {dbSecret + deployment + "-- kustomization.yaml --\nresources: [s.yaml, d.yaml]\n" + replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{kind: Deployment}", "spec.template.spec.containers.[name=main].env.[name=PASSWORD].value"),
			Policy{}, refused{"Deployment/prod/d", "spec.template.spec.containers[0].env[0].value", ReasonPlaceholderOutsideSecret}, 1, []string{"s.yaml"}},
		"an annotation of the Secret itself by a JSON patch": {dbSecret + "-- kustomization.yaml --\nresources: [s.yaml]\npatches:\n- target: {kind: Secret}\n  patch: '[{\"op\": \"add\", \"path\": \"/metadata/annotations\", \"value\": {}}, {\"op\": \"copy\", \"from\": \"/data/raw\", \"path\": \"/metadata/annotations/x\"}]'\n",
			Policy{}, refused{"Secret/prod/db", "metadata.annotations.x", ReasonPlaceholderOutsideSecret}, 0, []string{"s.yaml"}},
		"the type of the Secret": {dbSecret + "-- kustomization.yaml --\nresources: [s.yaml]\npatches:\n- target: {kind: Secret}\n  patch: '[{\"op\": \"copy\", \"from\": \"/stringData/password\", \"path\": \"/type\"}]'\n",
			Policy{}, refused{"Secret/prod/db", "type", ReasonPlaceholderOutsideSecret}, 0, []string{"s.yaml"}},
		"the name of another object": {dbSecret + configMap + "-- kustomization.yaml --\nresources: [s.yaml, c.yaml]\n" + replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{kind: ConfigMap}", "metadata.namespace"),
			Policy{}, refused{"", "metadata.namespace", ReasonStructureSealed}, 1, []string{"s.yaml", crypto.KubernetesSelector}},
		"a Secret of another group, which is no Secret": {"-- sealed s.yaml --\napiVersion: example.com/v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hunter2canary}\n",
			Policy{}, refused{"Secret/s", "stringData.k", ReasonPlaceholderOutsideSecret}, 0, []string{"s.yaml"}},
		"a kind secret in lower case": {"-- sealed s.yaml --\napiVersion: v1\nkind: secret\nmetadata: {name: s}\nstringData: {k: hunter2canary}\n",
			Policy{}, refused{"secret/s", "stringData.k", ReasonPlaceholderOutsideSecret}, 0, []string{"s.yaml"}},
		"a sealed value turned into a ConfigMap by a patch of the kind": {dbSecret + "-- kustomization.yaml --\nresources: [s.yaml]\npatches:\n- target: {kind: Secret}\n  options: {allowKindChange: true}\n  patch: '[{\"op\": \"replace\", \"path\": \"/kind\", \"value\": \"ConfigMap\"}]'\n",
			Policy{}, refused{"ConfigMap/prod/db", "data.raw", ReasonPlaceholderOutsideSecret}, 0, nil},
		"a sealed binary file used as envs, whose line becomes a key": {"-- sealed a.txt --\nhunter2canary\n-- kustomization.yaml --\nsecretGenerator: [{name: s, envs: [a.txt], options: {disableNameSuffixHash: true}}]\n",
			Policy{}, refused{"Secret/s", "", ReasonPlaceholderOutsideSecret}, 0, []string{"a.txt"}},
		"a value still sealed in data":                        {forced("data", left), Policy{Plaintext: PlaintextAllow}, refused{"Secret/prod/s", "data.k", ReasonStillSealed}, 0, nil},
		"a value still sealed in stringData":                  {forced("stringData", left), Policy{Plaintext: PlaintextAllow}, refused{"Secret/prod/s", "data.k", ReasonStillSealed}, 0, nil},
		"a value still sealed in base64":                      {forced("data", base64.StdEncoding.EncodeToString([]byte(left))), Policy{Plaintext: PlaintextAllow}, refused{"Secret/prod/s", "data.k", ReasonStillSealed}, 0, nil},
		"a value still sealed within a text":                  {forced("stringData", "a: "+left), Policy{Plaintext: PlaintextAllow}, refused{"Secret/prod/s", "data.k", ReasonStillSealed}, 0, nil},
		"a value still sealed in a ConfigMap":                 {strings.Replace(configMap, "k: v", "k: '"+left+"'", 1), Policy{}, refused{"ConfigMap/prod/c", "data.k", ReasonStillSealed}, 0, nil},
		"a value still sealed within a text in a ConfigMap":   {strings.Replace(configMap, "k: v", "k: 'a: "+left+"'", 1), Policy{}, refused{"ConfigMap/prod/c", "data.k", ReasonStillSealed}, 0, nil},
		"a value still sealed in the binaryData of ConfigMap": {configMap + "binaryData: {k: '" + base64.StdEncoding.EncodeToString([]byte("a: "+left)) + "'}\n", Policy{}, refused{"ConfigMap/prod/c", "binaryData.k", ReasonStillSealed}, 0, nil},
		"a plaintext Secret by default":                       {forced("stringData", "clear"), Policy{}, refused{"Secret/prod/s", "data.k", ReasonPlaintextSecret}, 0, []string{"seal encrypt"}},
		"a plaintext Secret with the annotation, by default":  {strings.Replace(forced("data", "Y2xlYXI="), "namespace: prod", "namespace: prod, annotations: {gitseal.io/plaintext: allow}", 1), Policy{Plaintext: PlaintextDeny}, refused{"Secret/prod/s", "data.k", ReasonPlaintextSecret}, 0, nil},
		"one value in the clear beside a sealed one":          {dbSecret + "-- kustomization.yaml --\nresources: [s.yaml]\npatches:\n- target: {kind: Secret}\n  patch: '[{\"op\": \"add\", \"path\": \"/data/clear\", \"value\": \"Y2xlYXI=\"}]'\n", Policy{}, refused{"Secret/prod/db", "data.clear", ReasonPlaintextSecret}, 0, nil},
		"the label of private keys":                           {strings.Replace(configMap, "namespace: prod", "namespace: prod, labels: {gitseal.io/key: active}", 1), Policy{}, refused{"ConfigMap/prod/c", "metadata.labels", ReasonReserved}, 0, nil},
		"a part of a placeholder":                             {strings.Replace(configMap, "k: v", "k: gitseal0abc", 1), Policy{}, refused{"ConfigMap/prod/c", "data.k", ReasonPlaceholderBroken}, 0, nil},
		"a part of a placeholder in a Secret":                 {forced("stringData", "x gitseal0abc"), Policy{Plaintext: PlaintextAllow}, refused{"Secret/prod/s", "data.k", ReasonPlaceholderBroken}, 0, nil},
		"a whole sops block that was not recognised":          {"-- c.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\nsops: null\n", Policy{}, refused{"ConfigMap/c", "sops", ReasonStillSealed}, 0, nil},

		"binding: another name":                  {strings.Replace(dbSecret, "s.yaml", "s.yaml for prod/other", 1), Policy{}, refused{"Secret/prod/db", "data.password", ReasonBindingMismatch}, 0, []string{"s.yaml", "prod/other", "--for prod/db"}},
		"binding: another namespace":             {strings.Replace(dbSecret, "s.yaml", "s.yaml for dev/*", 1), Policy{}, refused{"Secret/prod/db", "data.password", ReasonBindingMismatch}, 0, []string{"s.yaml", "dev/*", "--for prod/db"}},
		"binding: the default namespace differs": {"-- sealed a.env for prod/s --\nA=hunter2canary\n-- kustomization.yaml --\nsecretGenerator: [{name: s, envs: [a.env]}]\n", Policy{Namespace: "dev"}, refused{"", "data.A", ReasonBindingMismatch}, 0, []string{"a.env", "prod/s", "--for dev/s"}},
		"binding: moved by replacements into another namespace": {strings.Replace(dbSecret, "s.yaml", "s.yaml for prod/db", 1) + "-- t.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: t, namespace: evil}\nstringData: {k: x}\n-- kustomization.yaml --\nresources: [s.yaml, t.yaml]\n" + replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{name: t}", "stringData.k"),
			Policy{}, refused{"Secret/evil/t", "data.k", ReasonBindingMismatch}, 1, []string{"s.yaml", "prod/db", "--for evil/t"}},
		"binding: copied as base64 into another namespace": {"-- sealed a.env for prod/s --\nA=hunter2canary\n-- t.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: t, namespace: evil}\nstringData: {k: x}\n-- kustomization.yaml --\nresources: [t.yaml]\nsecretGenerator: [{name: s, namespace: prod, envs: [a.env]}]\n" + replacement("{kind: Secret, name: s, fieldPath: data.A}", "{name: t}", "stringData.k"),
			Policy{}, refused{"Secret/evil/t", "data.k", ReasonBindingMismatch}, 1, []string{"a.env", "prod/s"}},
		"binding: moved by a patch": {strings.Replace(dbSecret, "s.yaml", "s.yaml for prod/db", 1) + "-- sealed p.yaml for evil/x --\napiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: prod}\nstringData: {added: hunter2canary}\n-- kustomization.yaml --\nresources: [s.yaml]\npatches: [{path: p.yaml}]\n",
			Policy{}, refused{"Secret/prod/db", "data.added", ReasonBindingMismatch}, 0, []string{"p.yaml", "evil/x"}},
		"binding: moved by namespace: of the kustomization": {strings.Replace(dbSecret, "s.yaml", "s.yaml for prod/db", 1) + "-- kustomization.yaml --\nresources: [s.yaml]\nnamespace: evil\n",
			Policy{}, refused{"Secret/evil/db", "data.password", ReasonBindingMismatch}, 0, []string{"--for evil/db"}},
		"binding: a whole file": {"-- sealed a.env for prod/s --\nA=hunter2canary\n-- kustomization.yaml --\nsecretGenerator: [{name: t, namespace: prod, files: [a.env], options: {disableNameSuffixHash: true}}]\n",
			Policy{}, refused{"Secret/prod/t", `data["a.env"]`, ReasonBindingMismatch}, 0, []string{"a.env", "--for prod/t"}},
		"binding: required and missing": {dbSecret, Policy{Binding: BindingRequired}, refused{"Secret/prod/db", "data.password", ReasonBindingMissing}, 0, []string{"s.yaml", "--for prod/db"}},
		"binding: an annotation in the render proves nothing": {dbSecret + "-- kustomization.yaml --\nresources: [s.yaml]\ncommonAnnotations: {gitseal.io/sealed-for: prod/db}\n",
			Policy{Binding: BindingRequired}, refused{"Secret/prod/db", "data.password", ReasonBindingMissing}, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed, _ := trees(t, c.tree)
			p := run(t, sealed, passOption{policy: c.policy})
			if len(p.gated.Refused) != 1 || len(p.gated.Objects) != c.passes {
				t.Fatalf("%d refused: %v, %d pass, want 1 and %d; rendered:\n%s", len(p.gated.Refused), p.gated.Refused, len(p.gated.Objects), c.passes, p.yaml)
			}
			r := p.gated.Refused[0]
			got := refused{r.Object, r.Field, r.Reason}
			if c.want.Object == "" {
				got.Object = ""
			}
			if c.want.Field == "" {
				got.Field = ""
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s%v", d, r)
			}
			for _, s := range c.says {
				if !strings.Contains(r.Message, s) {
					t.Errorf("the message does not say %q: %s", s, r.Message)
				}
			}
			if !strings.Contains(r.Error(), string(r.Reason)) || strings.Contains(r.Error(), "clear\n") {
				t.Errorf("got %s", r.Error())
			}
		})
	}
}

func TestGateLetsThrough(t *testing.T) {
	t.Parallel()
	secret := func(rest string) string {
		return "-- s.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n" + rest
	}
	for name, c := range map[string]struct {
		tree     string
		policy   Policy
		warnings int
	}{
		"a Secret without data":           {secret(""), Policy{}, 0},
		"a Secret with empty data":        {secret("data: {}\nstringData: {k: ''}\n"), Policy{}, 0},
		"a Secret with null data":         {secret("data: {k: null}\nstringData: null\n"), Policy{}, 0},
		"a service account token":         {secret("type: kubernetes.io/service-account-token\ndata: {k: Y2xlYXI=}\n"), Policy{}, 0},
		"a plaintext Secret, Warn":        {secret("data: {k: Y2xlYXI=}\nstringData: {l: x}\n"), Policy{Plaintext: PlaintextWarn}, 2},
		"a plaintext Secret, Allow":       {secret("data: {k: Y2xlYXI=}\n"), Policy{Plaintext: PlaintextAllow}, 0},
		"a plaintext Secret marked, Warn": {strings.Replace(secret("data: {k: Y2xlYXI=}\n"), "name: s", "name: s, annotations: {gitseal.io/plaintext: allow}", 1), Policy{Plaintext: PlaintextWarn}, 0},
		"binding: the object itself":      {strings.Replace(dbSecret, "s.yaml", "s.yaml for prod/db", 1), Policy{Binding: BindingRequired}, 0},
		"binding: the namespace":          {strings.Replace(dbSecret, "s.yaml", "s.yaml for prod/*", 1), Policy{Binding: BindingRequired}, 0},
		"binding: any":                    {strings.Replace(dbSecret, "s.yaml", "s.yaml for *", 1), Policy{Binding: BindingRequired}, 0},
		"binding: none, IfPresent":        {dbSecret, Policy{Binding: BindingIfPresent}, 0},
		"binding: a generated name":       {"-- sealed a.env for prod/s --\nA=hunter2canary\n-- kustomization.yaml --\nsecretGenerator: [{name: s, namespace: prod, envs: [a.env]}]\n", Policy{Binding: BindingRequired}, 0},
		"binding: the default namespace":  {"-- sealed a.env for prod/s --\nA=hunter2canary\n-- kustomization.yaml --\nsecretGenerator: [{name: s, envs: [a.env]}]\n", Policy{Binding: BindingRequired, Namespace: "prod"}, 0},
		"a SealedSecret of another group": {"-- s.yaml --\napiVersion: example.com/v1\nkind: SealedSecret\nmetadata: {name: s}\nspec: {encryptedData: {k: '!!'}}\n", Policy{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed, _ := trees(t, c.tree)
			p := run(t, sealed, passOption{policy: c.policy})
			if len(p.gated.Refused) > 0 || len(p.gated.Objects) != 1 || len(p.gated.Warnings) != c.warnings {
				t.Fatalf("refused %v, warnings %v", p.gated.Refused, p.gated.Warnings)
			}
			for _, w := range p.gated.Warnings {
				if w.Reason != ReasonPlaintextSecret || strings.Contains(w.Error(), "Y2xlYXI") {
					t.Errorf("got %v", w)
				}
			}
			if _, _, err := p.gated.Objects[0].Body(nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFilesThatDoNotOpen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tree    string
		problem []string
		passes  int
		refused int
		err     error
	}{
		"wrong key": {strings.Replace(dbSecret, "sealed", "foreign", 1) + configMap, []string{"s.yaml", "age1"}, 1, 1, nil},
		"tampered":  {strings.Replace(dbSecret, "sealed", "tampered", 1) + configMap, []string{"s.yaml"}, 1, 1, crypto.ErrMAC},
		"no MAC":    {strings.Replace(dbSecret, "sealed", "macless", 1) + configMap, []string{"s.yaml"}, 1, 1, crypto.ErrNoMAC},
		"its only sealed leaf removed by a patch": {strings.Replace(dbSecret, "sealed", "tampered", 1) + configMap + "-- kustomization.yaml --\nresources: [s.yaml, c.yaml]\npatches:\n- target: {kind: Secret}\n  patch: '[{\"op\": \"remove\", \"path\": \"/data\"}, {\"op\": \"remove\", \"path\": \"/stringData\"}]'\n",
			[]string{"s.yaml"}, 1, 1, crypto.ErrMAC},
		"used as envs":                       {configMap + "-- foreign a.env --\nA=hunter2canary\n-- kustomization.yaml --\nresources: [c.yaml]\nsecretGenerator: [{name: s, envs: [a.env]}]\n", []string{"a.env", "age1"}, 1, 1, nil},
		"used as files":                      {configMap + "-- foreign a.yaml --\na: hunter2canary\n-- foreign b.json --\n{\"a\": \"hunter2canary\"}\n-- foreign c.ini --\n[a]\nb = hunter2canary\n-- foreign d.bin --\nhunter2canary\n-- kustomization.yaml --\nresources: [c.yaml]\nsecretGenerator: [{name: s, files: [a.yaml]}, {name: t, files: [b.json]}, {name: u, files: [c.ini]}, {name: v, files: [d.bin]}]\n", []string{"a.yaml"}, 1, 4, nil},
		"a List, whose items are all marked": {configMap + "-- tampered list.yaml --\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: a, labels: {l: untouched}}\n  stringData: {k: hunter2canary}\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b}\n  notes: {k: v}\n", []string{"list.yaml"}, 1, 2, crypto.ErrMAC},
		"used as a patch":                    {dbSecret + "-- foreign p.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: prod}\nstringData: {added: hunter2canary}\n-- kustomization.yaml --\nresources: [s.yaml]\npatches: [{path: p.yaml}]\n", []string{"p.yaml"}, 0, 1, nil},
		"a second value beside an opened one": {dbSecret + "-- foreign t.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: t, namespace: prod}\nstringData: {k: hunter2canary}\n-- u.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: u, namespace: prod}\nstringData: {k: 'a/b'}\n-- kustomization.yaml --\nresources: [s.yaml, t.yaml, u.yaml]\n" +
			"replacements:\n- source: {kind: Secret, name: db, fieldPath: stringData.password}\n  targets: [{select: {name: u}, fieldPaths: [stringData.k], options: {delimiter: /, index: 0}}]\n- source: {kind: Secret, name: t, fieldPath: stringData.k}\n  targets: [{select: {name: u}, fieldPaths: [stringData.k], options: {delimiter: /, index: 1}}]\n",
			[]string{"t.yaml"}, 1, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed, _ := trees(t, c.tree)
			p := run(t, sealed, passOption{})
			problems := p.masker.Problems()
			if len(problems) == 0 || p.masker.Err() != nil {
				t.Fatalf("problems %v, err %v", problems, p.masker.Err())
			}
			for _, s := range c.problem {
				if !strings.Contains(problems[0].Error(), s) {
					t.Errorf("the problem does not name %s: %v", s, problems[0])
				}
			}
			if c.err != nil && !errors.Is(problems[0].Err, c.err) {
				t.Errorf("got %v, want %v", problems[0].Err, c.err)
			}
			if len(p.gated.Objects) != c.passes || len(p.gated.Refused) != c.refused {
				t.Fatalf("passes %v, refused %v; rendered:\n%s", p.gated.Objects, p.gated.Refused, p.yaml)
			}
			for _, r := range p.gated.Refused {
				if r.Reason != ReasonNotOpened {
					t.Errorf("got %v, want %s", r, ReasonNotOpened)
				}
			}
		})
	}
}

func TestTokensOfNobodyAreRefusedByGateAndBody(t *testing.T) {
	t.Parallel()
	forged := openedHead + strings.Repeat("a", tokenTail)
	b64 := base64.StdEncoding.EncodeToString([]byte(forged))
	sealed, _ := trees(t, dbSecret)
	p := run(t, sealed, passOption{policy: Policy{Plaintext: PlaintextAllow}})
	for name, u := range map[string]map[string]any{
		"in data":                   {"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "x"}, "data": map[string]any{"k": b64}},
		"in data, twice encoded":    {"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "x"}, "data": map[string]any{"k": base64.StdEncoding.EncodeToString([]byte(b64))}},
		"in data as it is":          {"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "x"}, "data": map[string]any{"k": forged}},
		"in stringData":             {"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "x"}, "stringData": map[string]any{"k": "a " + forged}},
		"in a key of data":          {"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "x"}, "data": map[string]any{forged: ""}},
		"in a key of a ConfigMap":   {"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "x"}, "data": map[string]any{forged: "v"}},
		"in a value of a ConfigMap": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "x"}, "data": map[string]any{"k": b64}},
		"encoded twice in ConfigMap": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "x"}, "data": map[string]any{
			"k": base64.StdEncoding.EncodeToString([]byte("some text " + b64 + " and more"))}},
	} {
		g := p.masked.Gate([]*unstructured.Unstructured{{Object: u}})
		if len(g.Refused) != 1 || g.Refused[0].Reason != ReasonPlaceholderBroken {
			t.Errorf("%s: got %v, want %s", name, g.Refused, ReasonPlaceholderBroken)
		}
	}
	o := p.gated.Objects[0]
	o.Masked = o.Masked.DeepCopy()
	o.Masked.Object["data"] = map[string]any{"k": b64}
	if body, _, err := o.Body(nil); err == nil || !body.IsZero() {
		t.Error("Body sent a token that the pass did not make")
	}
}

func TestGateDoesNotChangeItsInput(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, dbSecret)
	p := run(t, sealed, passOption{})
	before := p.objects[0].DeepCopy()
	p.masked.Gate(p.objects)
	if d := cmp.Diff(before.Object, p.objects[0].Object); d != "" {
		t.Errorf("(-before +after):\n%s", d)
	}
}

func TestPassIsNotChangedByLaterReads(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, dbSecret+"-- sealed later.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: l}\nstringData: {k: hunter2canary}\n")
	m := NewMasker(MaskerConfig{Tree: sealed, Keys: &fakeKeys{ids: []crypto.Identity{identityOf(t)}}, Digester: digesterOf(t)})
	if _, err := m.ReadFile("s.yaml"); err != nil {
		t.Fatal(err)
	}
	masked := m.Pass()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = m.ReadFile("later.yaml") // the race detector watches
	}()
	for range 100 {
		masked.Gate([]*unstructured.Unstructured{{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "x"}, "stringData": map[string]any{"k": openedHead + strings.Repeat("a", tokenTail)}}}})
	}
	<-done
}

func TestPolicyNamesUnknownValues(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy Policy
		want   string
	}{
		"the zero policy":   {Policy{}, ""},
		"all that is known": {Policy{Plaintext: PlaintextWarn, Binding: BindingRequired}, ""},
		"unknown plaintext": {Policy{Plaintext: "deny"}, "plaintextSecrets"},
		"unknown binding":   {Policy{Binding: "Never"}, "binding"},
	} {
		if err := c.policy.Validate(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
