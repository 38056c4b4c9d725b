package controller

import (
	"context"
	"sync"
	"time"

	"github.com/gitseal/gitseal/source"
)

const (
	firstFetchRetry = time.Second
	maxFetchRetry   = 5 * time.Minute
)

// repositories are what Syncs follow. Those with the same repository, ref and
// credential share one; who lacks the credential gets another, which fails. Safe for
// concurrent use.
type repositories struct {
	mu     sync.Mutex
	shared map[string]*repository
}

// repository looks at git for all who follow it, as often as the most eager wants.
type repository struct {
	source *source.Source
	key    string
	stop   context.CancelFunc
	asked  chan struct{} // somebody wants a look now

	mu        sync.Mutex
	followers map[*follower]bool
	looked    chan struct{} // closed by the next look, and made anew
	looks     int
	commit    *source.Commit
	err       error
}

// follower is one Sync of a repository. It implements reconcile.Fetcher.
type follower struct {
	repository *repository
	interval   time.Duration
	changed    func() // there is news; must not block
	want       int    // so many looks must have been made before a Fetch answers
}

// follow returns a follower, who gives the place back with leave. key stands for the
// configuration with the contents of its credentials.
func (r *repositories) follow(ctx context.Context, key string, cfg source.Config, interval time.Duration, changed func()) (*follower, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := r.shared[key]
	if repo == nil {
		src, err := source.New(cfg)
		if err != nil {
			return nil, err
		}
		ctx, stop := context.WithCancel(ctx)
		repo = &repository{source: src, key: key, stop: stop, asked: make(chan struct{}, 1), looked: make(chan struct{}), followers: map[*follower]bool{}}
		if r.shared == nil {
			r.shared = map[string]*repository{}
		}
		r.shared[key] = repo
		go repo.run(ctx)
	}
	f := &follower{repository: repo, interval: interval, changed: changed, want: 1}
	sooner := interval < repo.interval()
	repo.mu.Lock()
	repo.followers[f] = true
	repo.mu.Unlock()
	if sooner {
		repo.ask()
	}
	return f, nil
}

func (r *repositories) leave(f *follower) {
	r.mu.Lock()
	defer r.mu.Unlock()
	repo := f.repository
	repo.mu.Lock()
	defer repo.mu.Unlock()
	delete(repo.followers, f)
	if len(repo.followers) == 0 {
		repo.stop()
		delete(r.shared, repo.key)
	}
}

func (r *repository) ask() {
	select {
	case r.asked <- struct{}{}:
	default:
	}
}

func (r *repository) run(ctx context.Context) {
	var retry time.Duration
	for {
		failed := r.look(ctx) != nil
		wait := r.interval()
		if failed {
			retry = min(max(2*retry, firstFetchRetry), maxFetchRetry)
			wait = min(wait, retry)
		} else {
			retry = 0
		}
		next := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-next.C:
		case <-r.asked:
		}
		next.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// interval is that of the most eager.
func (r *repository) interval() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := time.Hour
	for f := range r.followers {
		out = min(out, f.interval)
	}
	return out
}

func (r *repository) look(ctx context.Context) error {
	commit, _, err := r.source.Fetch(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	news := r.looks == 0 || text(err) != text(r.err) || err == nil && (r.commit == nil || r.commit.Hash != commit.Hash)
	r.looks++
	r.err = err
	if err == nil {
		r.commit = commit
	}
	close(r.looked)
	r.looked = make(chan struct{})
	if news {
		for f := range r.followers {
			f.changed()
		}
	}
	return err
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// refresh makes the next Fetch wait for a look that has not been made yet.
func (f *follower) refresh() {
	f.repository.mu.Lock()
	f.want = f.repository.looks + 1
	f.repository.mu.Unlock()
	f.repository.ask()
}

// Fetch returns what the last look found, and waits for the first.
func (f *follower) Fetch(ctx context.Context) (*source.Commit, bool, error) {
	r := f.repository
	for {
		r.mu.Lock()
		waits, looked, commit, err := r.looks < f.want, r.looked, r.commit, r.err
		r.mu.Unlock()
		switch {
		case !waits && err != nil:
			return nil, false, err
		case !waits:
			return commit, true, nil
		}
		select {
		case <-ctx.Done():
			return nil, false, ctx.Err()
		case <-looked:
		}
	}
}
