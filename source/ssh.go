package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

const sshClientVersion = "SSH-2.0-gitseal"

// sshRemote runs git-upload-pack over ssh. Proxies in the environment are not
// used.
type sshRemote struct {
	location location
	signer   ssh.Signer
	known    knownHosts
	limits   Limits
	dialer   *net.Dialer
}

func newSSHRemote(l location, cfg Config, limits Limits) (*sshRemote, error) {
	c := cfg.Credentials
	signer, err := c.signer()
	if err != nil {
		return nil, err
	}
	known, err := parseKnownHosts(c.KnownHosts)
	if err != nil {
		return nil, err
	}
	return &sshRemote{location: l, signer: signer, known: known, limits: limits, dialer: cfg.dialer()}, nil
}

func (r *sshRemote) open(ctx context.Context) (session, error) { return r.connect(ctx) }

// connect dials, logs in, starts upload-pack and reads the refs. x/crypto/ssh
// knows no context: closing the connection is what ends every read and write of
// it, also with a server that accepts and then says nothing.
func (r *sshRemote) connect(ctx context.Context) (*sshSession, error) {
	address := r.location.address()
	conn, err := r.dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, connectionError(err)
	}
	s := &sshSession{remote: r, conn: conn, stderr: &boundedBuffer{}}
	s.stop = context.AfterFunc(ctx, func() { _ = conn.Close() }) // the reader hears of it
	if err := s.start(address); err != nil {
		_ = s.Close() // err says more
		return nil, err
	}
	return s, nil
}

// sshSession is one connection with one running git-upload-pack, which gives one
// pack and ends.
type sshSession struct {
	remote *sshRemote
	conn   net.Conn
	stop   func() bool
	client *ssh.Client
	run    *ssh.Session
	stdin  io.WriteCloser
	stdout io.Reader
	stderr *boundedBuffer
	adv    *advertisement
	used   bool
}

func (s *sshSession) start(address string) error {
	var hostKey error
	config := &ssh.ClientConfig{
		User:              s.remote.location.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(s.remote.signer)},
		ClientVersion:     sshClientVersion,
		HostKeyAlgorithms: s.remote.known.algorithms(address),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			hostKey = s.remote.known.check(address, key)
			return hostKey
		},
	}
	conn, channels, requests, err := ssh.NewClientConn(s.conn, address, config)
	if err != nil {
		return handshakeError(err, hostKey)
	}
	s.client = ssh.NewClient(conn, channels, requests)
	if s.run, err = s.client.NewSession(); err != nil {
		return connectionError(err)
	}
	s.run.Stderr = s.stderr
	if s.stdin, err = s.run.StdinPipe(); err != nil {
		return connectionError(err)
	}
	if s.stdout, err = s.run.StdoutPipe(); err != nil {
		return connectionError(err)
	}
	if err := s.run.Start(uploadPack + " " + shellQuote(s.remote.location.path)); err != nil {
		return connectionError(err)
	}
	return s.readRefs()
}

func (s *sshSession) readRefs() error {
	body := newLimitedReader(s.stdout, "the list of refs", maxRefsBytes)
	adv, err := readAdvertisement(body)
	if err == nil {
		s.adv = adv
		return nil
	}
	if body.err == nil && body.read == 0 { // upload-pack ended: the reason is on stderr
		_ = s.run.Wait() // its status says less
		if saysNotFound(s.stderr.String()) {
			return ErrRepositoryNotFound
		}
		return fmt.Errorf("%w: the server ended %s without an answer", ErrProtocol, uploadPack)
	}
	return refsError(body, err)
}

// handshakeError tells the three ways to fail apart. The library has no types
// for them, and a disconnect message holds the server's words.
func handshakeError(err, hostKey error) error {
	var algorithms *ssh.AlgorithmNegotiationError
	switch {
	case hostKey != nil:
		return hostKey
	case errors.As(err, &algorithms):
		return fmt.Errorf("%w: the server offers no key of a kind that is in %s, or no algorithm that we accept", ErrHostKey, keyKnownHosts)
	case strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("%w: the server does not accept the ssh key in %s", ErrAuthentication, keyIdentity)
	}
	return connectionError(err)
}

func (s *sshSession) refs() *advertisement { return s.adv }

func (s *sshSession) pack(ctx context.Context, request []byte) (*limitedReader, io.Closer, error) {
	if s.used {
		again, err := s.remote.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		body, err := again.ask(request)
		if err != nil {
			_ = again.Close() // err says more
			return nil, nil, err
		}
		return body, again, nil
	}
	body, err := s.ask(request)
	if err != nil {
		return nil, nil, err
	}
	return body, io.NopCloser(nil), nil // closed with s
}

func (s *sshSession) ask(request []byte) (*limitedReader, error) {
	s.used = true
	if _, err := s.stdin.Write(request); err != nil {
		return nil, connectionError(err)
	}
	return newLimitedReader(s.stdout, "the pack", s.remote.limits.PackBytes), nil
}

func (s *sshSession) Close() error {
	if s.run != nil && s.adv != nil && !s.used {
		_, _ = io.WriteString(s.stdin, "0000") // a polite good-bye; closing does as well
	}
	if s.client != nil {
		_ = s.client.Close() // closes conn
	}
	_ = s.conn.Close() // closed already, as a rule
	s.stop()
	return nil
}

// shellQuote is what git does with the path of an ssh url.
func shellQuote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

// boundedBuffer keeps the beginning and swallows the rest.
type boundedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p[:min(len(p), maxStderrBytes-b.buf.Len())])
	return len(p), nil
}

func (b *boundedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
