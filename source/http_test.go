package source

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gitseal/gitseal/crypto"
)

const (
	canaryPassword = "CANARY-pass:word/42"
	canaryToken    = "CANARY-token-42"
)

// checkQuiet fails when the error repeats a credential or the server.
func checkQuiet(t *testing.T, err error) {
	t.Helper()
	for _, format := range []string{"%v", "%+v", "%#v", "%q"} {
		text := fmt.Sprintf(format, err)
		for _, canary := range []string{"CANARY", "Q0FOQVJZ", serverText} {
			if strings.Contains(text, canary) {
				t.Errorf("the error printed by %s holds %s: %s", format, canary, text)
			}
		}
	}
	if err != nil && (!strings.HasPrefix(err.Error(), "fetch ") || strings.Contains(err.Error(), "\n")) {
		t.Errorf("got error %q, want one line that starts with fetch", err)
	}
}

func TestHTTPCredentials(t *testing.T) {
	t.Parallel()
	basic := func(r *http.Request) bool {
		u, p, ok := r.BasicAuth()
		return ok && u == "me" && p == canaryPassword
	}
	bearer := func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+canaryToken }
	tests := map[string]struct {
		server  func(*http.Request) bool
		status  int
		sent    Credentials
		wantErr error
		want    string
	}{
		"right password": {server: basic, sent: Credentials{Username: "me", Password: crypto.NewSecretString(canaryPassword)}},
		"wrong password": {basic, 401, Credentials{Username: "me", Password: crypto.NewSecretString("CANARY-wrong")}, ErrAuthentication, "http status 401, sent a user name and password"},
		"none":           {basic, 401, Credentials{}, ErrAuthentication, "sent no credentials"},
		"right token":    {server: bearer, sent: Credentials{BearerToken: crypto.NewSecretString(canaryToken)}},
		"wrong token":    {bearer, 403, Credentials{BearerToken: crypto.NewSecretString("CANARY-wrong")}, ErrAuthentication, "http status 403, sent a bearer token"},
		"hidden":         {basic, 404, Credentials{}, ErrRepositoryNotFound, "http status 404"},
		"teapot":         {basic, 418, Credentials{}, ErrProtocol, "http status 418"},
		"overloaded":     {basic, 503, Credentials{}, ErrUnreachable, "http status 503"},
		"throttled":      {basic, 429, Credentials{}, ErrUnreachable, "http status 429"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newGitServer(t, plain)
			newRepo(t, server.root, "r")
			server.misbehave(refuseUnless(tt.server, tt.status))
			_, _, err := mustNew(t, Config{URL: server.url("r"), Credentials: tt.sent}).Fetch(t.Context())
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("got %v, want %v", err, tt.wantErr)
			}
			checkQuiet(t, err)
			if err != nil && (!strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), server.url("r"))) {
				t.Errorf("got %v, want %q and the url", err, tt.want)
			}
		})
	}
}

func TestHTTPPasswordExpiresBetweenFetches(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	newRepo(t, server.root, "r")
	s := mustNew(t, Config{URL: server.url("r"), Credentials: Credentials{BearerToken: crypto.NewSecretString(canaryToken)}})
	first := mustFetch(t, s)
	server.misbehave(refuseUnless(func(*http.Request) bool { return false }, 401))
	if _, _, err := s.Fetch(t.Context()); !errors.Is(err, ErrAuthentication) || s.Last() != first {
		t.Errorf("got %v, want ErrAuthentication and the last commit kept", err)
	}
}

func TestHTTPWrongPlaces(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	newRepo(t, server.root, "r")
	page := newGitServer(t, plain)
	page.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprint(w, "<html>"+serverText)
		return true
	})
	closed := listen(t)
	_ = closed.Close()
	tests := map[string]struct {
		url  string
		want error
	}{
		"no such repository":  {server.URL + "/nope/.git", ErrRepositoryNotFound},
		"a web page":          {page.URL + "/r", ErrProtocol},
		"nobody listens":      {"http://" + closed.Addr().String() + "/r", ErrUnreachable},
		"no such host":        {"http://host.invalid/r", ErrUnreachable},
		"http on a tls port":  {"https" + strings.TrimPrefix(server.URL, "http") + "/r", ErrUnreachable},
		"a path without .git": {server.URL + "/", nil},
	}
	delete(tests, "a path without .git")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := mustNew(t, Config{URL: tt.url}).Fetch(t.Context())
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			checkQuiet(t, err)
		})
	}
}

func TestHTTPSTrust(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, withTLS)
	newRepo(t, server.root, "r")
	mustFetch(t, mustNew(t, Config{URL: server.url("r"), Credentials: Credentials{CA: server.ca()}}))

	_, _, err := mustNew(t, Config{URL: server.url("r")}).Fetch(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "x509: certificate signed by unknown authority") {
		t.Errorf("got %v, want ErrUnreachable with the x509 reason", err)
	}
	checkQuiet(t, err)

	other := strings.Replace(server.url("r"), "127.0.0.1", "localhost", 1)
	_, _, err = mustNew(t, Config{URL: other, Credentials: Credentials{CA: server.ca()}}).Fetch(t.Context())
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "x509: certificate is not valid for localhost") {
		t.Errorf("got %v, want ErrUnreachable with the x509 reason", err)
	}
}

func TestHTTPRedirects(t *testing.T) {
	t.Parallel()
	token := Credentials{BearerToken: crypto.NewSecretString(canaryToken)}
	redirect := func(to func(r *http.Request) string, when func(r *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !when(r) {
				return false
			}
			http.Redirect(w, r, to(r), http.StatusTemporaryRedirect)
			return true
		}
	}
	moved := func(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/old/") }
	tests := map[string]struct {
		credentials Credentials
		setup       func(from, to *gitServer)
		wantErr     error
		wantAtOther int
	}{
		"to another port without credentials is followed": {
			setup: func(from, to *gitServer) {
				from.misbehave(redirect(func(r *http.Request) string { return to.URL + "/r/.git/info/refs?" + r.URL.RawQuery }, moved))
			},
			wantAtOther: 2,
		},
		"to another port with credentials is refused": {
			credentials: token,
			setup: func(from, to *gitServer) {
				from.misbehave(redirect(func(r *http.Request) string { return to.URL + "/r/.git/info/refs?" + r.URL.RawQuery }, moved))
			},
			wantErr: ErrRedirect,
		},
		"within the origin with credentials is followed": {
			credentials: token,
			setup: func(from, _ *gitServer) {
				from.misbehave(redirect(func(r *http.Request) string { return "/r/.git/info/refs?" + r.URL.RawQuery }, moved))
			},
		},
		"of the second request is refused": {
			setup: func(from, to *gitServer) {
				from.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
					r.URL.Path = strings.Replace(r.URL.Path, "/old/", "/r/", 1)
					if r.Method == http.MethodGet {
						return false
					}
					http.Redirect(w, r, to.URL+r.URL.Path, http.StatusTemporaryRedirect)
					return true
				})
			},
			wantErr: ErrRedirect,
		},
		"with credentials that the server made up does not send them": {
			setup: func(from, to *gitServer) {
				from.misbehave(redirect(func(r *http.Request) string {
					return strings.Replace(to.URL, "http://", "http://u:p@", 1) + "/r/.git/info/refs?" + r.URL.RawQuery
				}, moved))
			},
			wantAtOther: 2,
		},
		"to something else than refs is refused": {
			setup: func(from, to *gitServer) {
				from.misbehave(redirect(func(*http.Request) string { return to.URL + "/secret" }, moved))
				to.misbehave(func(w http.ResponseWriter, _ *http.Request) bool {
					w.Header().Set("Content-Type", advertisementType)
					return true
				})
			},
			wantErr:     ErrRedirect,
			wantAtOther: 1,
		},
		"in a circle ends": {
			setup: func(from, _ *gitServer) {
				from.misbehave(redirect(func(r *http.Request) string { return r.URL.String() }, moved))
			},
			wantErr: ErrRedirect,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := newGitServer(t, plain), newGitServer(t, plain)
			newRepo(t, from.root, "r")
			newRepo(t, to.root, "r")
			tt.setup(from, to)
			_, _, err := mustNew(t, Config{URL: from.URL + "/old/.git", Credentials: tt.credentials}).Fetch(t.Context())
			if !errors.Is(err, tt.wantErr) {
				t.Errorf("got %v, want %v", err, tt.wantErr)
			}
			checkQuiet(t, err)
			got := to.authorizations()
			if len(got) != tt.wantAtOther {
				t.Errorf("got %d requests at the other server, want %d", len(got), tt.wantAtOther)
			}
			for _, a := range got {
				if a != "" {
					t.Errorf("the other server got Authorization %q", a)
				}
			}
		})
	}
}

func TestHTTPSIsNeverRedirectedToHTTP(t *testing.T) {
	t.Parallel()
	from, to := newGitServer(t, withTLS), newGitServer(t, plain)
	newRepo(t, to.root, "r")
	from.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, to.URL+r.URL.RequestURI(), http.StatusFound)
		return true
	})
	_, _, err := mustNew(t, Config{URL: from.url("r"), Credentials: Credentials{CA: from.ca()}}).Fetch(t.Context())
	if !errors.Is(err, ErrRedirect) || to.requests.Load() != 0 {
		t.Errorf("got %v and %d requests, want ErrRedirect and none", err, to.requests.Load())
	}
}

func TestHTTPBadAnswers(t *testing.T) {
	t.Parallel()
	isPack := func(r *http.Request) bool { return r.Method == http.MethodPost }
	answer := func(when func(*http.Request) bool, contentType, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !when(r) {
				return false
			}
			w.Header().Set("Content-Type", contentType)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	isRefs := func(r *http.Request) bool { return r.Method == http.MethodGet }
	sideError := "0000" + "0008NAK\n" + fmt.Sprintf("%04x\x03%s", len(serverText)+5, serverText)
	var limit *LimitError
	tests := map[string]struct {
		handler func(http.ResponseWriter, *http.Request) bool
		limits  Limits
		want    error
		limited bool
	}{
		"empty refs":                     {handler: answer(isRefs, advertisementType, ""), want: ErrProtocol},
		"refs that are cut short":        {handler: answer(isRefs, advertisementType, "001e# service=git-upload-pack\n0000004895"), want: ErrProtocol},
		"refs that are garbage":          {handler: answer(isRefs, advertisementType, serverText), want: ErrProtocol},
		"refs of another service":        {handler: answer(isRefs, advertisementType, "001f# service=git-receive-pack\n0000"), want: ErrProtocol},
		"an error line for refs":         {handler: answer(isRefs, advertisementType, fmt.Sprintf("%04xERR %s", len(serverText)+8, serverText)), want: ErrProtocol},
		"repository not found in a line": {handler: answer(isRefs, advertisementType, fmt.Sprintf("%04xERR %s", len(serverText)+8+22, serverText+" Repository not found.")), want: ErrRepositoryNotFound},
		"refs of sha256":                 {handler: answer(isRefs, advertisementType, "004c"+strings.Repeat("ab", 32)+" HEAD\x00x\n0000"), want: errSHA256},
		"empty pack answer":              {handler: answer(isPack, resultType, ""), want: ErrProtocol},
		"garbage for a pack":             {handler: answer(isPack, resultType, serverText), want: ErrProtocol},
		"a page for a pack":              {handler: answer(isPack, "text/html", serverText), want: ErrProtocol},
		"an error line for a pack":       {handler: answer(isPack, resultType, fmt.Sprintf("%04xERR %s", len(serverText)+8, serverText)), want: ErrProtocol},
		"an error in the sideband":       {handler: answer(isPack, resultType, sideError), want: ErrProtocol},
		"a pack that is never over":      {handler: endlessPack, limits: Limits{PackBytes: 1 << 20}, limited: true},
		"an ack line that is never over": {handler: endlessAcks, want: ErrProtocol},
		"refs that are never over":       {handler: endlessRefs, limited: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newGitServer(t, plain)
			newRepo(t, server.root, "r")
			server.misbehave(tt.handler)
			_, _, err := mustNew(t, Config{URL: server.url("r"), Limits: tt.limits}).Fetch(t.Context())
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if got := errors.As(err, &limit); got != tt.limited {
				t.Errorf("got %v, want a LimitError: %v", err, tt.limited)
			}
			checkQuiet(t, err)
		})
	}
}

func endlessPack(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost {
		return false
	}
	w.Header().Set("Content-Type", resultType)
	_, _ = io.WriteString(w, "00000008NAK\n")
	chunk := fmt.Sprintf("%04x\x02%s", 60_005, strings.Repeat("p", 60_000)) // progress
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, chunk); err != nil {
			break
		}
	}
	return true
}

func endlessAcks(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost {
		return false
	}
	w.Header().Set("Content-Type", resultType)
	_, _ = io.WriteString(w, "0000")
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, strings.Repeat("0037ACK 0123456789012345678901234567890123456789 common", 1000)); err != nil {
			break
		}
	}
	return true
}

func endlessRefs(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	w.Header().Set("Content-Type", advertisementType)
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, strings.Repeat("0039"+strings.Repeat("ab", 20)+" refs/heads/x", 1000)); err != nil {
			break
		}
	}
	return true
}

func TestHTTPTruncatedPackAtEveryKilobyte(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	r.commit("many", manyFiles(200))
	s := mustNew(t, Config{URL: server.url("r")})
	for keep := int64(0); keep < 10_000; keep += 997 {
		server.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				c := w.(*countingWriter)
				c.ResponseWriter = &cutWriter{ResponseWriter: c.ResponseWriter, left: keep}
			}
			return false
		})
		_, _, err := s.Fetch(t.Context())
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("cut after %d: got %v, want ErrProtocol", keep, err)
		}
		checkQuiet(t, err)
	}
	server.misbehave(nil)
	mustFetch(t, s)
}

type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) Write(p []byte) (int, error) {
	n := min(int64(len(p)), w.left)
	w.left -= n
	if _, err := w.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *cutWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }
