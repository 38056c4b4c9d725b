package crypto

import (
	"reflect"
	"strings"
	"testing"

	"github.com/getsops/sops/v3"
	yaml12 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// Readers of YAML disagree about what is a text without quotes; kustomize has
// two of them inside.
func TestMaskedYAMLSaysTheSameToEveryReader(t *testing.T) {
	t.Parallel()
	texts := []string{"", " ", "~", "y", "Y", "n", "yes", "No", "on", "OFF", "yess", "true", "False", "null", "Null", "nullable", "NaN", ".nan", ".inf", "inf", "0", "-1", "+1",
		"0644", "0o17", "0x1F", "0b11", "1_000", "1e3", "1.5", ".5", "1:30", "190:20:30", "2001-01-01", "2001-12-14t21:59:43.10-05:00", "<<", "=", "<", "<a>",
		"- a", "a: b", "a:", "a #b", "#a", "? a", "! a", "!!str a", "&a", "*a", "%a", "@a", "`a`", "---", "...", "[a]", "{a}", "a, b", "|", ">", "'a'", `"a"`, `a\nb`,
		" lead", "trail ", "two\nlines", "lines\n", "lines\n\n", "\n", "\n lead", "  indented\nless", "tab\there", "\ttab", "a\rb", "win\r\nlines\r\n", "é", "\u0085x", "a\u2028b", "\ufeffa",
		"bell\a", "long " + strings.Repeat("word ", 60), "gitseal0abcdefghijklmnopqrstuvwxyz23"}
	want := map[string]any{}
	tree := sops.TreeBranch{}
	for _, text := range texts {
		tree = append(tree, sops.TreeItem{Key: "k" + text, Value: text}, sops.TreeItem{Key: "l" + text, Value: []any{text, sops.TreeBranch{{Key: "in", Value: text}}}})
		want["k"+text], want["l"+text] = text, []any{text, map[string]any{"in": text}}
		if text != "<<" { // a key of this name is a merge to some, quoted or not
			tree = append(tree, sops.TreeItem{Key: text, Value: "x"})
			want[text] = "x"
		}
	}
	tree = append(tree, sops.TreeItem{Key: "none", Value: nil}, sops.TreeItem{Key: "yes?", Value: true}, sops.TreeItem{Key: "half", Value: 0.5},
		sops.TreeItem{Key: "map", Value: sops.TreeBranch{}}, sops.TreeItem{Key: "list", Value: []any{}})
	want["none"], want["yes?"], want["half"], want["map"], want["list"] = nil, true, 0.5, map[string]any{}, []any{}
	out, err := emitMasked(YAML, sops.TreeBranches{tree})
	if err != nil {
		t.Fatal(err)
	}
	for name, unmarshal := range map[string]func([]byte, any) error{
		"YAML 1.2": yaml12.Unmarshal,
		"YAML 1.1": func(b []byte, v any) error { return yaml.Unmarshal(b, v) },
	} {
		got := map[string]any{}
		if err := unmarshal(out, &got); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		for k, w := range want {
			if !reflect.DeepEqual(got[k], w) {
				t.Errorf("%s: %q is %#v, want %#v", name, k, got[k], w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d keys, want %d", name, len(got), len(want))
		}
	}
}
