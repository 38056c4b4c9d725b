package decrypt

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"testing/fstest"

	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/crypto"
)

// victim is another team's sealed Secret, which lies in the same repository.
const victim = `-- sealed team-a/s.yaml for team-a/db --
apiVersion: v1
kind: Secret
metadata: {name: db, namespace: team-a}
stringData: {password: hunter2canary}
-- sealed team-a/a.env for team-a/app --
PASSWORD=hunter2canary
-- mine.yaml --
apiVersion: v1
kind: Secret
metadata: {name: mine, namespace: team-b}
stringData: {k: x}
`

const hide = `
- target: {kind: Secret, name: db}
  patch: '[{"op": "add", "path": "/metadata/annotations", "value": {"config.kubernetes.io/local-config": "true"}}]'
`

// Each of these renders another team's value into one's own Secret. What stops
// it is that the binding travels with the token, wherever the object is.
func TestAnotherTeamsValueDoesNotMove(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tree   string
		reason Reason
		object string
	}{
		"by a replacement": {victim + "-- kustomization.yaml --\nresources: [team-a/s.yaml, mine.yaml]\n" +
			replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{kind: Secret, name: mine}", "stringData.k"), ReasonBindingMismatch, "Secret/team-b/mine"},
		"by a replacement, its object hidden": {victim + "-- kustomization.yaml --\nresources: [team-a/s.yaml, mine.yaml]\npatches:" + hide +
			replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{kind: Secret, name: mine}", "stringData.k"), ReasonBindingMismatch, "Secret/team-b/mine"},
		"by a patch that renames": {victim + "-- kustomization.yaml --\nresources: [team-a/s.yaml]\npatches:\n- target: {kind: Secret}\n  options: {allowNameChange: true}\n  patch: '[{\"op\": \"replace\", \"path\": \"/metadata/name\", \"value\": \"mine\"}, {\"op\": \"replace\", \"path\": \"/metadata/namespace\", \"value\": \"team-b\"}]'\n",
			ReasonBindingMismatch, "Secret/team-b/mine"},
		"by a patch that copies": {victim + "-- kustomization.yaml --\nresources: [team-a/s.yaml]\nnamespace: team-b\npatches:\n- target: {kind: Secret}\n  patch: '[{\"op\": \"copy\", \"from\": \"/stringData/password\", \"path\": \"/stringData/k\"}]'\n",
			ReasonBindingMismatch, "Secret/team-b/db"},
		"by a strategic merge of the sealed file": {victim + "-- kustomization.yaml --\nresources: [mine.yaml]\npatches:\n- target: {kind: Secret, name: mine}\n  path: team-a/s.yaml\n",
			ReasonBindingMismatch, "Secret/team-b/mine"},
		"by a generator of envs":         {victim + "-- kustomization.yaml --\nnamespace: team-b\nsecretGenerator: [{name: mine, envs: [team-a/a.env]}]\n", ReasonBindingMismatch, "Secret/team-b/mine"},
		"by a generator of files":        {victim + "-- kustomization.yaml --\nnamespace: team-b\nsecretGenerator: [{name: mine, files: [k=team-a/s.yaml]}]\n", ReasonBindingMismatch, "Secret/team-b/mine"},
		"by a generator, then a copy":    {victim + "-- kustomization.yaml --\nnamespace: team-b\nresources: [mine.yaml]\nsecretGenerator: [{name: g, envs: [team-a/a.env], options: {annotations: {config.kubernetes.io/local-config: 'true'}}}]\n" + replacement("{kind: Secret, name: g, fieldPath: data.PASSWORD}", "{kind: Secret, name: mine}", "stringData.k"), ReasonBindingMismatch, "Secret/team-b/mine"},
		"by a name prefix":               {victim + "-- kustomization.yaml --\nresources: [team-a/s.yaml]\nnamePrefix: my-\n", ReasonBindingMismatch, "Secret/team-a/my-db"},
		"by a name that looks generated": {victim + "-- kustomization.yaml --\nresources: [team-a/s.yaml]\nnamespace: team-b\nnameSuffix: -bcdfghkmt2\n", ReasonBindingMismatch, "Secret/team-b/db-bcdfghkmt2"},
		"by a binding in the clear": {strings.Replace(victim, "metadata: {name: mine, namespace: team-b}", "metadata: {name: mine, namespace: team-b, annotations: {gitseal.io/sealed-for: team-b/mine}}", 1) + "-- kustomization.yaml --\nresources: [team-a/s.yaml, mine.yaml]\npatches:" + hide +
			replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{kind: Secret, name: mine}", "stringData.k"), ReasonBindingMismatch, "Secret/team-b/mine"},
		"into a ConfigMap, its object hidden": {victim + "-- c.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: team-b}\ndata: {k: x}\n-- kustomization.yaml --\nresources: [team-a/s.yaml, c.yaml]\npatches:" + hide +
			replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{kind: ConfigMap, name: c}", "data.k"), ReasonPlaceholderOutsideSecret, "ConfigMap/team-b/c"},
		"into a name, its object hidden": {victim + "-- kustomization.yaml --\nresources: [team-a/s.yaml, mine.yaml]\npatches:" + hide +
			replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{kind: Secret, name: mine}", "metadata.annotations.x") + "    options: {create: true}\n", ReasonPlaceholderOutsideSecret, "Secret/team-b/mine"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed, _ := trees(t, c.tree)
			p := run(t, sealed, passOption{policy: Policy{Plaintext: PlaintextAllow}})
			for _, r := range p.gated.Refused {
				if generatedSuffix.ReplaceAllString(r.Object, "") == strings.TrimSuffix(c.object, "-bcdfghkmt2") && r.Reason == c.reason {
					return
				}
			}
			t.Errorf("got %v, want %s of %s; rendered:\n%s", p.gated.Refused, c.reason, c.object, p.yaml)
		})
	}
}

// Whoever may commit can add an empty value to a sealed file, which its MAC does
// not see. It must not turn the sealed one into text that goes anywhere.
func TestAnEmptyValueBesideItDoesNotUncoverAValue(t *testing.T) {
	t.Parallel()
	const publish = "-- c.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: team-b}\ndata: {k: x}\n-- kustomization.yaml --\nresources: [team-a/s.yaml, c.yaml]\n"
	sealed, _ := trees(t, victim+publish+replacement("{kind: Secret, name: db, fieldPath: stringData.password}", "{kind: ConfigMap, name: c}", "data.k"))
	file := sealed["team-a/s.yaml"]
	file.Data = bytes.Replace(file.Data, []byte("\nsops:\n"), []byte("\n\"\":\n    stringData:\n        password: \"\"\nsops:\n"), 1)
	p, err := tryRun(t, sealed, passOption{}) // which finds the canary, if it shows
	for _, o := range p.gated.Objects {
		if o.Masked.GetKind() == "ConfigMap" {
			t.Errorf("%s is let through: %v", o, err)
		}
	}
}

// A sealed file that is pasted into a value may have several units, of which one is
// the attacker's own and another is somebody else's.
func TestAnotherTeamsUnitDoesNotMoveInAPastedFile(t *testing.T) {
	t.Parallel()
	unit := func(name, value string, binding crypto.Binding) string {
		return string(seal(t, "s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: "+name+"}\nstringData: {k: "+value+"}\n", binding, identityOf(t)))
	}
	mine, other := unit("mine", "x", "team-b/mine"), unit("db", canary, "team-a/db")
	for name, c := range map[string]struct {
		pasted string
		policy Policy
		reason Reason
	}{
		"alone":                {other, Policy{}, ReasonBindingMismatch},
		"behind one's own":     {mine + "---\n" + other, Policy{}, ReasonBindingMismatch},
		"before one's own":     {other + "---\n" + mine, Policy{}, ReasonBindingMismatch},
		"behind one without":   {unit("mine", "x", "") + "---\n" + other, Policy{}, ReasonBindingMismatch},
		"one without, needed":  {mine + "---\n" + unit("db", canary, ""), Policy{Binding: BindingRequired}, ReasonBindingMissing},
		"one's own":            {mine, Policy{Binding: BindingRequired}, ""},
		"two of one's own":     {mine + "---\n" + unit("mine", "y", "team-b/*"), Policy{Binding: BindingRequired}, ""},
		"one without, allowed": {mine + "---\n" + unit("mine", "y", ""), Policy{}, ""},
	} {
		object := must(yaml.Marshal(m{"apiVersion": "v1", "kind": "Secret", "metadata": m{"name": "mine", "namespace": "team-b"}, "stringData": m{"k.yaml": c.pasted}}))(t)
		p := run(t, fstest.MapFS{"s.yaml": {Data: object}}, passOption{policy: c.policy})
		if c.reason == "" && len(p.gated.Objects) != 1 || c.reason != "" && (len(p.gated.Refused) != 1 || p.gated.Refused[0].Reason != c.reason) {
			t.Errorf("%s: got %v, want %s", name, p.gated.Refused, c.reason)
		}
	}
}

// Placeholders are printed, so anyone may know one.
func TestKnownPlaceholdersAreWorthNothing(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, victim+"-- kustomization.yaml --\nresources: [team-a/s.yaml]\n")
	shown := run(t, sealed, passOption{})
	token := tokenPattern.FindString(shown.yaml)
	keyless := NewMasker(MaskerConfig{Tree: sealed})
	b, err := keyless.ReadFile("team-a/s.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mine := func(text string) fstest.MapFS {
		tree := fstest.MapFS{}
		for k, v := range sealed {
			tree[k] = v
		}
		tree["mine.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: mine, namespace: team-b}\nstringData: {k: \"" + text + "\"}\n")}
		tree["kustomization.yaml"] = &fstest.MapFile{Data: []byte("resources: [team-a/s.yaml, mine.yaml]\n")}
		return tree
	}
	for name, text := range map[string]string{
		"copied": token, "copied without a key": tokenPattern.FindString(string(b)), "within a text": "postgres://u:" + token + "@h",
		"as base64": encode(token), "as base64 within a text": encode("x" + token + "y"), "as base64 twice": encode(encode("xy" + token)), "escaped": strings.Replace(token, "g", `\x67`, 1),
		"as base64 over escaped lines": encode(token)[:9] + `\n\t` + encode(token)[9:],
	} {
		_, err := tryRun(t, mine(text), passOption{policy: Policy{Plaintext: PlaintextAllow}})
		if err == nil {
			t.Errorf("%s: a placeholder written by hand is let in", name)
		}
	}
	t.Log("a file in UTF-16")
	wide := mine(token)
	wide["mine.yaml"].Data = []byte("\xff\xfe" + strings.Join(strings.Split(string(wide["mine.yaml"].Data), ""), "\x00") + "\x00")
	if _, err := tryRun(t, wide, passOption{policy: Policy{Plaintext: PlaintextAllow}}); err == nil {
		t.Error("a placeholder in UTF-16 is let in")
	}
	t.Log("two halves that a replacement puts together")
	tree := mine(token[:20] + ":x")
	tree["other.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: half, namespace: team-b}\nstringData: {k: \"" + token[20:] + "\"}\n")}
	p := run(t, tree, passOption{policy: Policy{Plaintext: PlaintextAllow}})
	if len(p.gated.Refused) != 1 || p.gated.Refused[0].Object != "Secret/team-b/mine" || p.gated.Refused[0].Reason != ReasonPlaceholderBroken {
		t.Errorf("half a placeholder: got %v", p.gated.Refused)
	}
	t.Log("put together at a letter of its own: it resolves, and is bound like the whole")
	cut := strings.IndexByte(token[12:], token[30]) + 12
	tree = mine(token[:cut] + string(token[30]) + "x")
	tree["half.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: half, namespace: team-b}\ndata: {k: \"" + token[cut+1:] + "\"}\n")}
	tree["kustomization.yaml"] = &fstest.MapFile{Data: []byte("resources: [team-a/s.yaml, mine.yaml, half.yaml]\nreplacements: [{source: {kind: ConfigMap, name: half, fieldPath: data.k}, targets: [{select: {kind: Secret, name: mine}, fieldPaths: [stringData.k], options: {delimiter: " + string(token[30]) + ", index: 9}}]}]\n")}
	if p, err := tryRun(t, tree, passOption{policy: Policy{Plaintext: PlaintextAllow}}); err == nil && len(p.gated.Refused) == 0 {
		t.Errorf("a placeholder made of two halves is let in:\n%s", p.yaml)
	}
}

func TestATokenOfAnotherSyncDoesNotResolve(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, victim+"-- kustomization.yaml --\nresources: [team-a/s.yaml]\n")
	other := digesterOf(t, "gitseal-system", "other")
	a, b := run(t, sealed, passOption{}), run(t, sealed, passOption{digester: &other})
	if a.yaml == b.yaml {
		t.Fatal("two Syncs show the same placeholders")
	}
	g := a.masked.Gate(b.objects)
	if len(g.Refused) != 1 || g.Refused[0].Reason != ReasonPlaceholderBroken {
		t.Errorf("got %v", g.Refused)
	}
}

func TestAHostileSchemaIsRefusedInEveryKustomization(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"kustomization.yaml", "base/kustomization.yaml", "component/kustomization.yaml"} {
		tree := victim + "-- kustomization.yaml --\nresources: [mine.yaml, base]\ncomponents: [component]\n-- base/kustomization.yaml --\nresources: [../team-a/s.yaml]\n-- component/kustomization.yaml --\napiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n-- schema.json --\n{}\n"
		tree = strings.Replace(tree, "-- "+where+" --\n", "-- "+where+" --\nopenapi: {path: schema.json}\n", 1)
		sealed, _ := trees(t, tree)
		if _, err := tryRun(t, sealed, passOption{}); err == nil || !strings.Contains(err.Error(), where+": openapi") {
			t.Errorf("%s: got %v", where, err)
		}
	}
}

func TestRequiredBindingLeavesNoWayAround(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, strings.Replace(victim, " for team-a/db", "", 1)+"-- kustomization.yaml --\nresources: [team-a/s.yaml]\n")
	p := run(t, sealed, passOption{policy: Policy{Binding: BindingRequired}})
	if len(p.gated.Refused) != 1 || p.gated.Refused[0].Reason != ReasonBindingMissing {
		t.Errorf("got %v", p.gated.Refused)
	}
	t.Log("of two files with the same value, the one with a binding does not help the one without")
	sealed, _ = trees(t, victim+"-- sealed copy.yaml --\napiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: team-b}\nstringData: {password: hunter2canary}\n-- kustomization.yaml --\nresources: [team-a/s.yaml, copy.yaml]\n")
	p = run(t, sealed, passOption{policy: Policy{Binding: BindingRequired}})
	if len(p.gated.Refused) != 1 || p.gated.Refused[0].Object != "Secret/team-b/db" {
		t.Errorf("got %v", p.gated.Refused)
	}
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
