package harness

import (
	"bytes"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/cgi"
	"os/exec"
	"slices"
	"sync"
	"testing"
)

// GitHTTPConfig describes a git server. Without Username and Token anyone may
// read and push; with either, requests need one of them.
type GitHTTPConfig struct {
	Root     string // folder of bare repositories
	Username string // for basic authentication
	Password string
	Token    string // for bearer authentication
	TLS      bool   // serve HTTPS with a certificate from an authority of its own
}

// GitHTTP is a git server over HTTP or HTTPS, on loopback: "git http-backend"
// behind net/http. Its methods may be called from any goroutine.
type GitHTTP struct {
	URL string // without a slash at the end
	CA  []byte // in PEM, what clients have to trust; nil without TLS

	config   GitHTTPConfig
	backend  *cgi.Handler
	server   *http.Server
	listener *switchedListener

	mu       sync.Mutex
	requests []GitRequest
	override http.Handler // nil when git answers
}

// GitRequest is one HTTP request to a git server, without its credentials.
type GitRequest struct {
	Method    string
	Path      string
	Query     string // such as service=git-upload-pack
	Protocol  string // header Git-Protocol, such as version=2
	UserAgent string
	Status    int // 0 when the connection was dropped
}

// StartGitHTTP serves the repositories below config.Root until Close.
func StartGitHTTP(config GitHTTPConfig) (*GitHTTP, error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &GitHTTP{
		URL:      "http://" + l.Addr().String(),
		config:   config,
		listener: &switchedListener{Listener: l},
		backend: &cgi.Handler{
			Path:   git,
			Args:   []string{"http-backend"},
			Env:    append(GitEnv(), "GIT_PROJECT_ROOT="+config.Root, "GIT_HTTP_EXPORT_ALL=1"),
			Stderr: io.Discard, // clients get the message too
			Logger: log.New(io.Discard, "", 0),
		},
	}
	s.server = &http.Server{Handler: http.HandlerFunc(s.serve), ErrorLog: log.New(io.Discard, "", 0)}
	served := net.Listener(s.listener)
	if config.TLS {
		certificate, ca, err := loopbackCertificate()
		if err != nil {
			l.Close()
			return nil, err
		}
		s.URL, s.CA = "https://"+l.Addr().String(), ca
		served = tls.NewListener(served, &tls.Config{
			Certificates: []tls.Certificate{certificate},
			NextProtos:   []string{"http/1.1"},
			MinVersion:   tls.VersionTLS12,
		})
	}
	go func() { _ = s.server.Serve(served) }() // returns when Close is called
	return s, nil
}

// NewGitHTTP is StartGitHTTP for the length of a test.
func NewGitHTTP(t testing.TB, config GitHTTPConfig) *GitHTTP {
	t.Helper()
	s, err := StartGitHTTP(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// RepoURL returns the URL of the repository with this name, without credentials.
func (s *GitHTTP) RepoURL(name string) string { return s.URL + "/" + name + ".git" }

// Close stops serving and drops the connections.
func (s *GitHTTP) Close() { _ = s.server.Close() }

// SetDown makes the server drop every connection, new or kept alive, before it
// says a word; or work again. The port stays ours.
func (s *GitHTTP) SetDown(down bool) { s.listener.setDown(down) }

// SetHandler makes h answer every request in place of git, before any check of
// credentials: to redirect, to fail with a status, to send what no git server
// should. nil ends that.
func (s *GitHTTP) SetHandler(h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.override = h
}

// Requests returns the requests since the start or the last ResetRequests, those
// under way not included, in the order in which they ended.
func (s *GitHTTP) Requests() []GitRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// ResetRequests forgets the requests so far.
func (s *GitHTTP) ResetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

func (s *GitHTTP) serve(w http.ResponseWriter, r *http.Request) {
	recorder := &statusRecorder{ResponseWriter: w}
	defer func() { // deferred, as a handler may panic with http.ErrAbortHandler
		s.mu.Lock()
		defer s.mu.Unlock()
		s.requests = append(s.requests, GitRequest{
			Method:    r.Method,
			Path:      r.URL.Path,
			Query:     r.URL.RawQuery,
			Protocol:  r.Header.Get("Git-Protocol"),
			UserAgent: r.UserAgent(),
			Status:    recorder.status,
		})
	}()
	s.mu.Lock()
	override := s.override
	s.mu.Unlock()
	switch {
	case s.listener.isDown(): // a kept connection
		panic(http.ErrAbortHandler)
	case override != nil:
		override.ServeHTTP(recorder, r)
	case !s.authorized(r):
		recorder.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(recorder, "unauthorized", http.StatusUnauthorized)
	default:
		s.git(recorder, r)
	}
}

func (s *GitHTTP) authorized(r *http.Request) bool {
	if s.config.Username == "" && s.config.Token == "" {
		return true
	}
	if username, password, ok := r.BasicAuth(); ok {
		return s.config.Username != "" && same(username, s.config.Username) && same(password, s.config.Password)
	}
	return s.config.Token != "" && same(r.Header.Get("Authorization"), "Bearer "+s.config.Token)
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// git runs git http-backend. CGI has no chunked requests, which git uses for
// large pushes, so those are read into memory first.
func (s *GitHTTP) git(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength < 0 {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, fmt.Sprintf("read the request: %v", err), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		r.TransferEncoding = nil
	}
	s.backend.ServeHTTP(w, r)
}

// statusRecorder keeps the status of a response.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *statusRecorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// switchedListener drops new connections while it is down.
type switchedListener struct {
	net.Listener
	mu   sync.Mutex
	down bool
}

func (l *switchedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !l.isDown() {
			return conn, err
		}
		conn.Close()
	}
}

func (l *switchedListener) setDown(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

func (l *switchedListener) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}
