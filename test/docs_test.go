package test

import (
	"os"
	"regexp"
	"slices"
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
	documented := map[decrypt.Reason]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| (.+) \\| (.+) \\|$").FindAllStringSubmatch(string(b), -1) {
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
