package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kindWatch is how a kind is followed: by a watch or, where that is forbidden, by a
// look now and then.
type kindWatch struct {
	gk     schema.GroupKind
	gvr    schema.GroupVersionResource // as it is served now; objects live on in another version
	stop   context.CancelFunc
	began  time.Time
	synced bool
	err    error // of the last request
	polled error // why it is not watched; nil where it is
}

// syncTimeout is how long a pass waits for the watches' first word.
const syncTimeout = 10 * time.Second

// Unhealthy lists the kinds of which nothing is known just now. A kind that the
// cluster does not serve any more is not among them: its objects are gone.
func (d *Drift) Unhealthy() map[schema.GroupKind]error {
	return d.kinds(func(w *kindWatch) error {
		if err := w.health(); err != errNotSeen || time.Since(w.began) > syncTimeout { //nolint:errorlint // never wrapped
			return err
		}
		return nil // it has only begun
	})
}

// unknown are also the kinds of which nothing has been heard yet.
func (d *Drift) unknown() map[schema.GroupKind]error { return d.kinds((*kindWatch).health) }

var errNotSeen = errors.New("nothing has been heard of it yet")

func (w *kindWatch) health() error {
	switch {
	case apierrors.IsNotFound(w.err):
		return nil
	case w.err == nil && !w.synced:
		return errNotSeen
	}
	return w.err
}

// Polled lists the kinds that the identity may not watch, and the answer to it: their
// drift is seen at the next look only.
func (d *Drift) Polled() map[schema.GroupKind]error {
	return d.kinds(func(w *kindWatch) error { return w.polled })
}

func (d *Drift) kinds(which func(*kindWatch) error) map[schema.GroupKind]error {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := map[schema.GroupKind]error{}
	for _, w := range d.watches {
		if err := which(w); err != nil {
			out[w.gk] = err
		}
	}
	return out
}

// Synced reports whether the state of every kind has been seen.
func (d *Drift) Synced() bool {
	return d.all(func(w *kindWatch) bool { return w.synced })
}

func (d *Drift) all(are func(*kindWatch) bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.watches {
		if !are(w) {
			return false
		}
	}
	return true
}

// AwaitSync waits until every kind has been seen, or can not be: what changed while
// nobody watched is known then.
func (d *Drift) AwaitSync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	for !d.all(func(w *kindWatch) bool { return w.synced || w.err != nil }) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// start follows a kind until its watch is stopped. The caller holds mu.
func (d *Drift) start(gvr schema.GroupVersionResource, gk schema.GroupKind) {
	ctx, stop := context.WithCancel(d.ctx)
	w := &kindWatch{gk: gk, gvr: gvr, stop: stop, began: time.Now()}
	d.watches[gvr] = w
	go func() {
		for ctx.Err() == nil {
			now := d.at(w)
			d.follow(ctx, now, w) // until it is forbidden, or served in another version
			if d.at(w) != now {
				continue
			}
			d.poll(ctx, now, w)
			select {
			case <-ctx.Done():
			case <-time.After(cmp.Or(d.Poll, time.Minute)):
			}
		}
	}()
}

func (d *Drift) at(w *kindWatch) schema.GroupVersionResource {
	d.mu.Lock()
	defer d.mu.Unlock()
	return w.gvr
}

// served is where a kind is found now, if that is not where it was.
func (c *Cluster) served(was schema.GroupVersionResource, gk schema.GroupKind) schema.GroupVersionResource {
	c.forget()
	m, err := c.mapper.RESTMapping(gk)
	if err != nil {
		return was
	}
	return m.Resource
}

// follow watches a kind until ctx ends, the API server forbids it, or the kind is served
// in another version only.
func (d *Drift) follow(ctx context.Context, gvr schema.GroupVersionResource, w *kindWatch) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	note := func(verb string, err error) {
		now := gvr
		if apierrors.IsNotFound(err) && ctx.Err() == nil {
			now = d.cluster.served(gvr, w.gk)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if now != gvr {
			w.gvr = now
			cancel()
		}
		switch {
		case ctx.Err() != nil:
		case apierrors.IsForbidden(err):
			w.polled = err
			cancel()
		default:
			w.err = err
			if verb == "watch" && err == nil {
				w.polled = nil
			}
		}
	}
	follow(ctx, d.cluster.labelled(gvr, d.owner), gvr, d.owner, &metav1.PartialObjectMetadata{}, &kindStore{d: d, w: w}, note)
}

// poll looks at a kind once.
func (d *Drift) poll(ctx context.Context, gvr schema.GroupVersionResource, w *kindWatch) {
	if ctx.Err() != nil {
		return
	}
	err := d.look(ctx, gvr, w)
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() == nil {
		w.err = err
	}
}

// look lists a kind or, where that is forbidden, gets each object of it that the
// inventory holds.
func (d *Drift) look(ctx context.Context, gvr schema.GroupVersionResource, w *kindWatch) error {
	l, err := d.cluster.labelled(gvr, d.owner).List(ctx, metav1.ListOptions{LabelSelector: d.owner.selector()})
	store := &kindStore{d: d, w: w}
	switch {
	case apierrors.IsForbidden(err):
		l, store.only, err = d.getEach(ctx, gvr, w.gk)
	case apierrors.IsNotFound(err): // the kind is gone, and its objects with it
		l, err = &metav1.PartialObjectMetadataList{}, nil
	}
	if err != nil {
		return err
	}
	items := make([]any, len(l.Items))
	for i := range l.Items {
		items[i] = &l.Items[i]
	}
	return store.Replace(items, l.ResourceVersion)
}

func (d *Drift) getEach(ctx context.Context, gvr schema.GroupVersionResource, gk schema.GroupKind) (*metav1.PartialObjectMetadataList, map[ID]bool, error) {
	d.mu.Lock()
	ids := map[ID]bool{}
	for id, e := range d.entries {
		if id.GroupKind() == gk && e.Phase == Applied {
			ids[id] = true
		}
	}
	d.mu.Unlock()
	l := &metav1.PartialObjectMetadataList{}
	for id := range ids {
		m, err := d.cluster.get(ctx, gvr, id)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			return nil, nil, err
		case m.GetLabels()[SyncLabel] == d.owner.label():
			l.Items = append(l.Items, *m)
		}
	}
	return l, ids, nil
}

// Survey looks at every kind of the inventory once and returns what drifted:
// for a process that does not stay to watch.
func (r *Runner) Survey(ctx context.Context, inv Inventory) (drifted, held map[ID]string, err error) {
	d := NewDrift(ctx, r.Cluster, r.Owner)
	d.entries = inv.Entries
	kinds := map[schema.GroupVersionResource]schema.GroupKind{}
	for id, e := range inv.Entries {
		if e.Phase == Applied {
			kinds[e.gvr(id)] = id.GroupKind()
		}
	}
	for gvr, gk := range kinds {
		if err := d.look(ctx, gvr, &kindWatch{gk: gk}); err != nil {
			return nil, nil, fmt.Errorf("look at %s in the cluster: %w", gk, refused(err, false))
		}
	}
	return d.Take(), d.held, nil
}
