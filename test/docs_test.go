package test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gitseal/gitseal/decrypt"
)

// TestEveryReasonIsDocumented keeps docs/reasons.md and the reasons in the code
// the same, each with a repair.
func TestEveryReasonIsDocumented(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	text, _, ok := strings.Cut(string(b), "## Conditions of a Sync")
	if !ok {
		t.Fatal("the document has no section on conditions")
	}
	documented := map[decrypt.Reason]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| (.+) \\| (.+) \\|$").FindAllStringSubmatch(text, -1) {
		documented[decrypt.Reason(m[1])] = true
	}
	if len(documented) < 10 {
		t.Fatalf("only %d reasons found in the document: the test looks at the wrong thing", len(documented))
	}
	for _, r := range decrypt.Reasons() {
		if !documented[r] {
			t.Errorf("%s is not in docs/reasons.md, or has no repair", r)
		}
	}
	for r := range documented {
		if !slices.Contains(decrypt.Reasons(), r) {
			t.Errorf("docs/reasons.md explains %s, which does not exist", r)
		}
	}
}

// TestWhatASyncSaysIsDocumented keeps the reasons of conditions, the metrics and the
// annotations of Syncs in the code and in the documents the same.
func TestWhatASyncSaysIsDocumented(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code, inCode string // a file, and what to look for in it
		doc, inDoc   string
		after        string // look in the document after this
		except       []string
		least        int
	}{
		"reasons":     {"../controller/reasons.go", `(?m)^\t[A-Za-z]+ += "([A-Za-z]+)"$`, "../docs/reasons.md", "(?m)^\\| `([A-Za-z]+)` \\| .+ \\| .+ \\|$", "## Conditions of a Sync", []string{"ReconciliationSucceeded", "Progressing", "ProgressingWithRetry"}, 20},
		"metrics":     {"../controller/metrics.go", `Name: "(gitseal_[a-z_]+)"`, "../docs/sync.md", "(?m)^\\| `(gitseal_[a-z_]+)` \\|", "**Metrics**", nil, 10},
		"annotations": {"../api/v1alpha1/status.go", `Annotation += "(gitseal\.io/[a-z-]+)"`, "../docs/sync.md", "(?m)^\\| `(gitseal\\.io/[a-z-]+)` \\|", "## Annotations of a Sync", nil, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			find := func(file, after, pattern string) []string {
				b, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				_, text, ok := strings.Cut(string(b), after)
				if !ok {
					t.Fatalf("%s has no %q", file, after)
				}
				var out []string
				for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
					if !slices.Contains(c.except, m[1]) {
						out = append(out, m[1])
					}
				}
				slices.Sort(out)
				return out
			}
			want, got := find(c.code, "", c.inCode), find(c.doc, c.after, c.inDoc)
			if len(want) < c.least || !slices.Equal(want, got) {
				t.Errorf("documented: %q\nin the code: %q", got, want)
			}
		})
	}
}
