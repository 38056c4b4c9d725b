package source

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// What Fetch and Descends fail with, beside the error types of this package and the error
// of its context.
var (
	// ErrAuthentication: the credential is missing, wrong or not allowed to read.
	ErrAuthentication = errors.New("authentication failed")
	// ErrRepositoryNotFound: the server answers, but has no such repository, or
	// hides it from this credential.
	ErrRepositoryNotFound = errors.New("repository not found")
	// ErrUnreachable: no connection, TLS refused, timeout, or the server is ill.
	ErrUnreachable = errors.New("git server unreachable")
	// ErrHostKey: the ssh server's key is not the one in known_hosts.
	ErrHostKey = errors.New("ssh host key not accepted")
	// ErrProtocol: the answer is not one of a git server, or is cut short.
	ErrProtocol = errors.New("unexpected answer")
	// ErrShallow: the repository itself holds only a part of its history, and
	// Descends needs more.
	ErrShallow = errors.New("the repository holds only a part of its history")
	// ErrNoCommit: nothing was fetched yet.
	ErrNoCommit = errors.New("no commit was fetched yet")
	// ErrRedirect: the server sent us elsewhere, and we do not follow.
	ErrRedirect = errors.New("redirect not followed")
)

// RefNotFoundError says that the repository answers but lacks what was asked
// for.
type RefNotFoundError struct {
	Ref    string // "branch main", "tag v1", "commit 1234...", "HEAD"
	Reason string // what to do about it, may be empty
}

func (e *RefNotFoundError) Error() string {
	if e.Reason == "" {
		return e.Ref + " not found"
	}
	return e.Ref + " not found: " + e.Reason
}

// refusedError is an ERR line. Its text is the server's and is only ever looked
// at, never shown.
type refusedError struct{ text string }

func (*refusedError) Error() string { return "the server refused the request" }

func (*refusedError) Is(target error) bool { return target == ErrProtocol }

// connectionError keeps of a network error what is surely ours or the
// operating system's: net/http and x/crypto/ssh put the server's words into
// their messages.
func connectionError(err error) error {
	var (
		limit     *LimitError
		denied    *DeniedError
		redirect  *redirectError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		cert      *tls.CertificateVerificationError
		op        *net.OpError
		dns       *net.DNSError
		record    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &limit):
		return limit
	case errors.As(err, &redirect):
		return redirect
	case errors.As(err, &denied):
		return denied
	case errors.As(err, &authority):
		return fmt.Errorf("%w: x509: certificate signed by unknown authority", ErrUnreachable)
	case errors.As(err, &hostname):
		return fmt.Errorf("%w: x509: certificate is not valid for %s", ErrUnreachable, printable(hostname.Host))
	case errors.As(err, &invalid):
		return fmt.Errorf("%w: %s", ErrUnreachable, printable(invalid.Error()))
	case errors.As(err, &cert):
		return fmt.Errorf("%w: x509: certificate not accepted", ErrUnreachable)
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w: the server does not speak tls", ErrUnreachable)
	case errors.As(err, &dns):
		return fmt.Errorf("%w: %s", ErrUnreachable, printable(dns.Error()))
	case errors.As(err, &op):
		return fmt.Errorf("%w: %s", ErrUnreachable, printable(op.Error()))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return fmt.Errorf("%w: connection closed by the server", ErrUnreachable)
	}
	return fmt.Errorf("%w: connection failed", ErrUnreachable)
}

// readError explains why parsing what came through r failed: r itself, a limit,
// the server saying no, or else bytes that make no sense.
func readError(r *limitedReader, err error, what string) error {
	if r.err != nil {
		return connectionError(r.err)
	}
	var limit *LimitError
	if errors.As(err, &limit) {
		return err
	}
	var refused *refusedError
	if errors.As(err, &refused) {
		return refused
	}
	for _, known := range []error{errNoBase, errDroppedBase, errCollision} {
		if errors.Is(err, known) {
			return known
		}
	}
	if errors.Is(err, errSHA256) {
		return fmt.Errorf("%w: %w", ErrProtocol, errSHA256)
	}
	return fmt.Errorf("%w: %s is malformed or cut short", ErrProtocol, what)
}
