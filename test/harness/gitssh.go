package harness

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// GitSSH is a git server over SSH, on loopback and inside this process. It
// admits user git with one key, and runs git-upload-pack and git-receive-pack.
// Its methods may be called from any goroutine.
type GitSSH struct {
	Addr       string // host:port
	KnownHosts string // line of a known_hosts file, for its host key
	PrivateKey []byte // that it admits, in OpenSSH's PEM

	root     string
	config   *ssh.ServerConfig
	listener net.Listener
	mute     atomic.Bool
	ctx      context.Context // ended by Close; kills what runs
	cancel   context.CancelFunc
	wait     sync.WaitGroup
}

// StartGitSSH serves the bare repositories below root until Close or until ctx
// ends.
func StartGitSSH(ctx context.Context, root string) (*GitSSH, error) {
	_, hostKey, err := newSSHKey()
	if err != nil {
		return nil, err
	}
	private, clientKey, err := newSSHKey()
	if err != nil {
		return nil, err
	}
	admitted := clientKey.PublicKey().Marshal()
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if conn.User() == "git" && subtle.ConstantTimeCompare(key.Marshal(), admitted) == 1 {
				return nil, nil
			}
			return nil, errors.New("this key is not admitted")
		},
	}
	config.AddHostKey(hostKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &GitSSH{
		Addr:       l.Addr().String(),
		KnownHosts: knownhosts.Line([]string{l.Addr().String()}, hostKey.PublicKey()) + "\n",
		PrivateKey: private,
		root:       root,
		config:     config,
		listener:   l,
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	context.AfterFunc(s.ctx, func() { l.Close() })
	s.wait.Go(s.accept)
	return s, nil
}

// NewGitSSH is StartGitSSH for the length of a test.
func NewGitSSH(t testing.TB, root string) *GitSSH {
	t.Helper()
	s, err := StartGitSSH(context.WithoutCancel(t.Context()), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// NewSSHKey returns a new private key in OpenSSH's PEM: one that no server
// admits.
func NewSSHKey() ([]byte, error) {
	private, _, err := newSSHKey()
	return private, err
}

func newSSHKey() ([]byte, ssh.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	block, err := ssh.MarshalPrivateKey(key, "gitseal test")
	if err != nil {
		return nil, nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(block), signer, nil
}

// RepoURL returns the URL of the repository with this name.
func (s *GitSSH) RepoURL(name string) string { return "ssh://git@" + s.Addr + "/" + name + ".git" }

// SetMute makes the server accept new connections and say nothing on them until
// Close; or speak again on those that come later.
func (s *GitSSH) SetMute(mute bool) { s.mute.Store(mute) }

// Close drops the connections, kills the git processes and waits for both.
func (s *GitSSH) Close() {
	s.cancel()
	s.wait.Wait()
}

func (s *GitSSH) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		s.wait.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(s.ctx, func() { conn.Close() })()
			if s.mute.Load() {
				<-s.ctx.Done()
				return
			}
			s.serve(conn)
		})
	}
}

func (s *GitSSH) serve(conn net.Conn) {
	_, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		return // a client that was not admitted, or that left
	}
	go ssh.DiscardRequests(requests) // ends with the connection
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.UnknownChannelType, "only sessions") // it may have left
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			continue
		}
		sessions.Go(func() { s.session(channel, requests) })
	}
}

// session runs the first command of a session and ends it.
func (s *GitSSH) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	env := GitEnv()
	for request := range requests {
		var accepted bool
		switch request.Type {
		case "env":
			var variable struct{ Name, Value string }
			if ssh.Unmarshal(request.Payload, &variable) == nil && variable.Name == "GIT_PROTOCOL" {
				env = append(env, "GIT_PROTOCOL="+variable.Value)
				accepted = true
			}
		case "exec":
			var command struct{ Line string }
			if ssh.Unmarshal(request.Payload, &command) == nil {
				_ = request.Reply(true, nil) // it may have left
				go ssh.DiscardRequests(requests)
				status := struct{ Code uint32 }{s.run(channel, env, command.Line)}
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status)) // it may have left
				return
			}
		}
		if request.WantReply {
			_ = request.Reply(accepted, nil) // it may have left
		}
	}
}

// run runs a command line such as git-upload-pack '/name.git' on the channel and
// returns its exit code.
func (s *GitSSH) run(channel ssh.Channel, env []string, line string) uint32 {
	const failed = 128 // as git's own
	cmd, err := s.command(line)
	if err != nil {
		fmt.Fprintln(channel.Stderr(), err)
		return failed
	}
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
	stdin, err := cmd.StdinPipe() // not Stdin: Wait would wait for the client to close it
	if err != nil {
		return failed
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(channel.Stderr(), err)
		return failed
	}
	go func() { // ends with the channel
		_, _ = io.Copy(stdin, channel) // git says what it misses
		stdin.Close()
	}()
	_ = cmd.Wait() // the exit code says it
	return uint32(cmd.ProcessState.ExitCode())
}

func (s *GitSSH) command(line string) (*exec.Cmd, error) {
	service, quoted, _ := strings.Cut(line, " ")
	path := strings.TrimPrefix(strings.Trim(quoted, "'"), "/")
	if service != "git-upload-pack" && service != "git-receive-pack" || !filepath.IsLocal(path) {
		return nil, errors.New("only git-upload-pack and git-receive-pack of a repository are served")
	}
	return exec.CommandContext(s.ctx, "git", strings.TrimPrefix(service, "git-"), filepath.Join(s.root, path)), nil
}
