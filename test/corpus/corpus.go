// Package corpus sees to it that fuzz targets have seeds, and that these get
// somewhere. `go test` itself says nothing of a folder that is missing or was
// renamed, nor of a target that refuses whatever it is given.
package corpus

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Corpus is the seeds of one fuzz target, and what they came to.
type Corpus struct {
	tb  testing.TB
	saw map[string]bool
}

// Of fails the target unless it has seeds in testdata/fuzz/NAME, the folder that
// `go test` reads them from.
func Of(tb testing.TB) *Corpus {
	tb.Helper()
	Files(tb, filepath.Join("testdata", "fuzz", tb.Name()))
	return &Corpus{tb: tb, saw: map[string]bool{}}
}

// Saw notes what one input came to.
func (c *Corpus) Saw(outcome string) { c.saw[outcome] = true }

// Reached fails the target if none of its seeds came to one of the outcomes. Call
// it after Fuzz. It asks nothing of a run that fuzzes, or of some seeds only.
func (c *Corpus) Reached(outcomes ...string) {
	c.tb.Helper()
	if len(set("test.fuzz")) > 0 || strings.Contains(set("test.run"), "/") || c.tb.Failed() {
		return
	}
	for _, o := range outcomes {
		if !c.saw[o] {
			c.tb.Errorf("no seed of %s came to: %s", c.tb.Name(), o)
		}
	}
}

func set(name string) string {
	if f := flag.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// Files returns the files of a folder by name. There must be some, none empty.
func Files(tb testing.TB, folder string) map[string][]byte {
	tb.Helper()
	out := map[string][]byte{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		tb.Fatalf("the corpus is missing: %v", err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil || len(b) == 0 {
			tb.Fatalf("the corpus has an unreadable or empty file: %s: %v", e.Name(), err)
		}
		out[e.Name()] = b
	}
	if len(out) == 0 {
		tb.Fatalf("the corpus is empty: %s", folder)
	}
	return out
}

// Pick puts the value into one of the fields, as a fuzzed number says. Two more
// numbers pick none; beyond reports the last of them.
func Pick(number uint8, value string, fields ...*string) (beyond bool) {
	n := int(number) % (len(fields) + 2)
	if n > 0 && n <= len(fields) {
		*fields[n-1] = value
	}
	return n > len(fields)
}
