package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// Clone is a repository on this machine of which only commits are looked at, never
// files.
type Clone struct{ repo *localRepository }

// OpenClone opens a bare repository or the root of a work tree. It fails with
// ErrRepositoryNotFound, or as go-git does.
func OpenClone(folder string) (*Clone, error) {
	repo, err := openLocal(folder, Limits{}.withDefaults())
	if err != nil {
		return nil, err
	}
	return &Clone{repo}, nil
}

// Follows reports whether one of the clone's remotes is the repository of a URL,
// however it is reached: over ssh or https, with ".git" or without.
func (c *Clone) Follows(url string) (bool, error) {
	remotes, err := c.repo.repo.Remotes()
	if err != nil {
		return false, fmt.Errorf("read remotes: %w", err)
	}
	want := place(url)
	for _, r := range remotes {
		if want != "" && slices.ContainsFunc(r.Config().URLs, func(u string) bool { return place(u) == want }) {
			return true, nil
		}
	}
	return false, nil
}

// place is the host and path of a URL; "" where it is none. Of a user and password,
// which a clone's remote may well hold, nothing is left.
func place(url string) string {
	if scheme, rest, ok := strings.Cut(url, "://"); ok {
		authority, path, _ := strings.Cut(rest, "/")
		url = scheme + "://" + authority[strings.LastIndex(authority, "@")+1:] + "/" + path
	}
	l, err := parseURL(url)
	if err != nil {
		return ""
	}
	host := l.host
	if h, _, err := net.SplitHostPort(host); err == nil && l.scheme == schemeSSH {
		host = h // the port of ssh is not the one of https
	}
	return strings.ToLower(host) + "/" + strings.TrimSuffix(strings.Trim(l.path, "/"), ".git")
}

// Head is the commit that is checked out, and the first line of its message.
func (c *Clone) Head() (hash, subject string, err error) {
	to, err := c.repo.tip(Ref{}, nil)
	if err != nil {
		return "", "", err
	}
	obj, err := c.repo.get(to.tip, plumbing.CommitObject)
	if err != nil {
		return "", "", err
	}
	decoded, err := decodeCommit(obj.data)
	if err != nil {
		return "", "", err
	}
	return to.tip.String(), oneLine(decoded.Message, maxSubjectRunes), nil
}

// Resolve is the full hash of the commit that a revision names, such as HEAD~1, a branch,
// a tag or the beginning of a hash.
func (c *Clone) Resolve(revision string) (string, error) {
	hash, err := c.repo.repo.ResolveRevision(plumbing.Revision(revision))
	if err != nil {
		return "", fmt.Errorf("revision %q: %w", revision, err)
	}
	return hash.String(), nil
}

// Relation is how one commit stands to another.
type Relation string

// The relations. Absent says that the clone does not have the other commit.
const (
	Same     Relation = "same"
	Ahead    Relation = "ahead"
	Behind   Relation = "behind"
	Diverged Relation = "diverged"
	Absent   Relation = "absent"
)

// Compare says how a commit of the clone stands to another, both by their full hashes.
// It fails with ErrShallow where the clone has too little of the history, a *LimitError,
// and the error of ctx.
func (c *Clone) Compare(ctx context.Context, hash, other string) (Relation, error) {
	a, err := parseHash(hash)
	if err != nil {
		return "", err
	}
	b, err := parseHash(other)
	if err != nil {
		return "", err
	}
	if a == b {
		return Same, nil
	}
	if _, err := c.repo.get(b, plumbing.CommitObject); err != nil {
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			return Absent, nil
		}
		return "", err
	}
	var unsure error
	for _, way := range []struct {
		is       Relation
		from, to plumbing.Hash
	}{{Ahead, a, b}, {Behind, b, a}} {
		obj, err := c.repo.get(way.from, plumbing.CommitObject)
		if err != nil {
			return "", err
		}
		h := &history{tip: way.from, raw: obj.data, ancestor: way.to}
		yes, err := c.repo.history(ctx, h)
		switch {
		case yes:
			return way.is, nil
		case errors.Is(err, ErrShallow): // the other way may still be proven
			unsure = err
		case err != nil:
			return "", err
		}
	}
	if unsure != nil {
		return "", unsure
	}
	return Diverged, nil
}
