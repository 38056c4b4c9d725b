package source

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLocalRepositories(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := newRepo(t, root, "r")
	r.commit("many", manyFiles(300))
	for i := range 5 { // so that git has deltas to make
		files := manyFiles(300)
		files["long"] = strings.Repeat("the same line\n", 500) + strings.Repeat("x", i)
		r.commit("more", files)
	}
	r.git("clone", "-q", "--bare", r.dir, filepath.Join(root, "bare.git"))
	r.git("worktree", "add", "-q", filepath.Join(root, "worktree"), "-b", "wt")
	packed := &repo{t: t, dir: filepath.Join(root, "packed")}
	r.git("clone", "-q", r.dir, packed.dir)
	packed.git("repack", "-adfq")
	packed.git("pack-refs", "--all")
	hash := r.git("rev-parse", "HEAD")
	for _, name := range []string{"r", "r/.git", "bare.git", "worktree", "packed"} {
		c, _, err := mustNew(t, Config{URL: filepath.Join(root, name)}).Fetch(t.Context())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Hash != hash || len(c.Tree.Files()) != 303 || contentOf(t, c, "dir07/file0007.yaml") != manyFiles(300)["dir07/file0007.yaml"] {
			t.Errorf("%s: got %s with %d files, want %s with 303", name, c.Hash, len(c.Tree.Files()), hash)
		}
	}
	older := r.git("rev-parse", "HEAD~3")
	if c := mustFetch(t, mustNew(t, Config{URL: r.dir, Ref: Ref{Commit: older}})); c.Hash != older {
		t.Errorf("got %s, want %s", c.Hash, older)
	}
}

func TestLocalRepositoryFollowsCommits(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	s := mustNew(t, Config{URL: "file://" + r.dir})
	first := mustFetch(t, s)
	r.write(map[string]string{"README": "not committed\n"})
	if c, changed, err := s.Fetch(t.Context()); c != first || changed || err != nil {
		t.Errorf("got %v, %v, %v, want the same commit", c, changed, err)
	}
	hash := r.commit("now", nil)
	r.git("gc", "-q")
	if c, changed, err := s.Fetch(t.Context()); err != nil || !changed || c.Hash != hash || contentOf(t, c, "README") != "not committed\n" {
		t.Errorf("got %v, %v, %v, want %s", c, changed, err, hash)
	}
}

func TestLocalRepositoryErrors(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	tests := map[string]struct {
		config Config
		want   error
	}{
		"no such path":     {Config{URL: filepath.Join(t.TempDir(), "nope")}, ErrRepositoryNotFound},
		"no repository":    {Config{URL: t.TempDir()}, ErrRepositoryNotFound},
		"a folder in one":  {Config{URL: filepath.Join(r.dir, "apps")}, ErrRepositoryNotFound},
		"an unknown SHA":   {Config{URL: r.dir, Ref: Ref{Commit: strings.Repeat("ab", 20)}}, nil},
		"a missing branch": {Config{URL: r.dir, Ref: Ref{Branch: "nope"}}, nil},
	}
	for name, tt := range tests {
		_, _, err := mustNew(t, tt.config).Fetch(t.Context())
		var missing *RefNotFoundError
		if tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && !errors.As(err, &missing) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

func TestLocalRepositoryThatIsDamaged(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	good := r.git("rev-parse", "HEAD:README")
	other := r.gitInput(strings.NewReader("evil\n"), "hash-object", "-w", "--stdin")
	object := func(hash string) string { return filepath.Join(r.dir, ".git/objects", hash[:2], hash[2:]) }
	data, err := os.ReadFile(object(other))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(object(good)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(object(good), data, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, _, err := mustNew(t, Config{URL: r.dir}).Fetch(t.Context()); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("got %v, want the damaged blob named", err)
	}
}
