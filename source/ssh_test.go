package source

import (
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func muteSSH(t *testing.T) Config {
	server := newSSHServer(t)
	server.handleExec = func(ch ssh.Channel, _ string) bool {
		_, _ = io.Copy(io.Discard, ch)
		return true
	}
	return Config{URL: server.url("r"), Credentials: server.credentials()}
}

func TestSSHFetch(t *testing.T) {
	t.Parallel()
	server := newSSHServer(t)
	r := newRepo(t, server.root, "it's a repo")
	hash := r.git("rev-parse", "HEAD")
	newRepo(t, server.root, "r")
	s := mustNew(t, Config{URL: server.url("r"), Credentials: server.credentials()})
	first := mustFetch(t, s)
	if again := mustFetch(t, s); again != first {
		t.Error("got another commit although nothing changed")
	}
	quoted := mustNew(t, Config{URL: server.url("it's%20a%20repo"), Credentials: server.credentials()})
	server.mu.Lock()
	server.handleExec = func(_ ssh.Channel, command string) bool { return false }
	server.mu.Unlock()
	_, _, err := quoted.Fetch(t.Context()) // our server does not unquote; the command is what counts
	if !errors.Is(err, ErrRepositoryNotFound) {
		t.Errorf("got %v, want ErrRepositoryNotFound", err)
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if got, want := server.commands[len(server.commands)-1], `git-upload-pack '/it'\''s a repo'`; got != want {
		t.Errorf("got command %s, want %s", got, want)
	}
	_ = hash
}

func TestSSHRefusals(t *testing.T) {
	t.Parallel()
	server := newSSHServer(t)
	newRepo(t, server.root, "r")
	otherHost, otherUser := newKey(t)
	chatty := newSSHServer(t)
	chatty.handleExec = func(ch ssh.Channel, _ string) bool {
		_, _ = io.WriteString(ch.Stderr(), strings.Repeat(serverText+" ERROR: Repository not found.\n", 1000))
		return true
	}
	silent := newSSHServer(t)
	silent.handleExec = func(ch ssh.Channel, _ string) bool {
		_, _ = io.WriteString(ch.Stderr(), serverText)
		return true
	}
	hostLine := func(hosts ...string) []byte {
		return []byte(knownhosts.Line(hosts, server.hostKey.PublicKey()))
	}
	tests := map[string]struct {
		config Config
		want   error
		text   string
	}{
		"right key": {config: Config{URL: server.url("r"), Credentials: server.credentials()}},
		"wrong key": {Config{URL: server.url("r"), Credentials: Credentials{SSHKey: otherUser, KnownHosts: server.knownHosts()}},
			ErrAuthentication, "does not accept the ssh key in identity"},
		"wrong user": {Config{URL: "ssh://root@" + server.addr + "/r", Credentials: server.credentials()}, ErrAuthentication, ""},
		"wrong host key": {Config{URL: server.url("r"), Credentials: Credentials{SSHKey: server.user, KnownHosts: knownHostsFor(server.addr, otherHost)}},
			ErrHostKey, "not its key in known_hosts"},
		"unknown host": {Config{URL: server.url("r"), Credentials: Credentials{SSHKey: server.user, KnownHosts: knownHostsFor("git.example.com:22", server.hostKey)}},
			ErrHostKey, "has no entry for [127.0.0.1]"},
		"the host on another port": {Config{URL: server.url("r"), Credentials: Credentials{SSHKey: server.user, KnownHosts: hostLine("127.0.0.1")}},
			ErrHostKey, "has no entry"},
		"a hashed host":   {config: Config{URL: server.url("r"), Credentials: Credentials{SSHKey: server.user, KnownHosts: hostLine(knownhosts.HashHostname(knownhosts.Normalize(server.addr)))}}},
		"a wildcard host": {config: Config{URL: server.url("r"), Credentials: Credentials{SSHKey: server.user, KnownHosts: []byte("[127.*.?]:* " + strings.SplitN(string(hostLine("x")), " ", 2)[1])}}},
		"a negated host": {Config{URL: server.url("r"), Credentials: Credentials{SSHKey: server.user, KnownHosts: []byte("*,![127.0.0.1]:* " + strings.SplitN(string(hostLine("x")), " ", 2)[1])}},
			ErrHostKey, "has no entry"},
		"a revoked key": {Config{URL: server.url("r"), Credentials: Credentials{SSHKey: server.user, KnownHosts: []byte(string(server.knownHosts()) + "@revoked * " + strings.SplitN(string(hostLine("x")), " ", 2)[1])}},
			ErrHostKey, "revoked"},
		"no such repository":         {Config{URL: server.url("nope"), Credentials: server.credentials()}, ErrRepositoryNotFound, ""},
		"repository not found":       {Config{URL: chatty.url("r"), Credentials: chatty.credentials()}, ErrRepositoryNotFound, ""},
		"ends without saying a word": {Config{URL: silent.url("r"), Credentials: silent.credentials()}, ErrProtocol, "ended git-upload-pack without an answer"},
		"not an ssh server":          {Config{URL: "ssh://git@" + newGitServer(t, plain).Listener.Addr().String() + "/r", Credentials: server.credentials()}, ErrUnreachable, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := mustNew(t, tt.config).Fetch(t.Context())
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v with %q", err, tt.want, tt.text)
			}
			checkQuiet(t, err)
		})
	}
}
