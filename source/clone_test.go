package source

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/gitseal/gitseal/test/harness"
)

func TestACloneKnowsWhatItFollows(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		remote, url string
		want        bool
	}{
		"the same":                   {"https://git.example/team/shop.git", "https://git.example/team/shop.git", true},
		"without .git":               {"https://git.example/team/shop", "https://git.example/team/shop.git/", true},
		"over ssh":                   {"git@git.example:team/shop.git", "https://git.example/team/shop", true},
		"over ssh with a port":       {"ssh://git@git.example:2222/team/shop.git", "https://git.example/team/shop", true},
		"with a password":            {"https://me:secret@git.example/team/shop", "https://git.example/team/shop", true},
		"capital letters of a host":  {"https://Git.Example/team/shop", "https://git.example/team/shop", true},
		"another port":               {"https://git.example:8443/team/shop", "https://git.example/team/shop", false},
		"another repository":         {"https://git.example/team/blog", "https://git.example/team/shop", false},
		"another host":               {"https://git.other/team/shop", "https://git.example/team/shop", false},
		"a host in the path":         {"https://evil.example/x@git.example/team/shop", "https://git.example/team/shop", false},
		"two that can not be parsed": {"::", "::", false},
	} {
		r := harness.NewRepo(t, t.TempDir(), "r")
		r.Git("remote", "set-url", "origin", c.remote)
		clone, err := OpenClone(r.Work)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := clone.Follows(c.url); err != nil || got != c.want {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, c.want)
		}
	}
}

func TestACloneComparesCommits(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := harness.NewRepo(t, root, "r")
	r.Write("a", "1")
	first := r.Commit("first\n\nbody")
	r.Write("a", "2")
	second := r.Commit("second")
	r.Branch("side")
	r.Write("b", "1")
	side := r.Commit("side")
	r.Checkout(harness.MainBranch)
	r.Write("c", "1")
	third := r.Commit("third")
	r.Git("clone", "-q", "--depth", "1", "file://"+r.Bare, filepath.Join(root, "shallow"))
	r.Git("worktree", "add", "-q", "--detach", filepath.Join(root, "tree"), first)
	compare := func(folder, a, b string, want Relation, wantErr error) {
		t.Helper()
		clone, err := OpenClone(folder)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := clone.Compare(t.Context(), a, b); got != want || !errors.Is(err, wantErr) {
			t.Errorf("%s to %s: got %q, %v; want %q, %v", a, b, got, err, want, wantErr)
		}
	}
	compare(r.Work, third, third, Same, nil)
	compare(r.Work, third, first, Ahead, nil)
	compare(r.Work, first, third, Behind, nil)
	compare(r.Work, third, side, Diverged, nil)
	compare(r.Work, side, second, Ahead, nil)
	compare(r.Work, third, "1234567890123456789012345678901234567890", Absent, nil)
	shallow := filepath.Join(root, "shallow")
	compare(shallow, third, first, Absent, nil)
	r.Git("-C", shallow, "fetch", "-q", "--depth", "1", "origin", "side")
	compare(shallow, third, side, "", ErrShallow)

	for folder, want := range map[string]string{r.Work: third, filepath.Join(root, "tree"): first, r.Bare: third} {
		clone, err := OpenClone(folder)
		if err != nil {
			t.Fatal(err)
		}
		hash, subject, err := clone.Head()
		if err != nil || hash != want || want == first && subject != "first" {
			t.Errorf("%s: got %s %q, %v; want %s", folder, hash, subject, err, want)
		}
	}
	empty := harness.NewRepo(t, root, "empty")
	clone, err := OpenClone(empty.Work)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := clone.Head(); !errors.As(err, new(*RefNotFoundError)) {
		t.Errorf("HEAD of an empty repository: got %v", err)
	}
	if _, err := OpenClone(t.TempDir()); !errors.Is(err, ErrRepositoryNotFound) {
		t.Errorf("no repository: got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	clone, _ = OpenClone(r.Work)
	if _, err := clone.Compare(ended, third, first); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of ctx: got %v", err)
	}
}
