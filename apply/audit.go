package apply

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// auditGrace is how long the watches have to tell what an audit has found.
const auditGrace = 2 * time.Second

// Audit lists the metadata of every kind that is watched and compares it with what
// the watches told. It returns how many objects had drifted without their telling;
// those are taken for drift now. It takes two seconds more if it finds anything.
func (d *Drift) Audit(ctx context.Context) (missed int, err error) {
	d.mu.Lock()
	kinds := map[schema.GroupVersionResource]schema.GroupKind{}
	for _, w := range d.watches {
		if w.polled == nil {
			kinds[w.gvr] = w.gk
		}
	}
	d.mu.Unlock()
	suspects := map[ID]suspect{}
	for gvr, gk := range kinds {
		l, err := d.cluster.labelled(gvr, d.owner).List(ctx, metav1.ListOptions{LabelSelector: d.owner.selector()})
		if apierrors.IsNotFound(err) {
			continue // the kind is gone, and its objects with it
		}
		if err != nil {
			return 0, fmt.Errorf("audit %s: %w", gk, refused(err, false))
		}
		d.suspect(gk, l, suspects)
	}
	if len(suspects) == 0 {
		return 0, nil
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(auditGrace):
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, s := range suspects {
		_, flying := d.flight[id]
		if e, ok := d.entries[id]; ok && e.Evidence == s.evidence && e.Phase == Applied && !flying && !d.told[id] && (d.held[id] == "" || s.why == notThere) {
			delete(d.held, id)
			d.flag(id, s.why+", which the watch had not told")
			missed++
		}
	}
	return missed, nil
}

// suspect is an object that is not as we left it.
type suspect struct {
	evidence Evidence // what it should be like
	why      string
}

func (d *Drift) suspect(gk schema.GroupKind, l *metav1.PartialObjectMetadataList, into map[ID]suspect) {
	d.mu.Lock()
	defer d.mu.Unlock()
	there := map[ID]bool{}
	for i := range l.Items {
		m := &l.Items[i]
		id := idOf(gk, m)
		there[id] = true
		e, known := d.entries[id]
		if known && e.Phase == Applied && !older(m.GetResourceVersion(), e.resourceVersion) {
			if why := d.differs(e, m); why != "" {
				into[id] = suspect{e.Evidence, why}
			}
		}
	}
	for _, id := range d.missing(gk, there, l.ResourceVersion) {
		into[id] = suspect{d.entries[id].Evidence, notThere}
	}
}
