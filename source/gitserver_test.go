package source

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/gitseal/gitseal/crypto"
)

var gitEnv = []string{
	"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
	"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0",
	"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_AUTHOR_DATE=2024-05-06T07:08:09Z",
	"GIT_COMMITTER_NAME=Bob", "GIT_COMMITTER_EMAIL=bob@example.com", "GIT_COMMITTER_DATE=2024-05-06T07:08:10Z",
}

// repo is a repository with a working copy, made by the real git.
type repo struct {
	t   *testing.T
	dir string
}

// newRepo makes root/name.git with branch main and one commit.
func newRepo(t *testing.T, root, name string) *repo {
	t.Helper()
	r := &repo{t: t, dir: filepath.Join(root, name)}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("init", "-q", "-b", "main")
	r.git("config", "core.autocrlf", "false")
	r.git("config", "gc.auto", "0")
	r.commit("first", map[string]string{"README": "hello\n", "apps/a.yaml": "a: 1\n"})
	return r
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	return r.gitInput(nil, args...)
}

func (r *repo) gitInput(stdin io.Reader, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = r.dir, gitEnv, stdin
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("git %v: %v\n%s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// write puts files into the working copy.
func (r *repo) write(files map[string]string) {
	r.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		p := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(files[name]), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
}

// commit writes files, commits everything and returns the hash.
func (r *repo) commit(message string, files map[string]string) string {
	r.t.Helper()
	r.write(files)
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", message)
	return r.git("rev-parse", "HEAD")
}

// gitServer is git http-backend behind a handler that can be told to misbehave.
type gitServer struct {
	*httptest.Server
	root     string
	requests atomic.Int64
	sent     atomic.Int64 // bytes of response bodies

	mu        sync.Mutex
	intercept func(w http.ResponseWriter, r *http.Request) bool // true: answered
	headers   []http.Header                                     // of all requests
}

type tlsMode bool

const (
	plain   tlsMode = false
	withTLS tlsMode = true
)

func newGitServer(t *testing.T, mode tlsMode) *gitServer {
	t.Helper()
	s := &gitServer{root: t.TempDir()}
	execPath, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{
		Path:   filepath.Join(strings.TrimSpace(string(execPath)), "git-http-backend"),
		Env:    append([]string{"GIT_PROJECT_ROOT=" + s.root, "GIT_HTTP_EXPORT_ALL=1"}, gitEnv...),
		Stderr: io.Discard,
		Logger: log.New(io.Discard, "", 0),
	}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.mu.Lock()
		s.headers = append(s.headers, r.Header.Clone())
		intercept := s.intercept
		s.mu.Unlock()
		counted := &countingWriter{ResponseWriter: w, n: &s.sent}
		if intercept != nil && intercept(counted, r) {
			return
		}
		backend.ServeHTTP(counted, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if mode == withTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *gitServer) url(name string) string { return s.URL + "/" + name + "/.git" }

func (s *gitServer) misbehave(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

func (s *gitServer) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func (s *gitServer) authorizations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var got []string
	for _, h := range s.headers {
		got = append(got, h.Get("Authorization"))
	}
	return got
}

// refuseUnless answers with status and a chatty body unless ok.
func refuseUnless(ok func(*http.Request) bool, status int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if ok(r) {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, serverText+" you sent "+r.Header.Get("Authorization"), status)
		return true
	}
}

// serverText is what the servers say; no error may repeat it.
const serverText = "SERVERTEXT"

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n.Add(int64(n))
	return n, err
}

func (w *countingWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// sshServer runs git-upload-pack for one user key.
type sshServer struct {
	addr       string
	root       string
	hostKey    ssh.Signer
	user       crypto.Secret // private key that is let in
	sessions   atomic.Int64
	commands   []string
	mu         sync.Mutex
	handleExec func(ch ssh.Channel, command string) bool // true: handled
}

func newKey(t *testing.T) (ssh.Signer, crypto.Secret) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, crypto.NewSecret(pem.EncodeToMemory(block))
}

func newSSHServer(t *testing.T) *sshServer {
	t.Helper()
	s := &sshServer{root: t.TempDir()}
	s.hostKey, _ = newKey(t)
	userKey, private := newKey(t)
	s.user = private
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() == "git" && bytes.Equal(key.Marshal(), userKey.PublicKey().Marshal()) {
				return nil, nil
			}
			return nil, fmt.Errorf("%s", serverText)
		},
	}
	config.AddHostKey(s.hostKey)
	l := listen(t)
	s.addr = l.Addr().String()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { s.serve(conn, config) })
		}
	})
	return s
}

func (s *sshServer) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	defer server.Close()
	go ssh.DiscardRequests(requests)
	for c := range channels {
		ch, requests, err := c.Accept()
		if err != nil {
			return
		}
		for req := range requests {
			if req.Type != "exec" {
				_ = req.Reply(false, nil)
				continue
			}
			var payload struct{ Command string }
			_ = ssh.Unmarshal(req.Payload, &payload)
			_ = req.Reply(true, nil)
			s.exec(ch, payload.Command)
			break
		}
		_ = ch.Close()
	}
}

func (s *sshServer) exec(ch ssh.Channel, command string) {
	s.sessions.Add(1)
	s.mu.Lock()
	s.commands = append(s.commands, command)
	handle := s.handleExec
	s.mu.Unlock()
	if handle != nil && handle(ch, command) {
		return
	}
	path := strings.Trim(strings.TrimPrefix(command, "git-upload-pack "), "'")
	cmd := exec.Command("git", "upload-pack", filepath.Join(s.root, path))
	cmd.Env, cmd.Stdout, cmd.Stderr = gitEnv, ch, ch.Stderr()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	go func() { // Run would wait for the client to close its side
		_, _ = io.Copy(stdin, ch)
		_ = stdin.Close()
	}()
	status := uint32(0)
	if err := cmd.Run(); err != nil {
		status = 128
	}
	_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

func (s *sshServer) url(name string) string { return "ssh://git@" + s.addr + "/" + name }

func (s *sshServer) knownHosts() []byte { return knownHostsFor(s.addr, s.hostKey) }

func knownHostsFor(addr string, key ssh.Signer) []byte {
	return []byte("# a comment\n\n" + knownhosts.Line([]string{addr}, key.PublicKey()) + "\n")
}

func (s *sshServer) credentials() Credentials {
	return Credentials{SSHKey: s.user, KnownHosts: s.knownHosts()}
}

// muteServer accepts connections and says nothing.
func muteServer(t *testing.T) string {
	t.Helper()
	l := listen(t)
	var mu sync.Mutex
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		for _, c := range conns {
			_ = c.Close()
		}
	})
	return l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// rawServer sends the same bytes to everyone.
func rawServer(t *testing.T, answer string) string {
	t.Helper()
	l := listen(t)
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.WriteString(c, answer)
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	return l.Addr().String()
}
