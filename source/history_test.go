package source

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitseal/gitseal/test/corpus"
)

// importHistory adds commits to main quickly: n in a row, each with its own file
// content, so that a pack of everything is large.
func (r *repo) importHistory(n int) {
	r.t.Helper()
	var in bytes.Buffer
	head := r.git("rev-parse", "HEAD")
	for i := range n {
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter Bob <bob@example.com> %d +0000\ndata 4\nnext\n", 1715000000+i)
		if i == 0 {
			fmt.Fprintf(&in, "from %s\n", head)
		}
		content := fmt.Sprintf("n: %d\n", i)
		fmt.Fprintf(&in, "M 100644 inline n%d.yaml\ndata %d\n%s\n", i%50, len(content), content)
	}
	r.gitInput(&in, "fast-import", "--quiet", "--force")
	r.git("reset", "-q", "--hard", "main")
}

// way is a way to a repository.
type way struct {
	config Config
	repo   *repo
}

// transports are the ways to the same repository r: over http with filters, with
// some, and without, over ssh, and as a path.
func transports(t *testing.T, build func(*repo)) map[string]way {
	t.Helper()
	server, sshd := newGitServer(t, plain), newSSHServer(t)
	sshd.root = server.root
	template := newRepo(t, t.TempDir(), "r")
	build(template)
	out := map[string]way{}
	for name, settings := range map[string][]string{
		"http":                 nil,
		"http with filters":    {"uploadpack.allowFilter", "true"},
		"http with one filter": {"uploadpack.allowFilter", "true", "uploadpackfilter.tree.allow", "false"},
		"ssh":                  nil,
		"ssh with filters":     {"uploadpack.allowFilter", "true"},
		"ssh with one filter":  {"uploadpack.allowFilter", "true", "uploadpackfilter.tree.allow", "false"},
		"a path":               nil,
	} {
		folder := strings.ReplaceAll(name, " ", "-")
		r := &repo{t: t, dir: filepath.Join(server.root, folder)}
		if err := os.CopyFS(r.dir, os.DirFS(template.dir)); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(settings); i += 2 {
			r.git("config", settings[i], settings[i+1])
		}
		switch {
		case strings.HasPrefix(name, "http"):
			out[name] = way{Config{URL: server.url(folder)}, r}
		case strings.HasPrefix(name, "ssh"):
			out[name] = way{Config{URL: sshd.url(folder), Credentials: sshd.credentials()}, r}
		default:
			out[name] = way{Config{URL: r.dir}, r}
		}
	}
	return out
}

func TestDescends(t *testing.T) {
	t.Parallel()
	var ids map[string]string
	build := func(r *repo) {
		ids = map[string]string{"nowhere": strings.Repeat("ab", 20)}
		mark := func(name string) { ids[name] = r.git("rev-parse", "HEAD") }
		mark("root")
		for i := range 100 {
			r.git("commit", "-q", "--allow-empty", "-m", fmt.Sprint(i))
			switch i {
			case 9:
				mark("far")
			case 97:
				mark("grandparent")
			case 98:
				mark("parent")
			}
		}
		r.commit("tip", map[string]string{"apps/a.yaml": "a: tip\n"})
		mark("linear")
		r.git("branch", "linear")

		r.git("checkout", "-q", "-b", "side", ids["far"])
		r.commit("side", map[string]string{"side.yaml": "s: 0\n"})
		mark("side's first")
		for i := range 80 {
			r.git("commit", "-q", "--allow-empty", "-m", fmt.Sprint("side ", i))
		}
		mark("side's last")
		r.git("checkout", "-q", "-b", "merged", "linear")
		r.git("merge", "-q", "--no-ff", "-m", "merge", "side")
		r.git("commit", "-q", "--allow-empty", "-m", "after the merge")
		mark("merged")

		r.git("checkout", "-q", "--orphan", "unrelated")
		r.git("rm", "-rfq", ".")
		for i := range 70 {
			r.git("commit", "-q", "--allow-empty", "-m", fmt.Sprint("unrelated ", i))
		}
		r.commit("unrelated", map[string]string{"z.yaml": "z: 1\n"})
		mark("unrelated")
		r.git("branch", "old", ids["far"])
		r.git("tag", "-a", "-m", "a tag", "v1", "linear")
		ids["tag"] = r.git("rev-parse", "v1")
		ids["tree"] = r.git("rev-parse", "linear^{tree}")
		r.git("checkout", "-q", "linear")
	}
	configs := transports(t, build)
	tests := map[string]struct {
		ref      Ref
		ancestor string
		want     bool
	}{
		"itself":                          {Ref{Branch: "linear"}, "linear", true},
		"its parent":                      {Ref{Branch: "linear"}, "parent", true},
		"its grandparent":                 {Ref{Branch: "linear"}, "grandparent", true},
		"one 90 commits before":           {Ref{Branch: "linear"}, "far", true},
		"the first of all":                {Ref{Branch: "linear"}, "root", true},
		"behind a merge, on the branch":   {Ref{Branch: "merged"}, "side's last", true},
		"its first, 81 before":            {Ref{Branch: "merged"}, "side's first", true},
		"behind a merge, on the main":     {Ref{Branch: "merged"}, "grandparent", true},
		"where they part":                 {Ref{Branch: "merged"}, "far", true},
		"an annotated tag's commit":       {Ref{Tag: "v1"}, "far", true},
		"a branch that was not merged":    {Ref{Branch: "linear"}, "side's last", false},
		"pushed by force, unrelated":      {Ref{Branch: "unrelated"}, "linear", false},
		"rolled back":                     {Ref{Branch: "old"}, "linear", false},
		"rolled back by a merge":          {Ref{Branch: "linear"}, "merged", false},
		"one that is nowhere":             {Ref{Branch: "linear"}, "nowhere", false},
		"what is no commit, but a tag":    {Ref{Branch: "linear"}, "tag", false},
		"what is no commit, but a tree":   {Ref{Branch: "linear"}, "tree", false},
		"of a commit by its hash, itself": {Ref{Commit: ids["linear"]}, "far", true},
	}
	for transport, w := range configs {
		for name, tt := range tests {
			t.Run(transport+": "+name, func(t *testing.T) {
				t.Parallel()
				config := w.config
				config.Ref = tt.ref
				s := mustNew(t, config)
				c := mustFetch(t, s)
				got, err := s.Descends(t.Context(), s.Last(), strings.ToUpper(ids[tt.ancestor]))
				if err != nil || got != tt.want {
					t.Errorf("got %v, %v, want %v", got, err, tt.want)
				}
				if s.Last() != c || len(s.known) > 30 {
					t.Errorf("the Source keeps another commit, or %d objects", len(s.known))
				}
				if again, changed, err := s.Fetch(t.Context()); again != c || changed || err != nil {
					t.Errorf("fetched again: %v, %v, %v", again, changed, err)
				}
			})
		}
	}
}

func TestDescendsAfterTheServerForgot(t *testing.T) {
	t.Parallel()
	for transport, w := range transports(t, func(r *repo) { r.commit("gone", nil) }) {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			s := mustNew(t, w.config)
			gone := mustFetch(t, s).Hash
			r := &repo{t: t, dir: w.repo.dir}
			r.git("reset", "-q", "--hard", "HEAD~1")
			r.commit("another", nil)
			r.commit("and one more", nil)
			r.git("reflog", "expire", "--expire=now", "--all")
			r.git("gc", "-q", "--prune=now")
			mustFetch(t, s)
			if got, err := s.Descends(t.Context(), s.Last(), gone); got || err != nil {
				t.Errorf("got %v, %v, want false", got, err)
			}
		})
	}
}

func TestDescendsOverThreeThousandCommits(t *testing.T) {
	t.Parallel()
	var root string
	configs := transports(t, func(r *repo) {
		root = r.git("rev-parse", "HEAD")
		r.importHistory(3000)
		r.git("checkout", "-q", "--orphan", "unrelated")
		r.git("commit", "-q", "-m", "unrelated")
		r.git("checkout", "-q", "main")
	})
	for transport, w := range configs {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			config := w.config
			config.Ref = Ref{Branch: "main"}
			s := mustNew(t, config)
			mustFetch(t, s)
			start := time.Now()
			if got, err := s.Descends(t.Context(), s.Last(), root); !got || err != nil {
				t.Errorf("got %v, %v, want true", got, err)
			}
			unrelated := config
			unrelated.Ref = Ref{Branch: "unrelated"}
			other := mustFetch(t, mustNew(t, unrelated)).Hash
			if got, err := s.Descends(t.Context(), s.Last(), other); got || err != nil {
				t.Errorf("got %v, %v, want false", got, err)
			}
			t.Logf("both answers took %s", time.Since(start).Round(time.Millisecond))

			config.Limits = Limits{UnpackedBytes: 500_000}
			s = mustNew(t, config)
			mustFetch(t, s)
			_, err := s.Descends(t.Context(), s.Last(), root)
			var limit *LimitError
			if !errors.As(err, &limit) || limit.Limit != 500_000 || !strings.Contains(err.Error(), "look for commit "+root+" in its history: ") {
				t.Errorf("got %v, want the limit named", err)
			}
		})
	}
}

func TestDescendsCostsWhatItMust(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	root := r.git("rev-parse", "HEAD")
	r.commit("many", manyFiles(1000))
	r.importHistory(300)
	far := r.git("rev-parse", "HEAD~20")
	s := mustNew(t, Config{URL: server.url("r")})
	c := mustFetch(t, s)
	ask := func(ancestor string, want bool, requests, bytes int64) {
		t.Helper()
		before, sent := server.requests.Load(), server.sent.Load()
		if got, err := s.Descends(t.Context(), s.Last(), ancestor); got != want || err != nil {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if got := server.requests.Load() - before; got != requests {
			t.Errorf("got %d requests, want %d", got, requests)
		}
		if got := server.sent.Load() - sent; got > bytes {
			t.Errorf("got %d bytes, want at most %d", got, bytes)
		}
	}
	ask(c.Hash, true, 0, 0)
	ask(r.git("rev-parse", "HEAD~1"), true, 0, 0)
	ask(far, true, 2, 20_000) // the refs, and 20 commits with what they changed
	ask(root, true, 3, 300_000)
	// What the server does not have it says at once, and we hang up.
	ask(strings.Repeat("ab", 20), false, 2, 1<<20)
	r.git("config", "uploadpack.allowFilter", "true")
	ask(far, true, 2, 10_000) // how well git packs them varies
	ask(root, true, 3, 60_000)
}

func TestDescendsWithoutTheWholeHistory(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	root := r.git("rev-parse", "HEAD")
	for i := range 10 {
		r.commit(fmt.Sprint(i), nil)
	}
	kept := r.git("rev-parse", "HEAD~3")
	other := r.git("commit-tree", "-m", "unrelated", "HEAD^{tree}")
	r.git("branch", "other", other)
	r.git("config", "uploadpack.allowAnySHA1InWant", "true")
	r.git("clone", "-q", "--depth", "5", "--no-single-branch", "file://"+r.dir, server.root+"/shallow")
	for _, url := range []string{server.url("shallow"), server.root + "/shallow"} {
		s := mustNew(t, Config{URL: url, Ref: Ref{Branch: "main"}})
		mustFetch(t, s)
		if got, err := s.Descends(t.Context(), s.Last(), kept); !got || err != nil {
			t.Errorf("got %v, %v, want true", got, err)
		}
		local := mustNew(t, Config{URL: server.root + "/shallow", Ref: Ref{Branch: "main"}})
		mustFetch(t, local)
		if _, err := local.Descends(t.Context(), local.Last(), root); !errors.Is(err, ErrShallow) {
			t.Errorf("got %v, want ErrShallow", err)
		}
	}
	// Over http the server has the other, and its own history ends before the two
	// could meet.
	s := mustNew(t, Config{URL: server.url("shallow"), Ref: Ref{Branch: "main"}})
	mustFetch(t, s)
	(&repo{t: t, dir: server.root + "/shallow"}).git("branch", "other", other)
	if got, err := s.Descends(t.Context(), s.Last(), other); got || !errors.Is(err, ErrShallow) {
		t.Errorf("got %v, %v, want ErrShallow", got, err)
	}
}

func TestDescendsRefuses(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	root := r.git("rev-parse", "HEAD")
	for i := range 3 {
		r.commit(fmt.Sprint(i), nil)
	}
	s := mustNew(t, Config{URL: server.url("r")})
	if _, err := s.Descends(t.Context(), s.Last(), root); !errors.Is(err, ErrNoCommit) {
		t.Errorf("got %v, want ErrNoCommit", err)
	}
	mustFetch(t, s)
	for _, bad := range []string{"", "main", root[:39], root + "0", strings.Repeat("x", 40)} {
		if _, err := s.Descends(t.Context(), s.Last(), bad); err == nil || !strings.Contains(err.Error(), "want all 40 digits of its hash") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	for name, tt := range map[string]struct {
		answer string
		want   error
	}{
		"an error line":         {"0025ERR " + serverText + " " + serverText + " x\n", ErrProtocol},
		"nothing":               {"", ErrProtocol},
		"no pack":               {"00000038ACK " + root + " common\n0031ACK " + root + "\n0000", ErrProtocol},
		"a shallow that is one": {"0035shallow " + root + "\n0000000aNAKxx\n", ErrProtocol},
		"a shallow of nothing":  {"0010shallow xyz\n0000", ErrProtocol},
		"something else":        {"0008abcd0000", ErrProtocol},
	} {
		server.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
			if req.Method != http.MethodPost {
				return false
			}
			w.Header().Set("Content-Type", resultType)
			_, _ = w.Write([]byte(tt.answer))
			return true
		})
		got, err := s.Descends(t.Context(), s.Last(), root)
		if got || !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, tt.want)
		}
		checkQuiet(t, err)
	}
	server.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
		http.Error(w, serverText, http.StatusForbidden)
		return true
	})
	if _, err := s.Descends(t.Context(), s.Last(), root); !errors.Is(err, ErrAuthentication) {
		t.Errorf("got %v, want ErrAuthentication", err)
	}
	server.misbehave(nil)
	if got, err := s.Descends(t.Context(), s.Last(), root); !got || err != nil {
		t.Errorf("got %v, %v afterwards, want true", got, err)
	}
}

// Between Fetch and the question, the branch may have moved. Over http git gives
// what can be reached, over ssh only where a ref stands.
func TestDescendsAfterTheBranchMoved(t *testing.T) {
	t.Parallel()
	for transport, w := range transports(t, func(r *repo) {
		for i := range 3 {
			r.commit(fmt.Sprint(i), nil)
		}
	}) {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			s := mustNew(t, w.config)
			mustFetch(t, s)
			r := &repo{t: t, dir: w.repo.dir}
			root := r.git("rev-parse", "HEAD~3")
			r.commit("moved", nil)
			got, err := s.Descends(t.Context(), s.Last(), root)
			if strings.HasPrefix(transport, "ssh") {
				if got || !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "where no branch or tag stands") {
					t.Errorf("got %v, %v, want an error that says why", got, err)
				}
				return
			}
			if !got || err != nil {
				t.Errorf("got %v, %v, want true", got, err)
			}
		})
	}
}

// A server can not make one commit the ancestor of another.
func TestDescendsBelievesHashesOnly(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	r.commit("one", nil)
	r.commit("two", nil)
	tip := r.git("rev-parse", "HEAD")
	foreign := r.git("commit-tree", "-m", "foreign", "HEAD^{tree}")
	s := mustNew(t, Config{URL: server.url("r")})
	mustFetch(t, s)
	var p packer
	evil := fmt.Appendf(nil, "tree %s\nparent %s\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nevil\n", strings.Repeat("1", 40), foreign)
	p.object(plumbing.CommitObject, evil)
	server.misbehave(func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodPost {
			return false
		}
		w.Header().Set("Content-Type", resultType)
		pack := p.pack()
		_, _ = fmt.Fprintf(w, "0000%04xACK %s\n%04x\x01%s0000", 4+4+41, foreign, len(pack)+5, pack)
		return true
	})
	if got, err := s.Descends(t.Context(), s.Last(), foreign); got || err != nil {
		t.Errorf("got %v, %v for a commit that %s does not name, want false", got, err, tip)
	}
}

func TestParseParents(t *testing.T) {
	t.Parallel()
	a, b := strings.Repeat("a", 40), strings.Repeat("b", 40)
	for data, want := range map[string]string{
		"tree x\nparent " + a + "\nparent " + b + "\nauthor": a + b,
		"tree x\nauthor\nparent " + a + "\n":                 "",
		"tree x\n\nparent " + a + "\n":                       "",
		"tree x\n parent " + a + "\n":                        "",
		"tree x":                                             "error",
		"":                                                   "error",
		"object x\nparent " + a + "\n":                       "error",
		"tree x\nparent " + a[:39] + "\n":                    "error",
		"tree x\nparent " + a + " \n":                        "error",
	} {
		parents, err := parseParents([]byte(data))
		got := ""
		for _, p := range parents {
			got += p.String()
		}
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", data, got, want)
		}
	}
}

// FuzzParseParents: where go-git reads a commit, too, it finds the same parents.
func FuzzParseParents(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		parents, err := parseParents(data)
		if err != nil {
			c.Saw("an error")
			if parents != nil {
				t.Error("parents beside an error")
			}
			return
		}
		c.Saw("parents")
		if decoded, err := decodeCommit(data); err == nil && !slices.Equal(parents, decoded.ParentHashes) {
			t.Errorf("got %v, go-git %v", parents, decoded.ParentHashes)
		}
	})
	c.Reached("an error", "parents")
}

// Of a server without filters come the trees and files, too, mostly as deltas: of
// these nothing is kept.
func TestUnpackCommitsKeepsNothingElse(t *testing.T) {
	t.Parallel()
	var p packer
	ofsDelta := func(base int, instructions []byte) int {
		at := p.header(plumbing.OFSDeltaObject, int64(len(instructions)))
		p.buf.WriteByte(byte(at - base)) // less than 128
		p.deflate(bytes.NewReader(instructions))
		return at
	}
	commit := []byte("tree x\n\ncommit\n")
	commitAt := p.header(plumbing.CommitObject, int64(len(commit)))
	p.deflate(bytes.NewReader(commit))
	ofsDelta(commitAt, append([]byte{byte(len(commit)), 7, 0x90, 6}, 1, '\n'))
	blobAt := p.header(plumbing.BlobObject, 3)
	p.deflate(strings.NewReader("abc"))
	ofsDelta(ofsDelta(blobAt, []byte{3, 3, 0x90, 3}), []byte{3, 3, 0x90, 3})
	u := newUnpacker(Limits{}.withDefaults())
	u.only = plumbing.CommitObject
	got, err := u.unpack(t.Context(), bytes.NewReader(p.pack()))
	if err != nil || len(got) != 2 || len(u.deltas) != 1 {
		t.Errorf("got %d objects and %d deltas, %v, want 2 commits and the delta of one", len(got), len(u.deltas), err)
	}
}

// A branch that goes back and forward again while somebody asks must not vouch for the
// commit that it had gone back to.
func TestDescendsIsAboutTheCommitThatIsNamed(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	old := r.git("rev-parse", "HEAD")
	ahead := r.commit("new", nil)
	s := mustNew(t, Config{URL: r.dir})
	forward := mustFetch(t, s)
	r.git("reset", "-q", "--hard", old)
	back := mustFetch(t, s)
	for _, at := range []string{old, ahead} {
		r.git("reset", "-q", "--hard", at)
		mustFetch(t, s)
		if got, err := s.Descends(t.Context(), back, forward.Hash); got || err != nil {
			t.Errorf("with the branch at %s: got %v, %v, want false: %s is older", at, got, err, old)
		}
	}
}
