package corpus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// target stands for a fuzz target of a package with some files.
type target struct {
	testing.TB
	said []string
}

func (t *target) Name() string                   { return "FuzzIt" }
func (t *target) Helper()                        {}
func (t *target) Failed() bool                   { return len(t.said) > 0 }
func (t *target) Errorf(format string, _ ...any) { t.said = append(t.said, format) }
func (t *target) Fatalf(format string, _ ...any) { t.Errorf(format); panic(t) }

func (t *target) run(f func()) (said string) {
	defer func() {
		if r := recover(); r != nil && r != any(t) {
			panic(r)
		}
		said = strings.Join(t.said, "\n")
	}()
	f()
	return ""
}

func TestATargetWithoutSeedsFails(t *testing.T) {
	for name, c := range map[string]struct {
		files []string // those that end in ! are empty
		want  string
	}{
		"a seed":              {[]string{"testdata/fuzz/FuzzIt/a"}, ""},
		"no folder":           {nil, "the corpus is missing"},
		"the folder renamed":  {[]string{"testdata/fuzz/FuzzThat/a"}, "the corpus is missing"},
		"the folder is empty": {[]string{"testdata/fuzz/FuzzIt/"}, "the corpus is empty"},
		"an empty seed":       {[]string{"testdata/fuzz/FuzzIt/a", "testdata/fuzz/FuzzIt/b!"}, "unreadable or empty"},
		"a folder in it":      {[]string{"testdata/fuzz/FuzzIt/a", "testdata/fuzz/FuzzIt/b/"}, "unreadable or empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for _, file := range c.files {
				if err := os.MkdirAll(filepath.Dir(file+"x"), 0o755); err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(file, "/") {
					continue
				}
				content := "go test fuzz v1\n"
				if strings.HasSuffix(file, "!") {
					content = ""
				}
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tb := &target{TB: t}
			if got := tb.run(func() { Of(tb) }); c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestATargetWhoseSeedsGetNowhereFails(t *testing.T) {
	tb := &target{TB: t}
	c := &Corpus{tb: tb, saw: map[string]bool{}}
	c.Saw("refused")
	if c.Reached("refused"); tb.Failed() {
		t.Errorf("got %q for what was seen", tb.said)
	}
	if c.Reached("refused", "opened"); len(tb.said) != 1 || !strings.Contains(tb.said[0], "no seed") {
		t.Errorf("got %q, want one complaint", tb.said)
	}
}
