package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
)

const (
	firstPause = time.Second            // after the first correction, or failure
	maxPause   = time.Minute            // it doubles up to this
	calm       = 10 * time.Minute       // after so long a correction counts as the first again
	breath     = 500 * time.Millisecond // between looks at the keys; what comes meanwhile waits
)

// Keeper sees to the keys of an installation while it runs: it makes them, publishes
// them, and follows what others do to them. Several may run at once.
type Keeper struct {
	Store
	// Metadata watches the key Secrets.
	Metadata metadata.Interface
	// RequireBackup makes a generation that is asked for wait on standby until it is
	// backed up.
	RequireBackup bool
	// Changed is told when there are other keys, or in another state, before they are
	// published; nil for nobody.
	Changed func()
	// Seen is told whenever the keys were read; nil for nobody.
	Seen func(*Ring)
	Log  *slog.Logger
}

// Prepare makes and publishes the keys. It keeps trying until ctx ends, and again at once
// when a key Secret appears.
func (k Keeper) Prepare(ctx context.Context) (*Ring, error) {
	var w *keyWatch
	defer func() { w.stop() }()
	for wait := firstPause; ; wait = min(2*wait, maxPause) {
		ring, err := k.Once(ctx)
		if err == nil || ctx.Err() != nil {
			return ring, err
		}
		k.Log.Error("keys are not ready", "error", err.Error(), "retry", wait)
		if w == nil {
			w = k.watch(ctx, &Ring{}, Public{})
			go w.followSecrets(k)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.keys:
			wait = firstPause / 2
			if !pause(ctx, breath) { // there may be more to come
				return nil, ctx.Err()
			}
		case <-time.After(wait):
		}
	}
}

// Once makes and publishes the keys.
func (k Keeper) Once(ctx context.Context) (*Ring, error) {
	if _, err := k.Ensure(ctx); err != nil {
		return nil, err
	}
	ring, err := k.settle(ctx)
	if err != nil {
		return nil, err
	}
	public, err := ring.Public()
	if err != nil {
		return nil, err
	}
	changed, warning, err := k.Publish(ctx, public)
	if err != nil {
		return nil, err
	}
	if warning != nil {
		k.Log.Warn("public keys may not be readable for everyone", "error", warning.Error())
	}
	if changed {
		k.published(public)
	}
	k.seen(ring)
	return ring, nil
}

func (k Keeper) published(p Public) {
	k.Log.Info("published the public keys", "configmap", k.Namespace+"/"+PublicConfigMap,
		"recipient", p.Recipients[0].String(), "certificate", p.Cert.Fingerprint())
}

// Run follows the key Secrets and the ConfigMap gitseal-keys until ctx ends. ring is what
// Prepare has published.
//
// A key that is added, relabelled or removed, and a generation that is asked for, are dealt
// with at once. What somebody else writes into the ConfigMap is put back: the first time at
// once, then after growing pauses, so that another writer who insists costs little. While
// nothing changes there are two watches and no other request.
func (k Keeper) Run(ctx context.Context, ring *Ring) {
	published, err := ring.Public()
	if err != nil { // Prepare gives no such ring
		published = Public{}
	}
	w := k.watch(ctx, ring, published)
	defer w.stop()
	go w.followSecrets(k)
	go w.followConfigMap(k)
	var hold, retry <-chan time.Time // until then nothing is put back; then it is tried again
	var held, failed time.Duration
	var last time.Time
	for {
		differs := w.differs
		if hold != nil {
			differs = nil
		}
		puttingBack := false
		select {
		case <-ctx.Done():
			return
		case <-hold:
			hold = nil
			continue
		case <-differs:
			puttingBack = true
		case <-w.keys:
		case <-retry:
		}
		retry = nil
		if puttingBack {
			if time.Since(last) > calm {
				held = 0
			}
			held = min(max(2*held, firstPause), maxPause)
			last, hold = time.Now(), time.After(held)
		}
		now, changed, err := k.step(ctx, w, ring)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failed = min(max(2*failed, firstPause), maxPause)
			retry = time.After(failed)
			k.Log.Error("the keys could not be followed or published", "namespace", k.Namespace, "error", err.Error(), "retry", failed)
		default:
			failed = 0
			if changed && puttingBack && now.same(ring) {
				k.Log.Info("the public keys were changed in the cluster and put back", "configmap", k.Namespace+"/"+PublicConfigMap)
			}
		}
		if now != nil {
			ring = now
		}
		if !pause(ctx, breath) {
			return
		}
	}
}

// step reads the keys, does what is asked for, and publishes. The ring is what it read,
// nil where it could not, also where it fails later.
func (k Keeper) step(ctx context.Context, w *keyWatch, before *Ring) (ring *Ring, changed bool, err error) {
	ring, err = k.settle(ctx)
	if err != nil {
		return nil, false, err
	}
	w.knows(ring)
	k.seen(ring)
	if !ring.same(before) {
		k.tell(before, ring)
		if k.Changed != nil {
			k.Changed()
		}
	}
	public, err := ring.Public()
	if err != nil {
		return ring, false, err
	}
	w.wants(public)
	changed, _, err = k.Publish(ctx, public) // the warning was given when the agent started
	return ring, changed, err
}

func (k Keeper) seen(ring *Ring) {
	if k.Seen != nil {
		k.Seen(ring)
	}
}

// tell says what became of the keys.
func (k Keeper) tell(before, now *Ring) {
	was := map[int]State{}
	for _, g := range before.Generations {
		was[g.Number] = g.State
	}
	for _, g := range now.Generations {
		if was[g.Number] != g.State {
			k.Log.Info("key generation", "number", g.Number, "state", string(g.State), "before", string(was[g.Number]), "recipient", g.Identity.Recipient().Fingerprint())
		}
		delete(was, g.Number)
	}
	for n := range was {
		k.Log.Warn("key generation is gone", "number", n)
	}
}

// settle reads the agent's own keys, makes the generation that is asked for, and makes
// those active that waited for their backup.
func (k Keeper) settle(ctx context.Context) (*Ring, error) {
	ctx = unlogged(ctx)
	cm, err := k.Client.CoreV1().ConfigMaps(k.Namespace).Get(ctx, PublicConfigMap, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, k.apiError("read ConfigMap "+PublicConfigMap, err)
	}
	ring, err := k.own(ctx) // after the wish was read: what it asks for may be there by now
	if err != nil {
		return nil, err
	}
	again := false
	if wish, there := wishOf(cm); there && err == nil {
		switch newest := ring.Newest(); {
		case wish.open(newest):
			if err := k.make(ctx, newest+1); err != nil {
				return nil, err
			}
			again = true
		case !wish.fulfilled(newest):
			k.Log.Warn("a key generation is asked for that can not be made: ignored", "annotation", GenerationAnnotation, "newest", newest)
		}
	}
	promoted, err := k.promote(ctx, ring)
	if err != nil {
		return nil, err
	}
	if again || promoted {
		return k.own(ctx)
	}
	return ring, nil
}

// make makes a generation, unless another agent is quicker.
func (k Keeper) make(ctx context.Context, number int) error {
	g, err := newGeneration(number, Active, k.Now())
	if err != nil {
		return err
	}
	if k.RequireBackup {
		g.State, g.awaits = Standby, true
	}
	if err := k.create(ctx, g); err != nil && !apierrors.IsAlreadyExists(err) {
		return k.apiError(fmt.Sprintf("create key generation %d", number), err)
	}
	return nil
}

// promote makes generations active that waited for their backup, and have it, or need
// none any more.
func (k Keeper) promote(ctx context.Context, ring *Ring) (any bool, err error) {
	secrets := k.Client.CoreV1().Secrets(k.Namespace)
	for _, g := range ring.Generations {
		if !g.awaits || g.State != Standby || k.RequireBackup && g.BackedUp.IsZero() {
			continue
		}
		// By a list, for which the agent has the right.
		l, err := secrets.List(ctx, metav1.ListOptions{FieldSelector: metav1.ObjectNameField + "=" + g.SecretName()})
		if err != nil {
			return any, k.apiError("read "+g.SecretName(), err)
		}
		if len(l.Items) != 1 || l.Items[0].Labels[StateLabel] != string(Standby) {
			continue // somebody else was quicker
		}
		s := &l.Items[0]
		s.Labels[StateLabel] = string(Active)
		delete(s.Annotations, awaitsAnnotation)
		if _, err := secrets.Update(ctx, s, metav1.UpdateOptions{}); err != nil && !apierrors.IsConflict(err) {
			return any, k.apiError("make "+g.SecretName()+" active", err)
		}
		any = true
	}
	return any, nil
}

// pause reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

var errNoWatch = errors.New("the connection ended before the watch began")
