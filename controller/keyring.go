package controller

import (
	"context"
	"sync"
	"time"

	"github.com/gitseal/gitseal/keys"
)

// keysAge is how long keys that were read serve other Syncs: a commit is news to all
// that follow it at once.
const keysAge = 2 * time.Second

// sharedKeys reads the agent's own keys once for passes that begin together. Safe for
// concurrent use.
type sharedKeys struct {
	store keys.Store
	mu    sync.Mutex
	ring  *keys.Ring
	at    time.Time
}

func (k *sharedKeys) load(ctx context.Context) (*keys.Ring, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ring != nil && time.Since(k.at) < keysAge {
		return k.ring, nil
	}
	ring, err := k.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	k.ring, k.at = ring, time.Now()
	return ring, nil
}

// forget makes the next load read them anew.
func (k *sharedKeys) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ring = nil
}

// KeysChanged makes every Sync that is kept begin anew with the keys of now: what could
// not be opened may be by now, and what was opened may not be any more.
func (c *Controller) KeysChanged() {
	c.keys.forget()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.loops {
		l.anew()
	}
}

// syncKeys are the agent's keys, and those that a Sync adds. It implements
// reconcile.KeyLoader.
type syncKeys struct {
	shared *sharedKeys
	more   keys.Store // of the foreign keys
}

// Load reads them.
func (k syncKeys) Load(ctx context.Context) (*keys.Ring, error) {
	ring, err := k.shared.load(ctx)
	if err != nil {
		return nil, err
	}
	return k.more.WithForeign(ctx, ring)
}
