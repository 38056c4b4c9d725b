package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustNew(t *testing.T, c Config) *Source {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return s
}

func mustFetch(t *testing.T, s *Source) *Commit {
	t.Helper()
	c, _, err := s.Fetch(t.Context())
	if err != nil {
		t.Fatalf("Fetch: %v", err)
	}
	return c
}

func contentOf(t *testing.T, c *Commit, name string) string {
	t.Helper()
	data, err := c.Tree.ReadFile(name)
	if err != nil {
		t.Fatalf("ReadFile: %v", err)
	}
	return string(data)
}

func TestFetchFindsRefs(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	first := r.git("rev-parse", "HEAD")
	r.git("tag", "light")
	r.git("tag", "-a", "-m", "annotated", "v1")
	r.git("tag", "-a", "-m", "a tag of a tag", "v1-again", "v1")
	r.git("tag", "-a", "-m", "a tag of a tree", "treetag", "HEAD^{tree}")
	r.git("checkout", "-q", "-b", "team/side")
	side := r.commit("side", map[string]string{"apps/a.yaml": "a: side\n"})
	r.git("checkout", "-q", "main")
	second := r.commit("second\n\nbody", map[string]string{"apps/a.yaml": "a: 2\n"})

	tests := map[string]struct {
		ref      Ref
		wantHash string
		wantRef  string
		wantFile string
		wantTag  bool
		wantErr  string
	}{
		"the default branch":             {Ref{}, second, "main@sha1:" + second, "a: 2\n", false, ""},
		"a branch":                       {Ref{Branch: "main"}, second, "main@sha1:" + second, "a: 2\n", false, ""},
		"a branch with a slash":          {Ref{Branch: "team/side"}, side, "team/side@sha1:" + side, "a: side\n", false, ""},
		"a lightweight tag":              {Ref{Tag: "light"}, first, "light@sha1:" + first, "a: 1\n", false, ""},
		"an annotated tag":               {Ref{Tag: "v1"}, first, "v1@sha1:" + first, "a: 1\n", true, ""},
		"a tag of a tag":                 {Ref{Tag: "v1-again"}, first, "v1-again@sha1:" + first, "a: 1\n", true, ""},
		"an advertised commit":           {Ref{Commit: side}, side, "sha1:" + side, "a: side\n", false, ""},
		"a commit in upper case":         {Ref{Commit: strings.ToUpper(side)}, side, "sha1:" + side, "a: side\n", false, ""},
		"a commit that a tag stands for": {Ref{Commit: first}, first, "sha1:" + first, "a: 1\n", false, ""},
		"no such branch":                 {Ref{Branch: "nope"}, "", "", "", false, "branch nope not found"},
		"no such tag":                    {Ref{Tag: "main"}, "", "", "", false, "tag main not found"},
		"a tag of a tree":                {Ref{Tag: "treetag"}, "", "", "", false, "is a tree, not a commit"},
	}
	transports := map[string]string{"http": server.url("r"), "a path": r.dir, "file url": "file://" + r.dir + "/.git"}
	for transport, url := range transports {
		for name, tt := range tests {
			t.Run(transport+": "+name, func(t *testing.T) {
				t.Parallel()
				s := mustNew(t, Config{URL: url, Ref: tt.ref})
				c, changed, err := s.Fetch(t.Context())
				if tt.wantErr != "" {
					if transport != "http" && strings.Contains(tt.wantErr, "is a tree") {
						tt.wantErr = "object not found"
					}
					if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
						t.Fatalf("got error %v, want %q", err, tt.wantErr)
					}
					var missing *RefNotFoundError
					if got, want := errors.As(err, &missing), strings.Contains(tt.wantErr, " not found") && !strings.Contains(tt.wantErr, "object"); got != want {
						t.Errorf("got RefNotFoundError %v, want %v", got, want)
					}
					if c != nil || changed || s.Last() != nil {
						t.Errorf("got commit %v, changed %v, last %v, want nothing", c, changed, s.Last())
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if !changed || s.Last() != c {
					t.Errorf("got changed %v and another Last, want true and the same", changed)
				}
				if c.Hash != tt.wantHash || c.Ref != tt.wantRef {
					t.Errorf("got %s as %s, want %s as %s", c.Hash, c.Ref, tt.wantHash, tt.wantRef)
				}
				if got := contentOf(t, c, "apps/a.yaml"); got != tt.wantFile {
					t.Errorf("got content %q, want %q", got, tt.wantFile)
				}
				if got := c.RawTag != nil; got != tt.wantTag {
					t.Errorf("got a raw tag %v, want %v", got, tt.wantTag)
				}
				if again, changed, err := s.Fetch(t.Context()); again != c || changed || err != nil {
					t.Errorf("got %v, %v, %v on the second fetch, want the same commit", again, changed, err)
				}
			})
		}
	}
}

func TestFetchDescribesTheCommit(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir(), "r")
	r.commit("a \x1b[31mred\x1b[0m subject "+strings.Repeat("x", 300)+"\n\nbody", nil)
	c := mustFetch(t, mustNew(t, Config{URL: r.dir}))
	if c.Author != "Ada" || c.Email != "ada@example.com" {
		t.Errorf("got %s <%s>, want Ada <ada@example.com>", c.Author, c.Email)
	}
	if want := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC); !c.When.Equal(want) {
		t.Errorf("got %v, want %v", c.When, want)
	}
	if !strings.HasPrefix(c.Subject, "a  [31mred [0m subject xxx") || len([]rune(c.Subject)) > maxSubjectRunes {
		t.Errorf("got subject %q, want it without control characters and cut", c.Subject)
	}
	if want := r.git("cat-file", "commit", "HEAD") + "\n"; string(c.Raw) != want {
		t.Errorf("got raw commit %q, want %q", c.Raw, want)
	}
}

func TestFetchUnchangedCostsOneRequest(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	newRepo(t, server.root, "r")
	s := mustNew(t, Config{URL: server.url("r")})
	first := mustFetch(t, s)
	for range 3 {
		before := server.requests.Load()
		c, changed, err := s.Fetch(t.Context())
		if err != nil || changed || c != first {
			t.Fatalf("got %p, %v, %v, want %p unchanged", c, changed, err, first)
		}
		if got := server.requests.Load() - before; got != 1 {
			t.Errorf("got %d requests, want 1", got)
		}
	}
}

func TestFetchOfAPinnedCommitCostsNothingOnceItIsThere(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	s := mustNew(t, Config{URL: server.url("r"), Ref: Ref{Commit: r.git("rev-parse", "HEAD")}})
	mustFetch(t, s)
	before := server.requests.Load()
	mustFetch(t, s)
	if got := server.requests.Load() - before; got != 0 {
		t.Errorf("got %d requests, want 0", got)
	}
}

// manyFiles is a tree of n small files that do not compress into each other.
func manyFiles(n int) map[string]string {
	files := map[string]string{}
	for i := range n {
		files[fmt.Sprintf("dir%02d/file%04d.yaml", i%20, i)] = fmt.Sprintf("value: %x\n", i*7919*7919*7919)
	}
	return files
}

func TestFetchOfOneChangedFileMovesFewBytes(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	ssh := newSSHServer(t)
	ssh.root = server.root
	r := newRepo(t, server.root, "r")
	r.commit("many", manyFiles(1000))
	s := mustNew(t, Config{URL: server.url("r")})
	overSSH := mustNew(t, Config{URL: ssh.url("r"), Credentials: ssh.credentials()})
	mustFetch(t, s)
	mustFetch(t, overSSH)
	full := server.sent.Load()
	if full < 20_000 {
		t.Fatalf("got only %d bytes for the first fetch: the test proves nothing", full)
	}
	for i := range 3 {
		want := fmt.Sprintf("changed: %d\n", i)
		hash := r.commit("one", map[string]string{"dir07/file0007.yaml": want})
		before, requests := server.sent.Load(), server.requests.Load()
		c := mustFetch(t, s)
		if got := server.sent.Load() - before; got > 5_000 {
			t.Errorf("got %d bytes for one changed file, want less than 5000", got)
		}
		if got := server.requests.Load() - requests; got != 2 {
			t.Errorf("got %d requests, want 2", got)
		}
		sessions := ssh.sessions.Load()
		viaSSH := mustFetch(t, overSSH)
		if got := ssh.sessions.Load() - sessions; got != 1 {
			t.Errorf("got %d ssh sessions, want 1", got)
		}
		for _, c := range []*Commit{c, viaSSH} {
			if c.Hash != hash || contentOf(t, c, "dir07/file0007.yaml") != want || len(c.Tree.Files()) != 1002 {
				t.Errorf("got %s with %d files, want %s with 1002", c.Hash, len(c.Tree.Files()), hash)
			}
		}
	}
}

func TestFetchFollowsForcePush(t *testing.T) {
	t.Parallel()
	moves := map[string]func(r *repo){
		"to a sibling": func(r *repo) {
			r.git("reset", "-q", "--hard", "HEAD~1")
			r.commit("sibling", map[string]string{"apps/a.yaml": "a: sibling\n"})
		},
		"to unrelated history": func(r *repo) {
			r.git("checkout", "-q", "--orphan", "other")
			r.git("rm", "-rfq", ".")
			r.commit("unrelated", map[string]string{"z.yaml": "z: 1\n"})
			r.git("branch", "-M", "other", "main")
		},
		"back to an older ancestor": func(r *repo) { r.git("reset", "-q", "--hard", "HEAD~4") },
		"to the same tree":          func(r *repo) { r.git("commit", "-q", "--amend", "-m", "other words") },
		"forward by fifty commits": func(r *repo) {
			for i := range 50 {
				r.git("commit", "-q", "--allow-empty", "-m", fmt.Sprint(i))
			}
			r.commit("last", map[string]string{"apps/a.yaml": "a: last\n"})
		},
		"to a merge": func(r *repo) {
			r.git("checkout", "-q", "-b", "feature", "HEAD~3")
			r.commit("feature", map[string]string{"feature.yaml": "f: 1\n"})
			r.git("checkout", "-q", "main")
			r.git("merge", "-q", "--no-ff", "-m", "merge", "feature")
		},
	}
	for name, move := range moves {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newGitServer(t, plain)
			r := newRepo(t, server.root, "r")
			for i := range 6 {
				r.commit(fmt.Sprint(i), map[string]string{"apps/a.yaml": fmt.Sprintf("a: %d\n", i), fmt.Sprintf("f%d", i): "x"})
			}
			s := mustNew(t, Config{URL: server.url("r"), Ref: Ref{Branch: "main"}})
			mustFetch(t, s)
			move(r)
			c, changed, err := s.Fetch(t.Context())
			if err != nil || !changed {
				t.Fatalf("got changed %v, error %v, want true", changed, err)
			}
			if want := r.git("rev-parse", "main"); c.Hash != want {
				t.Errorf("got %s, want %s", c.Hash, want)
			}
			want := strings.Split(r.git("ls-tree", "-r", "--name-only", "main"), "\n")
			if diff := cmp.Diff(c.Tree.Files(), want); diff != "" {
				t.Errorf("files (-got +want):\n%s", diff)
			}
			for _, f := range want {
				if got, want := strings.TrimSpace(contentOf(t, c, f)), r.git("show", "main:"+f); got != want {
					t.Errorf("%s: got %q, want %q", f, got, want)
				}
			}
		})
	}
}

func TestFetchFollowsAMovedAnnotatedTag(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	r.git("tag", "-a", "-m", "one", "v1")
	s := mustNew(t, Config{URL: server.url("r"), Ref: Ref{Tag: "v1"}})
	mustFetch(t, s)
	hash := r.commit("two", map[string]string{"apps/a.yaml": "a: two\n"})
	r.git("tag", "-f", "-a", "-m", "two", "v1")
	c := mustFetch(t, s)
	if c.Hash != hash || !strings.Contains(string(c.RawTag), "\ntwo\n") {
		t.Errorf("got %s with tag %q, want %s with the new tag", c.Hash, c.RawTag, hash)
	}
	r.git("tag", "-f", "-a", "-m", "signed again", "v1")
	if c := mustFetch(t, s); c.Hash != hash || !strings.Contains(string(c.RawTag), "\nsigned again\n") {
		t.Errorf("got %s with tag %q, want the same commit with the new tag", c.Hash, c.RawTag)
	}
}

func TestFetchKeepsTheLastCommitWhenTheBranchVanishes(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	r.git("branch", "deploy")
	s := mustNew(t, Config{URL: server.url("r"), Ref: Ref{Branch: "deploy"}})
	first := mustFetch(t, s)
	r.git("branch", "-D", "deploy")
	_, _, err := s.Fetch(t.Context())
	var missing *RefNotFoundError
	if !errors.As(err, &missing) || missing.Ref != "branch deploy" {
		t.Fatalf("got %v, want RefNotFoundError for branch deploy", err)
	}
	if s.Last() != first || contentOf(t, s.Last(), "README") != "hello\n" {
		t.Error("the last commit was lost")
	}
	r.git("branch", "deploy")
	if c, changed, err := s.Fetch(t.Context()); c != first || changed || err != nil {
		t.Errorf("got %v, %v, %v after the branch came back, want the same commit", c, changed, err)
	}
}

func TestFetchOfEmptyAndHeadlessRepositories(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	empty := newRepo(t, server.root, "empty")
	empty.git("update-ref", "-d", "refs/heads/main")
	headless := newRepo(t, server.root, "headless")
	headless.git("symbolic-ref", "HEAD", "refs/heads/gone")
	detached := newRepo(t, server.root, "detached")
	detached.git("checkout", "-q", "--detach")
	for name, want := range map[string]string{"empty": "the repository is empty", "headless": "name a branch"} {
		_, _, err := mustNew(t, Config{URL: server.url(name)}).Fetch(t.Context())
		var missing *RefNotFoundError
		if !errors.As(err, &missing) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want RefNotFoundError with %q", name, err, want)
		}
	}
	if c := mustFetch(t, mustNew(t, Config{URL: server.url("detached")})); c.Ref != "HEAD@sha1:"+c.Hash {
		t.Errorf("got ref %s, want HEAD@sha1:%s", c.Ref, c.Hash)
	}
}

func TestFetchOfACommitByHash(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		allow   string
		pick    func(r *repo) string
		limits  Limits
		wantErr string
		sshOnly bool // over http, git gives what is reachable in any case
	}{
		"reachable, and the server gives any":       {allow: "true", pick: func(r *repo) string { return r.git("rev-parse", "HEAD~2") }},
		"reachable, and the server refuses":         {allow: "false", pick: func(r *repo) string { return r.git("rev-parse", "HEAD~2") }},
		"on another branch, and the server refuses": {allow: "false", pick: func(r *repo) string { return r.git("rev-parse", "side~1") }},
		"unreachable, and the server refuses": {allow: "false", pick: func(r *repo) string {
			return r.git("commit-tree", "-m", "loose", "HEAD^{tree}")
		}, wantErr: "uploadpack.allowReachableSHA1InWant"},
		"nowhere": {allow: "true", pick: func(*repo) string { return strings.Repeat("ab", 20) }, wantErr: "not found"},
		"reachable in too much history": {allow: "false", pick: func(r *repo) string { return r.git("rev-parse", "HEAD~2") },
			limits: Limits{UnpackedBytes: 6000}, wantErr: "uploadpack.allowReachableSHA1InWant is not set", sshOnly: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, ssh := newGitServer(t, plain), newSSHServer(t)
			ssh.root = server.root
			r := newRepo(t, server.root, "r")
			r.git("config", "uploadpack.allowAnySHA1InWant", tt.allow)
			for i := range 5 {
				r.commit(fmt.Sprint(i), map[string]string{"n": fmt.Sprint(i)})
			}
			r.git("checkout", "-q", "-b", "side")
			r.commit("side 1", map[string]string{"n": "side 1"})
			r.commit("side 2", map[string]string{"n": "side 2"})
			r.git("checkout", "-q", "main")
			hash := tt.pick(r)
			for _, config := range []Config{
				{URL: server.url("r"), Ref: Ref{Commit: hash}, Limits: tt.limits},
				{URL: ssh.url("r"), Ref: Ref{Commit: hash}, Limits: tt.limits, Credentials: ssh.credentials()},
			} {
				c, _, err := mustNew(t, config).Fetch(t.Context())
				if tt.wantErr != "" && !(tt.sshOnly && config.Credentials.SSHKey.IsZero()) {
					if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
						t.Errorf("got %v, want %q", err, tt.wantErr)
					}
					checkQuiet(t, err)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got, want := contentOf(t, c, "n"), r.git("show", hash+":n"); c.Hash != hash || got != want {
					t.Errorf("got %s with %q, want %s with %q", c.Hash, got, hash, want)
				}
			}
		})
	}
}

func TestFetchKeepsMemoryFlat(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	s := mustNew(t, Config{URL: server.url("r")})
	mustFetch(t, s)
	want := len(s.known)
	for i := range 30 {
		r.commit("next", map[string]string{"apps/a.yaml": fmt.Sprintf("a: next %d\n", i)})
		mustFetch(t, s)
		if len(s.known) != want {
			t.Fatalf("got %d objects after %d fetches, want %d as after the first", len(s.known), i+1, want)
		}
	}
}

func TestFetchStartsAnewWhenTheIncrementalOneFails(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	r.commit("big", map[string]string{"apps/long.yaml": strings.Repeat("a line that makes a delta worthwhile\n", 200)})
	s := mustNew(t, Config{URL: server.url("r")})
	mustFetch(t, s)
	hash := r.commit("next", map[string]string{"apps/long.yaml": strings.Repeat("a line that makes a delta worthwhile\n", 200) + "end\n"})
	s.known = objects{}           // as if it were damaged: the thin pack stands on nothing
	s.refused = &refusedContent{} // of another commit, in the past
	before := server.requests.Load()
	if c := mustFetch(t, s); c.Hash != hash {
		t.Errorf("got %s, want %s", c.Hash, hash)
	}
	if got := server.requests.Load() - before; got != 3 {
		t.Errorf("got %d requests, want 3: refs, incremental, anew", got)
	}
}

func TestFetchAsksOnceForARefusedCommit(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	s := mustNew(t, Config{URL: server.url("r")})
	first := mustFetch(t, s)
	link(r, "/etc/passwd", "evil")
	evil := r.commit("evil", nil)
	for i, want := range []int64{2, 1, 1} {
		before := server.requests.Load()
		_, _, err := s.Fetch(t.Context())
		var symlink *SymlinkError
		if !errors.As(err, &symlink) || s.Last() != first {
			t.Fatalf("got %v, want SymlinkError and the last commit kept", err)
		}
		if got := server.requests.Load() - before; got != want {
			t.Errorf("fetch %d: got %d requests, want %d", i, got, want)
		}
	}
	pinned := mustNew(t, Config{URL: server.url("r"), Ref: Ref{Commit: evil}})
	for i, want := range []int64{2, 0} {
		before := server.requests.Load()
		if _, _, err := pinned.Fetch(t.Context()); err == nil {
			t.Fatal("the pinned commit was accepted")
		}
		if got := server.requests.Load() - before; got != want {
			t.Errorf("pinned fetch %d: got %d requests, want %d", i, got, want)
		}
	}
	r.git("rm", "-q", "evil")
	hash := r.commit("repaired", nil)
	if c := mustFetch(t, s); c.Hash != hash {
		t.Errorf("got %s, want %s", c.Hash, hash)
	}
}

func TestFetchRecoversWithoutANewSource(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	s := mustNew(t, Config{URL: server.url("r"), Timeout: 5 * time.Second})
	first := mustFetch(t, s)
	for name, bad := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"ill": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, serverText, http.StatusBadGateway)
			return true
		},
		"gone": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		server.misbehave(bad)
		if _, _, err := s.Fetch(t.Context()); !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), serverText) {
			t.Errorf("%s: got %v, want ErrUnreachable without the server's words", name, err)
		}
		if s.Last() != first {
			t.Errorf("%s: the last commit was lost", name)
		}
	}
	server.misbehave(nil)
	hash := r.commit("back", map[string]string{"apps/a.yaml": "a: back\n"})
	if c := mustFetch(t, s); c.Hash != hash {
		t.Errorf("got %s, want %s", c.Hash, hash)
	}
}

func TestFetchStopsOnCancelAndTimeout(t *testing.T) {
	t.Parallel()
	hang := func(stage string) func(t *testing.T) Config {
		return func(t *testing.T) Config {
			server := newGitServer(t, plain)
			newRepo(t, server.root, "r")
			server.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPost { // or the server does not notice that we went away
					_, _ = io.Copy(io.Discard, r.Body)
				}
				switch {
				case stage == "refs" && r.Method == http.MethodGet, stage == "pack" && r.Method == http.MethodPost:
					<-r.Context().Done()
					return true
				case stage == "body" && r.Method == http.MethodPost:
					w.Header().Set("Content-Type", resultType)
					fmt.Fprint(w, "0000") // flushed below: a shallow section and then nothing
					w.(http.Flusher).Flush()
					<-r.Context().Done()
					return true
				}
				return false
			})
			return Config{URL: server.url("r")}
		}
	}
	stages := map[string]func(t *testing.T) Config{
		"http that is mute at the refs":   hang("refs"),
		"http that is mute at the pack":   hang("pack"),
		"http that is mute in the answer": hang("body"),
		"tcp that is mute under http":     func(t *testing.T) Config { return Config{URL: "http://" + muteServer(t) + "/r"} },
		"tcp that is mute under https":    func(t *testing.T) Config { return Config{URL: "https://" + muteServer(t) + "/r"} },
		"tcp that is mute under ssh": func(t *testing.T) Config {
			addr := muteServer(t)
			host, key := newKey(t)
			return Config{URL: "ssh://git@" + addr + "/r", Credentials: Credentials{SSHKey: key, KnownHosts: knownHostsFor(addr, host)}}
		},
		"ssh that is mute after the command": func(t *testing.T) Config { return muteSSH(t) },
	}
	for name, setup := range stages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := setup(t)
			config.Timeout = 300 * time.Millisecond
			start := time.Now()
			_, _, err := mustNew(t, config).Fetch(t.Context())
			if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "not done within 300ms") {
				t.Errorf("got %v, want ErrUnreachable after the timeout", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v, want about 300 ms", took)
			}
			config.Timeout = time.Minute
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(200*time.Millisecond, cancel)
			start = time.Now()
			_, _, err = mustNew(t, config).Fetch(ctx)
			if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnreachable) {
				t.Errorf("got %v, want context.Canceled alone", err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v after cancel", took)
			}
		})
	}
}

func TestFetchLeavesNoGoroutinesAfterTimeouts(t *testing.T) {
	// Not parallel: it counts goroutines.
	addr := muteServer(t)
	host, key := newKey(t)
	s := mustNew(t, Config{
		URL: "ssh://git@" + addr + "/r", Timeout: 50 * time.Millisecond,
		Credentials: Credentials{SSHKey: key, KnownHosts: knownHostsFor(addr, host)},
	})
	before := runtime.NumGoroutine()
	for range 10 {
		if _, _, err := s.Fetch(t.Context()); err == nil {
			t.Fatal("got no error from a mute server")
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before+2 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if got := runtime.NumGoroutine(); got > before+2 {
		t.Errorf("got %d goroutines, had %d before ten fetches", got, before)
	}
}

func TestFetchIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	s := mustNew(t, Config{URL: server.url("r")})
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			c, _, err := s.Fetch(t.Context())
			if err == nil && c.Hash != r.git("rev-parse", "HEAD") {
				err = errors.New("wrong commit")
			}
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
