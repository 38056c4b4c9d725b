package source

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/test/corpus"
)

func link(r *repo, target, name string) {
	r.t.Helper()
	p := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		r.t.Fatal(err)
	}
}

func TestTreeIsAFileSystem(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	r.write(map[string]string{"run.sh": "#!", "deep/er/x": "x", "empty": "", "apps.yaml": "sorts around apps/"})
	if err := os.Chmod(filepath.Join(r.dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	link(r, "README", "link")
	link(r, "../apps/a.yaml", "deep/link")
	link(r, "deep/er", "folder")
	r.commit("all", nil)
	tree := mustFetch(t, mustNew(t, Config{URL: r.dir})).Tree
	if err := fstest.TestFS(tree, "README", "apps/a.yaml", "run.sh", "deep/er/x", "empty", "link", "deep/link"); err != nil {
		t.Error(err)
	}
	want := []string{"README", "apps.yaml", "apps/a.yaml", "deep/er/x", "empty", "run.sh"}
	if diff := cmp.Diff(tree.Files(), want); diff != "" {
		t.Errorf("files (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(tree.Links(), []string{"deep/link", "folder", "link"}); diff != "" {
		t.Errorf("links (-got +want):\n%s", diff)
	}
	var walked []string
	err := fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		walked = append(walked, fmt.Sprintf("%s %v", p, d.Type()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	wantWalk := []string{". d---------", "README ----------", "apps d---------", "apps/a.yaml ----------", "apps.yaml ----------",
		"deep d---------", "deep/er d---------", "deep/er/x ----------", "deep/link L---------", "empty ----------",
		"folder L---------", "link L---------", "run.sh ----------"}
	if diff := cmp.Diff(walked, wantWalk); diff != "" {
		t.Errorf("walk (-got +want):\n%s", diff)
	}
	info, err := tree.Stat("run.sh")
	if err != nil || info.Mode() != 0o555 || !info.ModTime().IsZero() {
		t.Errorf("got %v, %v, want mode 0555 and no time", info, err)
	}
}

func TestTreeSymlinks(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	r.write(map[string]string{"base/k.yaml": "k", "base/sub/s.yaml": "s", "apps/prod/x": "x"})
	link(r, "../base", "apps/base")
	link(r, "k.yaml", "base/same-folder")
	link(r, "../../apps/base/sub/s.yaml", "apps/prod/through")
	link(r, "apps/base/sub", "sub")
	link(r, "apps/prod/through", "chain")
	link(r, "./base/./k.yaml", "dots")
	link(r, "sub/../k.yaml", "physical-parent") // sub is base/sub, so .. is base
	link(r, "nowhere", "dangling")
	link(r, "dangling", "to-dangling")
	link(r, "base/k.yaml/x", "through-a-file")
	link(r, "nowhere/../../../etc/passwd", "dangling-first")
	link(r, "loop2", "loop1")
	link(r, "loop1", "loop2")
	link(r, ".", "self")
	link(r, "..", "apps/root")
	r.commit("links", nil)
	tree := mustFetch(t, mustNew(t, Config{URL: r.dir})).Tree

	reads := map[string]string{
		"base/same-folder": "k", "apps/base/k.yaml": "k", "apps/base/same-folder": "k", "apps/prod/through": "s", "chain": "s",
		"sub/s.yaml": "s", "dots": "k", "physical-parent": "k", "self/self/base/k.yaml": "k", "apps/root/apps/root/README": "hello\n",
	}
	for name, want := range reads {
		if got, err := fs.ReadFile(tree, name); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	failures := map[string]struct {
		text     string
		notExist bool
		linked   bool
	}{
		"dangling":          {"symlink dangling points to nowhere, which does not exist", true, true},
		"to-dangling":       {"symlink dangling points to nowhere, which does not exist", true, true},
		"through-a-file":    {"symlink through-a-file points to base/k.yaml/x, which does not exist", true, true},
		"dangling-first":    {"symlink dangling-first points to nowhere/../../../etc/passwd, which does not exist", true, true},
		"loop1":             {"in a circle", false, true},
		"loop2/x":           {"in a circle", false, true},
		"apps/base/missing": {"open apps/base/missing: file does not exist", true, false},
		"base/k.yaml/x":     {"open base/k.yaml/x: file does not exist", true, false},
		"../etc/passwd":     {"invalid argument", false, false},
	}
	for name, want := range failures {
		_, err := tree.Open(name)
		var symlink *SymlinkError
		if err == nil || !strings.Contains(err.Error(), want.text) || errors.Is(err, fs.ErrNotExist) != want.notExist || errors.As(err, &symlink) != want.linked {
			t.Errorf("%s: got %v, want %+v", name, err, want)
		}
	}
	if got, err := tree.Resolve("apps/base/same-folder"); err != nil || got != "base/k.yaml" {
		t.Errorf("got %s, %v, want base/k.yaml", got, err)
	}
	if got, err := tree.ReadLink("apps/base"); err != nil || got != "../base" {
		t.Errorf("got %s, %v, want ../base", got, err)
	}
	entries, err := tree.ReadDir("sub")
	if err != nil || len(entries) != 1 || entries[0].Name() != "s.yaml" {
		t.Errorf("got %v, %v, want s.yaml", entries, err)
	}
}

func TestFetchRefusesSymlinksThatLeaveTheRepository(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		make func(r *repo)
		want string
	}{
		"upwards":          {func(r *repo) { link(r, "../../etc/passwd", "a/b") }, "symlink a/b points to ../../etc/passwd, outside the repository"},
		"absolute":         {func(r *repo) { link(r, "/etc/passwd", "a/b") }, "symlink a/b points to /etc/passwd, outside the repository"},
		"one too far":      {func(r *repo) { link(r, "..", "b") }, "symlink b points to .., outside the repository"},
		"out and in again": {func(r *repo) { link(r, "../r/README", "b") }, "symlink b points to ../r/README, outside the repository"},
		"through a folder link": {func(r *repo) {
			r.write(map[string]string{"deep/er/x": "x"})
			link(r, "../../apps", "deep/er/up")
			link(r, "deep/er/up/../../outside", "b")
		}, "symlink b points to deep/er/up/../../outside, outside the repository"},
		"control characters": {func(r *repo) { link(r, "/\x1b[31m", "a") }, `symlink a points to "/\x1b[31m", outside the repository`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t, t.TempDir(), "r")
			s := mustNew(t, Config{URL: r.dir})
			first := mustFetch(t, s)
			tt.make(r)
			r.commit("evil", nil)
			_, _, err := s.Fetch(t.Context())
			var symlink *SymlinkError
			if !errors.As(err, &symlink) || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if s.Last() != first {
				t.Error("the last commit was lost")
			}
		})
	}
}

func TestTreeSubmoduleIsAnEmptyFolder(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	r.git("update-index", "--add", "--cacheinfo", "160000,"+r.git("rev-parse", "HEAD")+",vendor/lib")
	r.git("commit", "-q", "-m", "submodule")
	tree := mustFetch(t, mustNew(t, Config{URL: server.url("r")})).Tree
	entries, err := tree.ReadDir("vendor/lib")
	if err != nil || len(entries) != 0 {
		t.Errorf("got %v, %v, want an empty folder", entries, err)
	}
}

func TestTreeFileOverTheLimit(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	big := strings.Repeat("0123456789", 1<<20) + "x"
	r.commit("big", map[string]string{"apps/big.bin": big, "apps/most.bin": big[:10<<20]})
	for _, url := range []string{server.url("r"), r.dir} {
		tree := mustFetch(t, mustNew(t, Config{URL: url})).Tree
		for _, read := range []func() error{
			func() error { _, err := tree.ReadFile("apps/big.bin"); return err },
			func() error { _, err := tree.Open("apps/big.bin"); return err },
		} {
			var limit *LimitError
			if err := read(); !errors.As(err, &limit) || !strings.Contains(err.Error(), "file apps/big.bin is over the limit of 10485760 bytes") {
				t.Errorf("got %v, want LimitError with file and limit", err)
			}
		}
		if info, err := tree.Stat("apps/big.bin"); err != nil || info.Size() != 10<<20+1 {
			t.Errorf("got %v, %v, want its size", info, err)
		}
		if data, err := tree.ReadFile("apps/most.bin"); err != nil || len(data) != 10<<20 {
			t.Errorf("got %d bytes, %v, want a file at the limit to be read", len(data), err)
		}
		if len(tree.Files()) != 4 {
			t.Errorf("got %v, want the big file listed too", tree.Files())
		}
	}
}

func TestFetchRefusesTreesOverTheLimits(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	r.commit("many", manyFiles(100))
	tests := map[string]struct {
		limits Limits
		want   string
	}{
		"bytes":    {Limits{TreeBytes: 1000}, "the tree is over the limit of 1000 bytes"},
		"entries":  {Limits{TreeEntries: 50}, "the tree is over the limit of 50 files and folders"},
		"unpacked": {Limits{UnpackedBytes: 1000}, "the unpacked pack is over the limit of 1000 bytes"},
		"pack":     {Limits{PackBytes: 1000}, "the pack is over the limit of 1000 bytes"},
		"enough":   {Limits{}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := mustNew(t, Config{URL: server.url("r"), Limits: tt.limits}).Fetch(t.Context())
			var limit *LimitError
			if tt.want == "" && err != nil || tt.want != "" && (!errors.As(err, &limit) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// store makes objects by hand, such as git would refuse to write.
func (o objects) add(kind plumbing.ObjectType, data string) plumbing.Hash {
	hash := plumbing.ComputeHash(kind, []byte(data))
	o[hash] = object{kind: kind, data: []byte(data), size: int64(len(data))}
	return hash
}

func entry(mode, name string, hash plumbing.Hash) string {
	return mode + " " + name + "\x00" + string(hash[:])
}

func TestLoadTreeRefuses(t *testing.T) {
	t.Parallel()
	o := objects{}
	blob := o.add(plumbing.BlobObject, "x")
	long := o.add(plumbing.BlobObject, strings.Repeat("x", maxLinkBytes+1))
	bomb := o.add(plumbing.TreeObject, entry("100644", "f", blob))
	for range 12 { // each level holds the one below ten times
		var text string
		for i := range 10 {
			text += entry("40000", fmt.Sprint(i), bomb)
		}
		bomb = o.add(plumbing.TreeObject, text)
	}
	deep := o.add(plumbing.TreeObject, "")
	for range maxPathDepth + 1 {
		deep = o.add(plumbing.TreeObject, entry("40000", "d", deep))
	}
	wide := o.add(plumbing.TreeObject, "")
	for range 20 {
		wide = o.add(plumbing.TreeObject, entry("40000", strings.Repeat("n", 250), wide))
	}
	tests := map[string]struct{ tree, want string }{
		"a backslash":         {entry("100644", `a\b`, blob), `refused file name "a\\b"`},
		"a slash":             {entry("100644", "a/b", blob), `refused file name "a/b"`},
		"dot dot":             {entry("40000", "..", bomb), `refused file name ".."`},
		"dot":                 {entry("40000", ".", bomb), `refused file name "."`},
		"an empty name":       {entry("100644", "", blob), `refused file name ""`},
		"invalid utf-8":       {entry("100644", "a\xff", blob), `refused file name "a\xff"`},
		"a name twice":        {entry("100644", "a", blob) + entry("100755", "a", blob), "holds a twice"},
		"an unknown mode":     {entry("100000", "a", blob), "unknown git mode 100000"},
		"a mode that is none": {entry("9", "a", blob), "malformed git tree"},
		"a cut entry":         {entry("100644", "a", blob)[:20], "malformed git tree"},
		"a missing blob":      {entry("100644", "a", plumbing.NewHash("ab")), "the pack lacks blob"},
		"a tree as a file":    {entry("100644", "a", bomb), "is a tree, not a blob"},
		"a file as a tree":    {entry("40000", "a", blob), "is a blob, not a tree"},
		"a bomb of folders":   {entry("40000", "a", bomb), "over the limit of 100000 files and folders"},
		"a deep tree":         {entry("40000", "a", deep), "over the limit of 64 folders"},
		"a long path":         {entry("40000", "a", wide), "over the limit of 4096 bytes"},
		"a long link":         {entry("120000", "a", long), "target of symlink a is over the limit"},
		"no dangling link":    {entry("120000", "ok", blob), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mine := objects{}
			for h, obj := range o {
				mine[h] = obj
			}
			tree, _, err := loadTree(t.Context(), mine, mine.add(plumbing.TreeObject, tt.tree), Limits{}.withDefaults())
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && tree != nil {
				t.Error("a tree beside an error")
			}
		})
	}
}

func FuzzParseTree(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseTree(data)
		if err != nil {
			c.Saw("an error")
			return
		}
		c.Saw("entries")
		again := ""
		for _, e := range entries {
			if e.name == ".." || !fs.ValidPath(e.name) {
				t.Errorf("%q got through", e.name)
			}
			again += entry(fmt.Sprintf("%o", uint32(e.mode)), e.name, e.hash)
		}
		if got, err := parseTree([]byte(again)); err != nil || !slices.Equal(got, entries) {
			t.Errorf("got %v, %v after writing it again, want %v", got, err, entries)
		}
	})
	c.Reached("an error", "entries")
}

func TestTreeChangedSince(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	r.write(map[string]string{"gone": "1", "dir/gone": "1", "dir/kept": "1", "same/a": "1", "same/b": "1", "becomes-folder": "1", "becomes-file/x": "1", "moved": "1\n", "run.sh": "#!", "big": strings.Repeat("x", 5000)})
	link(r, "README", "link")
	link(r, "README", "becomes-real")
	link(r, "README", "stays")
	r.commit("old", nil)
	old := mustFetch(t, mustNew(t, Config{URL: r.dir, Limits: Limits{FileBytes: 4096}})).Tree
	for _, name := range []string{"gone", "dir/gone", "becomes-folder", "becomes-file", "link", "becomes-real", "moved"} {
		if err := os.RemoveAll(filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.write(map[string]string{"new/deep/x": "1", "apps/a.yaml": "a: 2\n", "becomes-folder/y": "1", "becomes-file": "1", "becomes-real": "hello\n", "to/moved": "1\n", "big": strings.Repeat("y", 5000)})
	link(r, "apps/a.yaml", "link")
	if err := os.Chmod(filepath.Join(r.dir, "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",module")
	r.git("add", "-A", ".", ":!module")
	r.git("commit", "-q", "-m", "new")
	now := mustFetch(t, mustNew(t, Config{URL: r.dir, Limits: Limits{FileBytes: 4096}})).Tree

	want := []string{"apps/a.yaml", "becomes-file", "becomes-file/x", "becomes-folder", "becomes-folder/y", "becomes-real", "big",
		"dir/gone", "gone", "link", "moved", "new/deep/x", "run.sh", "to/moved"}
	if diff := cmp.Diff(now.ChangedSince(old), want); diff != "" {
		t.Errorf("forward (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(old.ChangedSince(now), want); diff != "" {
		t.Errorf("backward (-got +want):\n%s", diff)
	}
	if got := now.ChangedSince(now); len(got) != 0 {
		t.Errorf("got %v for the same tree, want nothing", got)
	}
	all := append(now.Files(), now.Links()...)
	slices.Sort(all)
	if diff := cmp.Diff(now.ChangedSince(nil), all); diff != "" {
		t.Errorf("without an old tree (-got +want):\n%s", diff)
	}
}
