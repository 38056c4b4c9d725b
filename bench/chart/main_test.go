package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const twoRuns = `{"runs": [
  {"objects": 20000, "date": "2026-11-22", "machine": "2 CPUs", "rows": [
    {"work": "raw floor", "requests": 20000, "partsSeconds": {"git": 1, "sops": 2, "patches": 97}},
    {"work": "idle, 15 looks at git", "requests": 0, "settledMB": 300}]},
  {"objects": 1000, "date": "2026-11-21", "machine": "2 CPUs", "rows": [
    {"work": "raw floor", "seconds": 5, "requests": 1000, "partsSeconds": {"git": 0.1, "sops": 0.1, "kustomize": 0.3, "patches": 4.5}},
    {"work": "first apply (agent --once)", "seconds": 6, "requests": 1021, "peakMB": 90}]}
]}`

func TestWhatWasNotMeasuredIsNotDrawn(t *testing.T) {
	t.Parallel()
	in := filepath.Join(t.TempDir(), "in.json")
	if err := os.WriteFile(in, []byte(twoRuns), 0o600); err != nil {
		t.Fatal(err)
	}
	runs, err := read(in)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{
		"raw floor of a first apply":  1, // its build was left out of the other
		"raw floor without its build": 2,
		"gitseal, first apply":        1,
		"first apply, peak":           1,
		"running, settled":            1,
	}
	for _, p := range panels(runs) {
		for _, l := range p.lines {
			if len(l.points) != want[l.name] {
				t.Errorf("%s, %s: got %d points, want %d", p.title, l.name, len(l.points), want[l.name])
			}
		}
	}
}

func TestAPictureIsDrawn(t *testing.T) {
	t.Parallel()
	in, out := filepath.Join(t.TempDir(), "in.json"), filepath.Join(t.TempDir(), "out.svg")
	if err := os.WriteFile(in, []byte(twoRuns), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{in, out}); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"<svg", ">20,000<", ">1,000<", "gitseal, first apply", "MB resident", "2026-11-21 (2 CPUs); 2026-11-22 (2 CPUs)"} {
		if !strings.Contains(string(svg), text) {
			t.Errorf("the picture lacks %q", text)
		}
	}
	if err := run([]string{out}); err == nil {
		t.Error("without data: got no error, want one")
	}
}
