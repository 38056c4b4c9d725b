package build

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gitseal/gitseal/test/corpus"
)

func FuzzReadManifests(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		objects, err := readManifests(fstest.MapFS{"a.yaml": {Data: b}}, "a.yaml")
		if err != nil {
			c.Saw("an error")
			if objects != nil {
				t.Error("objects with an error")
			}
			if !strings.HasPrefix(err.Error(), "a.yaml: ") {
				t.Errorf("does not name the file: %v", err)
			}
		}
		for _, u := range objects {
			c.Saw("an object")
			if u.GetAPIVersion() == "" || u.GetKind() == "" || u.GetName() == "" {
				t.Errorf("no object: %v", u.Object)
			}
		}
		if lines := bytes.Count(bytes.Join(splitDocuments(b), nil), []byte("\n")); lines != bytes.Count(b, []byte("\n")) {
			t.Errorf("counted %d lines", lines)
		}
	})
	c.Reached("an error", "an object")
}

// maskedTree is a tree in which a value is a placeholder.
type maskedTree struct{ fstest.MapFS }

const placeholder = "gitseal0aaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func (maskedTree) Masks(text string) bool { return strings.Contains(text, "gitseal0") }

// noNetwork counts requests and answers none.
type noNetwork struct{ requests *int }

func (n noNetwork) RoundTrip(*http.Request) (*http.Response, error) {
	*n.requests++
	return nil, errors.New("there is no network")
}

// FuzzKustomization: whatever a kustomization says, it is built or refused, and
// the same the second time; nothing is fetched and git is not run.
func FuzzKustomization(f *testing.F) {
	c := corpus.Of(f)
	requests := 0
	before := http.DefaultTransport
	http.DefaultTransport = noNetwork{&requests}
	f.Cleanup(func() { http.DefaultTransport = before })
	bin, ran := f.TempDir(), filepath.Join(f.TempDir(), "ran")
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\necho \"$@\" >> '"+ran+"'\nexit 1\n"), 0o755); err != nil {
		f.Fatal(err)
	}
	f.Setenv("PATH", bin)
	f.Fuzz(func(t *testing.T, kustomization, file []byte) {
		if len(kustomization)+len(file) > 1<<14 {
			return
		}
		tree := maskedTree{fstest.MapFS{
			"kustomization.yaml":      {Data: kustomization},
			"file.yaml":               {Data: file},
			"a.env":                   {Data: []byte("A=" + placeholder + "\nB=c\n")},
			"s.yaml":                  {Data: []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: " + placeholder + ", p: 'a:b'}\n")},
			"c.yaml":                  {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: 'a:b'}\n")},
			"base/kustomization.yaml": {Data: []byte("resources: [../c.yaml]\nnamePrefix: b-\n")},
		}}
		objects, err := Run(t.Context(), tree, "", AsWritten)
		if err != nil && objects != nil {
			t.Errorf("%d objects and %v", len(objects), err)
		}
		again, againErr := Run(t.Context(), tree, "", AsWritten)
		if (err == nil) != (againErr == nil) || len(again) != len(objects) {
			t.Errorf("%d objects and %v, the second time %d and %v", len(objects), err, len(again), againErr)
		}
		var refused *KustomizationError
		switch {
		case errors.As(err, &refused) && strings.Contains(err.Error(), "cut a sealed value"):
			c.Saw("a cut")
		case errors.As(err, &refused):
			c.Saw("refused")
		case err != nil:
			c.Saw("an error")
		default:
			c.Saw("objects")
		}
		for i, u := range objects {
			if u.GetKind() == "" || u.GetName() == "" {
				t.Errorf("object %d has no kind or name", i)
			}
			if text := must(u.MarshalJSON())(t); bytes.Contains(text, []byte(probeMark)) {
				t.Errorf("the mark of the probe is in %s", text)
			}
		}
		if b, err := os.ReadFile(ran); err == nil || requests > 0 {
			_ = os.Remove(ran) // for the next input
			requests = 0
			t.Errorf("requests were sent, or git was run: %s", b)
		}
	})
	c.Reached("objects", "refused", "an error", "a cut")
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
