package apply

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// Drift watches the metadata of what was applied: one watch for each kind,
// filtered by the Sync's label, and no request besides. It stores nothing of
// the objects. Safe for concurrent use; a nil *Drift does nothing.
type Drift struct {
	ctx     context.Context // of all watches: they outlive the pass that starts them
	cluster *Cluster
	owner   Owner
	wake    chan struct{}

	// Poll is the time between looks at a kind that the identity may not watch;
	// one minute if it is 0.
	Poll time.Duration

	mu      sync.Mutex
	entries map[ID]Entry
	flight  map[ID]*sighting // being written: what was seen of it meanwhile, or nil
	drifted map[ID]string
	told    map[ID]bool   // drifted, and not written since
	held    map[ID]string // the annotation in the cluster by which an object asks not to be written
	scaled  map[ID]bool   // an autoscaler owns its replicas
	watches map[schema.GroupVersionResource]*kindWatch
}

type sighting struct {
	metadata *metav1.PartialObjectMetadata
	gone     bool
}

// NewDrift starts nothing yet; watches begin with the first pass and end with
// ctx.
func NewDrift(ctx context.Context, c *Cluster, owner Owner) *Drift {
	return &Drift{
		ctx: ctx, cluster: c, owner: owner, wake: make(chan struct{}, 1),
		entries: map[ID]Entry{}, flight: map[ID]*sighting{}, drifted: map[ID]string{}, told: map[ID]bool{}, held: map[ID]string{}, scaled: map[ID]bool{},
		watches: map[schema.GroupVersionResource]*kindWatch{},
	}
}

// Wake receives when something drifted since the last Take.
func (d *Drift) Wake() <-chan struct{} { return d.wake }

// Take returns what drifted, with the reason, and forgets it.
func (d *Drift) Take() map[ID]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.drifted
	d.drifted = map[ID]string{}
	return out
}

// begin says that id is about to be written: events of it wait until end.
func (d *Drift) begin(id ID) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.flight[id]; !ok {
		d.flight[id] = nil
	}
}

// end takes over the new evidence and judges what was seen meanwhile by it.
func (d *Drift) end(id ID, e Entry) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := d.flight[id]
	delete(d.flight, id)
	delete(d.drifted, id)
	delete(d.told, id)
	d.entries[id] = e
	if seen != nil {
		d.see(id, *seen)
	}
}

// see judges an event, or keeps it until the write is over. The caller holds mu.
func (d *Drift) see(id ID, s sighting) {
	if _, flying := d.flight[id]; flying {
		d.flight[id] = &s
		return
	}
	e, known := d.entries[id]
	if known && !s.gone && autoscaled(s.metadata) {
		d.scaled[id] = true
	} else {
		delete(d.scaled, id)
	}
	if known && d.hold(id, s) {
		return
	}
	if !known || e.Phase != Applied || older(s.metadata.GetResourceVersion(), e.resourceVersion) {
		return
	}
	if s.gone {
		d.flag(id, notThere)
		return
	}
	if why := d.differs(e, s.metadata); why != "" {
		d.flag(id, why)
	}
}

// missing are the objects that a list of their kind, of this version, should have had.
// The caller holds mu.
func (d *Drift) missing(gk schema.GroupKind, there map[ID]bool, resourceVersion string) []ID {
	var out []ID
	for id, e := range d.entries {
		_, flying := d.flight[id]
		if id.GroupKind() == gk && e.Phase == Applied && !there[id] && !flying && !older(resourceVersion, e.resourceVersion) {
			out = append(out, id)
		}
	}
	return out
}

// hold notes an object that asks in the cluster not to be written, and reports
// whether it does. Once it no longer does it is looked at like drift, since git may
// have changed meanwhile. The caller holds mu.
func (d *Drift) hold(id ID, s sighting) bool {
	before, was := d.held[id]
	annotation := ""
	if !s.gone {
		annotation = unreconciled(s.metadata)
	}
	switch {
	case annotation != "":
		d.held[id] = annotation
		delete(d.drifted, id)
		return true
	case was:
		delete(d.held, id)
		if !s.gone {
			d.flag(id, "it had the annotation "+before+" in the cluster, and has it no more")
			return true
		}
	}
	return false
}

// mayBeScaled reports whether an autoscaler may own the replicas of an object; true
// where that is not known.
func (d *Drift) mayBeScaled(id ID) bool {
	if d == nil {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known := false
	for _, w := range d.watches {
		if w.gk == id.GroupKind() {
			known = w.synced && w.err == nil && w.polled == nil
		}
	}
	return !known || d.scaled[id]
}

// Held lists the objects that ask in the cluster not to be written, and the
// annotation by which they do.
func (d *Drift) Held() map[ID]string {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.held)
}

// Track takes over the inventory, as it was loaded or after a pass, and starts and
// stops watches so that every kind in it is watched.
func (d *Drift) Track(inv Inventory) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.flight)
	want := map[schema.GroupVersionResource]schema.GroupKind{}
	for id, e := range inv.Entries {
		if d.entries[id] != e { // few do after a pass: cheaper than a copy of all
			d.entries[id] = e
		}
		if e.Phase == Applied {
			want[e.gvr(id)] = id.GroupKind()
		}
	}
	if len(d.entries) > len(inv.Entries) {
		d.forget(func(id ID) bool { _, ok := inv.Entries[id]; return !ok })
	}
	for gvr, w := range d.watches {
		if _, ok := want[gvr]; !ok {
			w.stop()
			delete(d.watches, gvr)
		}
	}
	for gvr, gk := range want {
		if _, ok := d.watches[gvr]; !ok {
			d.start(gvr, gk)
		}
	}
}

// forget drops all that is known of objects. The caller holds mu.
func (d *Drift) forget(left func(ID) bool) {
	maps.DeleteFunc(d.entries, func(id ID, _ Entry) bool { return left(id) })
	maps.DeleteFunc(d.drifted, func(id ID, _ string) bool { return left(id) })
	maps.DeleteFunc(d.held, func(id ID, _ string) bool { return left(id) })
	maps.DeleteFunc(d.told, func(id ID, _ bool) bool { return left(id) })
	maps.DeleteFunc(d.scaled, func(id ID, _ bool) bool { return left(id) })
}

// differs says how the cluster differs from our last apply, or "".
func (d *Drift) differs(e Entry, m *metav1.PartialObjectMetadata) string {
	switch {
	case m.GetDeletionTimestamp() != nil: // a DELETED event follows
		return ""
	case e.Once: // it is there, and the rest is others'
		return ""
	case e.Evidence.holds(m, d.owner.fieldManager(), e.Ignored):
		return ""
	case string(m.GetUID()) != e.Evidence.UID:
		return madeAnew
	}
	if who := foreignManager(m, d.owner.fieldManager()); who != "" {
		return fmt.Sprintf("it was changed in the cluster, last by %q", who)
	}
	return "its fields were changed in the cluster"
}

func (d *Drift) flag(id ID, why string) {
	d.drifted[id], d.told[id] = why, true
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// older reports whether an event is not newer than our own last write.
func older(event, ours string) bool {
	if ours == "" || event == "" {
		return false
	}
	c, err := resourceversion.CompareResourceVersion(event, ours)
	return err == nil && c <= 0
}
