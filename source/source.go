package source

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/go-git/go-git/v5/plumbing"
)

// defaultTimeout bounds one Fetch.
const defaultTimeout = 60 * time.Second

// Ref says what to follow: a branch, a tag, the highest version among the tags, or
// one commit; nothing set stands for HEAD of the remote, its default branch. At
// most one field is set. Branch and Tag are short names, Commit is a full hash.
type Ref struct {
	Branch string
	Tag    string
	// SemVer is a range such as ">=1.2 <2" or "1.x", as in Flux and Helm. It
	// stands for the tag with the highest version in it. Versions have three
	// numbers, with or without a "v"; other tags are passed over. Pre-releases
	// count only in a range that names one, such as ">=1.2.0-0". Of tags that are
	// the same version, as v1.0.0 and 1.0.0 or 1.0.0+a and 1.0.0+b, it is the last
	// in the order of their bytes.
	SemVer string
	Commit string
}

// String is for messages: "branch main", "tag v1", "semver 1.x", "commit 1234...",
// "HEAD".
func (r Ref) String() string {
	switch {
	case r.Branch != "":
		return "branch " + printable(r.Branch)
	case r.Tag != "":
		return "tag " + printable(r.Tag)
	case r.SemVer != "":
		return "semver " + printable(r.SemVer)
	case r.Commit != "":
		return "commit " + printable(r.Commit)
	}
	return headRef
}

func (r Ref) validate() error {
	set := 0
	for _, s := range []string{r.Branch, r.Tag, r.SemVer, r.Commit} {
		if s != "" {
			set++
		}
	}
	if set > 1 {
		return errors.New("ref: want only one of branch, tag, semver and commit")
	}
	for kind, name := range map[string]string{"branch": r.Branch, "tag": r.Tag} {
		if name == "" {
			continue
		}
		if strings.HasPrefix(name, "refs/") {
			return fmt.Errorf("ref: %s %s: want the short name, without refs/", kind, printable(name))
		}
		if plumbing.NewBranchReferenceName(name).Validate() != nil {
			return fmt.Errorf("ref: %s %s is not a valid name", kind, printable(name))
		}
	}
	if r.SemVer != "" {
		if _, err := parseRange(r.SemVer); err != nil {
			return fmt.Errorf("ref: %w", err)
		}
	}
	if r.Commit != "" {
		if len(r.Commit) == 64 {
			return fmt.Errorf("ref: commit: %w", errSHA256)
		}
		if _, err := parseHash(r.Commit); err != nil {
			return fmt.Errorf("ref: commit %s: want all 40 digits of its hash", printable(r.Commit))
		}
	}
	return nil
}

// Config says where a Source reads. URL is https://host/path, http://host/path,
// ssh://user@host:port/path, user@host:path, file:///path or an absolute path;
// who may name a path on this machine is for the caller to decide.
type Config struct {
	URL         string
	Ref         Ref
	Credentials Credentials
	Timeout     time.Duration // for one Fetch; default 60 s
	Limits      Limits
	// Allow is asked for each address before a connection to it is opened, once names
	// are resolved and also after a redirect; nil allows all. Its error is shown.
	Allow func(netip.AddrPort) error
}

// Validate reports what is wrong with c, never with a secret value in it.
func (c Config) Validate() error {
	_, err := c.parse()
	return err
}

func (c Config) parse() (location, error) {
	l, err := parseURL(c.URL)
	if err != nil {
		return location{}, err
	}
	if err := c.Ref.validate(); err != nil {
		return location{}, err
	}
	if c.Timeout < 0 {
		return location{}, errors.New("timeout must not be negative")
	}
	if err := c.Limits.validate(); err != nil {
		return location{}, err
	}
	if err := c.Credentials.validate(); err != nil {
		return location{}, fmt.Errorf("credentials: %w", err)
	}
	return l, c.Credentials.fit(l)
}

// fit reports a credential that can not be used with the URL: silently leaving
// it out would show later as a wrong password.
func (c Credentials) fit(l location) error {
	overHTTP := !c.BearerToken.IsZero() || c.basic()
	switch {
	case l.scheme == schemeSSH && overHTTP:
		return fmt.Errorf("credentials: %s, %s and %s go with an http url, the url is ssh: want %s", keyUsername, keyPassword, keyBearerToken, keyIdentity)
	case l.scheme == schemeSSH && c.SSHKey.IsZero():
		return fmt.Errorf("credentials: %s is missing, the ssh key for an ssh url", keyIdentity)
	case l.scheme == schemeSSH && len(c.KnownHosts) == 0:
		return fmt.Errorf("credentials: %s is missing, the host key that an ssh server must show", keyKnownHosts)
	case l.scheme.overHTTP() && !c.SSHKey.IsZero():
		return fmt.Errorf("credentials: %s goes with an ssh url, the url is %s", keyIdentity, l.scheme)
	case l.scheme == schemeFile && c.sent() != noCredentials:
		return errors.New("credentials: a path on this machine takes none")
	}
	return nil
}

// Commit is a commit and its files. It is never changed after Fetch returned it.
type Commit struct {
	Hash    string
	Ref     string // what it was found as, written as Flux does: "main@sha1:1234..."; for Ref.Commit "sha1:1234..."
	Version string // of the tag, for Ref.SemVer: "1.2.3", without a "v"
	Author  string
	Email   string
	Subject string    // first line of the message, cut when very long
	When    time.Time // when it was authored
	Raw     []byte    // the commit object as git stores it, to verify its signature
	RawTag  []byte    // the annotated tag that was asked for, nil if there is none
	Tree    *Tree
}

// Source follows one ref of one repository. It is safe for concurrent use.
type Source struct {
	location location
	ref      Ref
	versions *semver.Constraints // of ref.SemVer
	timeout  time.Duration
	limits   Limits
	remote   remote // nil for a path on this machine
	turn     chan struct{}
	last     atomic.Pointer[Commit]

	// Of the last good commit; whoever holds turn may use them.
	tip   plumbing.Hash // what the ref stood for: the commit, or a tag object
	known objects       // what it consists of, the bases of the next thin pack

	refused *refusedContent // the newest commit, if it can not be accepted
}

// New checks c as Validate does and connects to nothing.
func New(c Config) (*Source, error) {
	l, err := c.parse()
	if err != nil {
		return nil, err
	}
	s := &Source{
		location: l,
		ref:      c.Ref,
		timeout:  c.Timeout,
		limits:   c.Limits.withDefaults(),
		turn:     make(chan struct{}, 1),
	}
	s.ref.Commit = strings.ToLower(s.ref.Commit)
	if c.Ref.SemVer != "" {
		if s.versions, err = parseRange(c.Ref.SemVer); err != nil {
			return nil, err
		}
	}
	if s.timeout == 0 {
		s.timeout = defaultTimeout
	}
	switch {
	case l.scheme.overHTTP():
		s.remote, err = newHTTPRemote(l, c, s.limits)
	case l.scheme == schemeSSH:
		s.remote, err = newSSHRemote(l, c, s.limits)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Last returns the last good commit, nil before the first. It does not wait for
// a Fetch.
func (s *Source) Last() *Commit { return s.last.Load() }

// Fetch looks where the ref stands. Where it stood before, that costs one
// request and the same *Commit is returned with changed false, or the same error
// if its content was refused; a pinned commit that was fetched once costs none.
// A ref that was moved is followed wherever it went, also back or to unrelated
// history; Descends tells. A range of versions is followed down as well, when the
// highest tag is gone; compare Commit.Version. When another tag in the range stands
// for the same commit, it is returned anew under that name, without a request more.
//
// On error the last good commit stays what it is, and the next Fetch may
// succeed. Errors are ErrAuthentication, ErrRepositoryNotFound, ErrUnreachable,
// ErrHostKey, ErrProtocol, ErrRedirect, *RefNotFoundError, *LimitError,
// *SymlinkError for a link that leaves the repository, the error of ctx, and
// for a path on this machine those of reading it.
func (s *Source) Fetch(ctx context.Context) (commit *Commit, changed bool, err error) {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	giveBack, err := s.takeTurn(bounded)
	if err != nil {
		return nil, false, s.explain(ctx, bounded, err)
	}
	defer giveBack()
	commit, changed, err = s.fetch(bounded)
	if err != nil {
		return nil, false, s.explain(ctx, bounded, err)
	}
	return commit, changed, nil
}

// explain adds where, and sees to it that a cancelled ctx shows as that and not
// as the broken connection that it leads to.
func (s *Source) explain(ctx, bounded context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case bounded.Err() != nil:
		err = fmt.Errorf("%w: not done within %s", ErrUnreachable, s.timeout)
	}
	return fmt.Errorf("fetch %s %s: %w", printable(s.location.shown), s.ref, err)
}

// takeTurn waits until nobody else uses the Source; give it back.
func (s *Source) takeTurn(ctx context.Context) (giveBack func(), err error) {
	select {
	case s.turn <- struct{}{}:
		return func() { <-s.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
