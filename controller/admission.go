package controller

import (
	"context"
	"fmt"
	"sync"

	"github.com/gitseal/gitseal/source"
)

// DependencyError says which Sync this one waits for.
type DependencyError struct {
	On  string // NAMESPACE/NAME
	Why string
}

func (e *DependencyError) Error() string { return fmt.Sprintf("waits for Sync %s, %s", e.On, e.Why) }

// VerificationError says why a commit was not let in.
type VerificationError struct {
	Reason string // VerificationFailed or NotADescendant
	Commit string
	Err    error
}

func (e *VerificationError) Error() string {
	return fmt.Sprintf("commit %.12s: %v", e.Commit, e.Err)
}
func (e *VerificationError) Unwrap() error { return e.Err }

// admission is git as one Sync may see it: a commit that is new to it is let in once
// every check allows that, and until then the last good one stays. It implements
// reconcile.Fetcher. Safe for concurrent use.
type admission struct {
	mu     sync.Mutex
	git    *follower
	checks []func(context.Context, *source.Commit) error
	good   *source.Commit
	// before fetches what was applied before this agent or the Sync's settings began, nil
	// if nothing was. It is asked for once, when the newest commit is not let in.
	before func(context.Context) (*source.Commit, error)
	// rewritten is told when a commit is let in that does not descend from the one before;
	// nil where that is checked anyway.
	rewritten func(from, to *source.Commit)
}

// Fetch returns the commit that may be applied. On error the last good one stays.
func (a *admission) Fetch(ctx context.Context) (*source.Commit, bool, error) {
	commit, _, err := a.git.Fetch(ctx)
	if err != nil {
		return nil, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.good != nil && a.good.Hash == commit.Hash {
		return a.good, false, nil
	}
	for _, check := range a.checks {
		if err := check(ctx, commit); err != nil {
			a.fallBack(ctx)
			return nil, false, err
		}
	}
	if a.rewritten != nil && a.good != nil {
		if forward, err := a.git.repository.source.Descends(ctx, commit, a.good.Hash); err == nil && !forward {
			a.rewritten(a.good, commit)
		}
	}
	a.good = commit
	return commit, true, nil
}

// fallBack finds the commit that was good before. Without it nothing is kept in order
// until a newer one is let in, and nothing is changed.
func (a *admission) fallBack(ctx context.Context) {
	if a.good != nil || a.before == nil {
		return
	}
	if commit, err := a.before(ctx); err == nil {
		a.good = commit
	}
	a.before = nil
}

// Last returns the last commit that was let in, nil before the first.
func (a *admission) Last() *source.Commit {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.good
}
