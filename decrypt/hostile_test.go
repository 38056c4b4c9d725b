package decrypt

import (
	"fmt"
	"strings"
	"testing"
)

// aliasBomb is a few hundred bytes that stand for a million values.
func aliasBomb() string {
	bomb := "x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n"
	for i := range 5 {
		bomb += fmt.Sprintf("x%d: &x%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*x%d,", i), 10))
	}
	return bomb
}

const healthy = "-- healthy.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: healthy}\ndata: {a: b}\n"

func TestABombIsDefusedHoweverItIsNamed(t *testing.T) {
	t.Parallel()
	object := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\n"
	indented := strings.ReplaceAll("\n"+aliasBomb()+object, "\n", "\n    ")
	for name, c := range map[string]struct{ tree, file string }{
		"a text":                   {"-- bomb.txt --\n" + aliasBomb() + object + "-- kustomization.yaml --\nresources: [healthy.yaml, bomb.txt]\n", "bomb.txt"},
		"JSON by name":             {"-- bomb.json --\n" + aliasBomb() + object + "-- kustomization.yaml --\nresources: [healthy.yaml, bomb.json]\n", "bomb.json"},
		"an odd key before it":     {"-- bomb.yaml --\n{a: b}: c\n" + aliasBomb() + object + "-- kustomization.yaml --\nresources: [healthy.yaml, bomb.yaml]\n", "bomb.yaml"},
		"in a patch's file":        {"-- bomb --\n" + aliasBomb() + object + "-- kustomization.yaml --\nresources: [healthy.yaml]\npatches: [{path: bomb}]\n", "bomb"},
		"in an inline patch":       {"-- kustomization.yaml --\nresources: [healthy.yaml]\npatches:\n- patch: |-" + indented + "\n", "kustomization.yaml"},
		"in a patch within a file": {"-- t.yaml --\napiVersion: builtin\nkind: PatchTransformer\nmetadata: {name: p}\npatch: |-" + indented + "\n-- kustomization.yaml --\nresources: [healthy.yaml]\ntransformers: [t.yaml]\n", "t.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed, _ := trees(t, healthy+c.tree)
			p, err := tryRun(t, sealed, passOption{})
			problems := p.masker.Problems()
			if len(problems) != 1 || problems[0].File != c.file || problems[0].Reason != ReasonLimitExceeded {
				t.Errorf("problems %v, build: %v", problems, err)
			}
		})
	}
}

// A bundle of CRDs is long, and its texts hold all characters.
func TestALongPlainFileIsNoBomb(t *testing.T) {
	t.Parallel()
	var long strings.Builder
	long.WriteString("-- long.yaml --\n# &a *a\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: long, labels: &l {a: b}, annotations: *l}\ndata:\n")
	for i := range 120_000 {
		fmt.Fprintf(&long, "  k%d: v\n", i)
	}
	sealed, _ := trees(t, long.String())
	p, err := tryRun(t, sealed, passOption{})
	if err != nil || len(p.masker.Problems()) > 0 || len(p.gated.Objects) != 1 {
		t.Errorf("%v, problems %v", err, p.masker.Problems())
	}
}

// A merge that went wrong breaks one file, not the others.
func TestASealedFileThatIsNotReadableStopsOnlyItself(t *testing.T) {
	t.Parallel()
	for name, breakIt := range map[string]func(string) string{
		"a conflict marker": func(s string) string { return strings.Replace(s, "kind:", "<<<<<<< HEAD\nkind:", 1) },
		"a key twice":       func(s string) string { return strings.Replace(s, "kind:", "apiVersion: v1\nkind:", 1) },
		"cut off":           func(s string) string { return s[:strings.Index(s, "sops:")] + "sops: {mac: \"ENC[AES256_GCM,data" },
		"metadata a list":   func(s string) string { return s[:strings.Index(s, "sops:")] + "sops: [a]\n" },
	} {
		for where, kustomization := range map[string]string{
			"plain files":     "",
			"a kustomization": "-- kustomization.yaml --\nresources: [healthy.yaml, s.yaml]\n",
			"a generator":     "-- kustomization.yaml --\nresources: [healthy.yaml]\nsecretGenerator: [{name: g, files: [s.yaml]}]\n",
		} {
			t.Run(name+", "+where, func(t *testing.T) {
				t.Parallel()
				sealed, _ := trees(t, healthy+dbSecret+kustomization)
				sealed["s.yaml"].Data = []byte(breakIt(string(sealed["s.yaml"].Data)))
				p, err := tryRun(t, sealed, passOption{})
				if err != nil {
					t.Fatal(err)
				}
				if problems := p.masker.Problems(); len(problems) != 1 || problems[0].File != "s.yaml" {
					t.Errorf("problems %v", problems)
				}
				if len(p.gated.Objects) != 1 || p.gated.Objects[0].Name() != "healthy" {
					t.Errorf("let through %v", p.gated.Objects)
				}
				if where == "a generator" && len(p.gated.Refused) != 1 {
					t.Errorf("refused %v", p.gated.Refused)
				}
			})
		}
	}
}
