package source

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

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

func TestErrorsOfBrokenServersHoldNoneOfTheirWords(t *testing.T) {
	t.Parallel()
	payload := ssh.Marshal(struct {
		Type    byte
		Reason  uint32
		Message string
		Lang    string
	}{1, 2, serverText, ""})
	padding := 16 - (5+len(payload))%8
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(payload)+padding))
	packet = append(append(append(packet, byte(padding)), payload...), make([]byte, padding)...)

	key := newSSHServer(t).credentials()
	tests := map[string]Config{
		"garbage for http":        {URL: "http://" + rawServer(t, serverText+" "+serverText+"\r\n\r\n") + "/r"},
		"a bad header for http":   {URL: "http://" + rawServer(t, "HTTP/1.1 200 OK\r\n"+serverText+"\r\n\r\n") + "/r"},
		"a bad encoding for http": {URL: "http://" + rawServer(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: "+serverText+"\r\n\r\n") + "/r"},
		"garbage for tls":         {URL: "https://" + rawServer(t, serverText+serverText) + "/r"},
		"a disconnect for ssh":    {URL: "ssh://git@" + rawServer(t, "SSH-2.0-x\r\n"+string(packet)) + "/r", Credentials: key},
	}
	for name, config := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config.Timeout = 20 * time.Second
			_, _, err := mustNew(t, config).Fetch(t.Context())
			if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "not done within") {
				t.Errorf("got %v, want ErrUnreachable at once", err)
			}
			checkQuiet(t, err)
		})
	}
}
