package apply

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Strays are objects that this Sync has applied and that are not in the inventory: what
// is left of one that was lost. It lists the metadata of each kind of the inventory once;
// a kind that can not be listed is left out.
func (r *Runner) Strays(ctx context.Context, inv Inventory) []ID {
	kinds := map[schema.GroupVersionResource]schema.GroupKind{}
	for id, e := range inv.Entries {
		kinds[e.gvr(id)] = id.GroupKind()
	}
	var out []ID
	for gvr, gk := range kinds {
		out = append(out, r.straysOf(ctx, gvr, gk, inv)...)
	}
	slices.SortFunc(out, compareIDs)
	return out
}

func (r *Runner) straysOf(ctx context.Context, gvr schema.GroupVersionResource, gk schema.GroupKind, inv Inventory) []ID {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	l, err := r.Cluster.labelled(gvr, r.Owner).List(ctx, metav1.ListOptions{LabelSelector: r.Owner.selector()})
	if err != nil {
		return nil
	}
	var out []ID
	for i := range l.Items {
		m := &l.Items[i]
		id := idOf(gk, m)
		_, known := inv.Entries[id]
		// Controllers copy labels to objects of their own; no other hand applies ours.
		if !known && m.GetDeletionTimestamp() == nil && ownedBy(m, labelPath, func(f metav1.ManagedFieldsEntry) bool { return isOurs(f, r.Owner.fieldManager()) }) {
			out = append(out, id)
		}
	}
	return out
}

// StraysWarning says of strays, of which there are some, what can be done about them.
func StraysWarning(o Owner, strays []ID) string {
	return fmt.Sprintf("the inventory was lost, and %d objects that this sync has applied are not in git: %s, for instance; they are not pruned. To take one back, put it into git again; to be rid of it, delete it with kubectl. What the sync has applied carries the label %s", len(strays), strays[0], o.selector())
}
