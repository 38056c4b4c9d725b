package harness

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// git runs git as a client that knows nothing but env.
func git(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Env = append(GitEnv(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRepoIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	build := func() (*Repo, []string) {
		r := NewRepo(t, t.TempDir(), "app")
		r.Write("a/b.yaml", "one\n")
		first := r.Commit("first")
		r.Tag("light")
		r.AnnotatedTag("heavy", "a tag")
		r.Branch("side")
		r.Remove("a")
		second := r.Commit("second")
		r.Checkout(MainBranch)
		return r, []string{first, second}
	}
	r, hashes := build()
	_, again := build()
	if diff := cmp.Diff(hashes, again); diff != "" {
		t.Errorf("hashes differ:\n%s", diff)
	}
	refs := r.Git("--git-dir", r.Bare, "for-each-ref", "--format=%(objecttype) %(refname)")
	want := "commit refs/heads/main\ncommit refs/heads/side\ntag refs/tags/heavy\ncommit refs/tags/light"
	if refs != want {
		t.Errorf("got refs\n%s\nwant\n%s", refs, want)
	}
	if r.Head() != hashes[0] {
		t.Errorf("got head %s, want %s", r.Head(), hashes[0])
	}
}

func TestForcePushOrphanReplacesHistory(t *testing.T) {
	t.Parallel()
	r := NewRepo(t, t.TempDir(), "app")
	r.Write("old", "old\n")
	r.Commit("old")
	orphan := r.ForcePushOrphan("new", map[string]string{"new": "new\n"})
	got := r.Git("--git-dir", r.Bare, "log", "--format=%H %s", "--name-only", MainBranch)
	if want := orphan + " new\n\nnew"; got != want {
		t.Errorf("got log\n%s\nwant\n%s", got, want)
	}
}

func TestRepoKeepsItsFirstErrorOutsideOfTests(t *testing.T) {
	t.Parallel()
	r, err := CreateRepo(t.Context(), t.TempDir(), "app")
	if err != nil {
		t.Fatal(err)
	}
	r.Git("no-such-command")
	r.Write("a", "a")
	r.Remove("missing")
	if hash := r.Commit("never"); hash != "" || r.Err() == nil || !strings.Contains(r.Err().Error(), "no-such-command") {
		t.Errorf("got commit %q and error %v, want none and the first error", hash, r.Err())
	}
}

func TestGitOverHTTP(t *testing.T) {
	t.Parallel()
	basic := GitHTTPConfig{Username: "me", Password: "right"}
	tests := map[string]struct {
		config GitHTTPConfig
		user   string // of the URL
		header string // sent by the client
		noCA   bool
		want   string // part of the error; empty for success
	}{
		"anyone":                       {},
		"basic, right password":        {config: basic, user: "me:right@"},
		"basic, wrong password":        {config: basic, user: "me:wrong@", want: "Authentication failed"},
		"basic, no password":           {config: basic, want: "could not read Username"},
		"bearer, right token":          {config: GitHTTPConfig{Token: "tok"}, header: "Authorization: Bearer tok"},
		"bearer, wrong token":          {config: GitHTTPConfig{Token: "tok"}, header: "Authorization: Bearer no", want: "could not read Username"},
		"TLS, authority trusted":       {config: GitHTTPConfig{TLS: true}},
		"TLS, authority not trusted":   {config: GitHTTPConfig{TLS: true}, noCA: true, want: "certificate"},
		"TLS and basic authentication": {config: GitHTTPConfig{TLS: true, Username: "me", Password: "right"}, user: "me:right@"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			r := NewRepo(t, root, "app")
			r.Write("a.yaml", "one\n")
			first := r.Commit("first")
			test.config.Root = root
			s := NewGitHTTP(t, test.config)

			var env []string
			if !test.noCA && s.CA != nil {
				env = append(env, "GIT_SSL_CAINFO="+writeFile(t, s.CA))
			}
			var options []string
			if test.header != "" {
				options = []string{"-c", "http.extraHeader=" + test.header}
			}
			url := strings.Replace(s.RepoURL("app"), "://", "://"+test.user, 1)
			clone := filepath.Join(t.TempDir(), "clone")
			out, err := git(t, env, append(options, "clone", url, clone)...)
			if test.want != "" {
				if err == nil || !strings.Contains(out, test.want) {
					t.Errorf("clone: got %q, %v; want an error with %q", out, err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatalf("clone: %v\n%s", err, out)
			}
			// More than http.postBuffer (1 MiB), so that the push is chunked.
			pushFrom(t, append(env, "GIT_DIR="+clone+"/.git", "GIT_WORK_TREE="+clone), options)
			if now := r.Git("ls-remote", "origin", "refs/heads/main"); strings.HasPrefix(now, first) {
				t.Error("the push has not arrived")
			}
		})
	}
}

// pushFrom commits 3 MiB that do not compress to the clone that env names, and
// pushes it.
func pushFrom(t *testing.T, env, options []string) {
	t.Helper()
	worktree := strings.TrimPrefix(env[len(env)-1], "GIT_WORK_TREE=")
	noise := make([]byte, 3<<20)
	source := rand.NewChaCha8([32]byte{})
	if _, err := source.Read(noise); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(worktree, "noise"), noise, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"add", "--all"},
		{"-c", "user.name=n", "-c", "user.email=e@example.com", "commit", "--quiet", "--message", "pushed"},
		append(slices.Clone(options), "push", "--quiet", "origin", "HEAD"),
	} {
		if out, err := git(t, env, args...); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
}

func TestGitHTTPRecordsFailsAndRecovers(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := NewRepo(t, root, "app")
	head := r.Commit("first")
	s := NewGitHTTP(t, GitHTTPConfig{Root: root})
	url := s.RepoURL("app")
	list := func() (string, error) { return git(t, nil, "ls-remote", url, "refs/heads/main") }

	if out, err := list(); err != nil || !strings.HasPrefix(out, head) {
		t.Errorf("got %q, %v; want %s", out, err, head)
	}
	got := s.Requests()
	for i := range got {
		got[i].UserAgent = ""
	}
	want := []GitRequest{
		{Method: "GET", Path: "/app.git/info/refs", Query: "service=git-upload-pack", Protocol: "version=2", Status: 200},
		{Method: "POST", Path: "/app.git/git-upload-pack", Protocol: "version=2", Status: 200},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	s.SetDown(true)
	if out, err := list(); err == nil {
		t.Errorf("down: got %q, want an error", out)
	}
	s.SetDown(false)
	s.SetHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	if out, err := list(); err == nil || !strings.Contains(out, "503") {
		t.Errorf("with a handler: got %q, %v; want an error with 503", out, err)
	}
	s.SetHandler(nil)
	s.ResetRequests()
	if out, err := list(); err != nil || len(s.Requests()) != 2 {
		t.Errorf("up again: got %q, %v and %d requests; want none of the errors and 2", out, err, len(s.Requests()))
	}
}

func TestGitOverSSH(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	r := NewRepo(t, root, "app")
	r.Write("a.yaml", "one\n")
	first := r.Commit("first")
	s := NewGitSSH(t, root)
	wrong, err := NewSSHKey()
	if err != nil {
		t.Fatal(err)
	}
	clone := filepath.Join(t.TempDir(), "clone")

	if out, err := git(t, sshEnv(t, s, wrong), "clone", s.RepoURL("app"), clone); err == nil || !strings.Contains(out, "unable to authenticate") {
		t.Errorf("wrong key: got %q, %v; want an error about it", out, err)
	}
	env := sshEnv(t, s, s.PrivateKey)
	if out, err := git(t, env, "clone", s.RepoURL("../app"), clone); err == nil {
		t.Errorf("a path out of the root: got %q, want an error", out)
	}
	if out, err := git(t, env, "clone", s.RepoURL("app"), clone); err != nil {
		t.Fatalf("right key: %v\n%s", err, out)
	}
	pushFrom(t, append(env, "GIT_DIR="+clone+"/.git", "GIT_WORK_TREE="+clone), nil)
	if now := r.Git("ls-remote", "origin", "refs/heads/main"); strings.HasPrefix(now, first) {
		t.Error("the push has not arrived")
	}
}

func TestAMuteSSHServerSaysNothing(t *testing.T) {
	t.Parallel()
	s := NewGitSSH(t, t.TempDir())
	s.SetMute(true)
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes, %v; want a timeout", n, err)
	}
}

func writeFile(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sshClientEnv, when set, makes this test binary an SSH client for git, so that
// the tests need none from the machine. Its value is the path of the key.
const sshClientEnv = "GITSEAL_TEST_SSH_KEY"

const knownHostsEnv = "GITSEAL_TEST_KNOWN_HOSTS"

func sshEnv(t *testing.T, s *GitSSH, key []byte) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"GIT_SSH=" + self,
		"GIT_SSH_VARIANT=ssh",
		sshClientEnv + "=" + writeFile(t, key),
		knownHostsEnv + "=" + writeFile(t, []byte(s.KnownHosts)),
	}
}

// sshClient understands what git passes to ssh: [-o SendEnv=...] [-p PORT]
// USER@HOST COMMAND.
func sshClient(args []string) int {
	flags := map[string]string{"-p": "22"}
	for len(args) > 2 && strings.HasPrefix(args[0], "-") {
		maps.Copy(flags, map[string]string{args[0]: args[1]})
		args = args[2:]
	}
	if err := sshRun(args, flags["-p"]); err != nil {
		fmt.Fprintln(os.Stderr, "ssh client:", err)
		return 255
	}
	return 0
}

func sshRun(args []string, port string) error {
	if len(args) != 2 {
		return fmt.Errorf("got arguments %q", args)
	}
	key, err := os.ReadFile(os.Getenv(sshClientEnv))
	if err != nil {
		return err
	}
	signer, err := ssh.ParsePrivateKey(key)
	if err != nil {
		return err
	}
	hosts, err := knownhosts.New(os.Getenv(knownHostsEnv))
	if err != nil {
		return err
	}
	user, host, _ := strings.Cut(args[0], "@")
	client, err := ssh.Dial("tcp", net.JoinHostPort(host, port), &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: hosts,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	_ = session.Setenv("GIT_PROTOCOL", os.Getenv("GIT_PROTOCOL")) // as ssh, that does not insist
	stdin, err := session.StdinPipe()
	if err != nil {
		return err
	}
	session.Stdout, session.Stderr = os.Stdout, os.Stderr
	go func() {
		_, _ = io.Copy(stdin, os.Stdin) // git says what it misses
		stdin.Close()
	}()
	return session.Run(args[1])
}
