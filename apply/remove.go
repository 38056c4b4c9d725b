package apply

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Remove takes a Sync out of the cluster: all that it has applied is pruned by the
// rules of every prune or, with orphan, given up, so that it stays as it is. Once
// nothing is left its inventory goes, too. What was held back is in Result.Kept, and
// in the inventory.
func (r *Runner) Remove(ctx context.Context, inv Inventory, orphan bool) (Result, error) {
	p := Plan{owner: r.Owner, inventory: inv, source: inv.Source}
	res := Result{Inventory: inv.Clone()}
	if orphan {
		r.orphanAll(ctx, &res)
	} else {
		for _, id := range inv.pruneOrder(inv.IDs()) {
			p.Steps = append(p.Steps, Step{id, Prune, "the Sync is deleted"})
		}
		r.pruneAll(ctx, p, &res)
	}
	if len(res.Inventory.Entries) == 0 && ctx.Err() == nil {
		return res, r.Store.Delete(ctx)
	}
	if err := r.Store.Save(context.WithoutCancel(ctx), res.Inventory); err != nil {
		return res, err
	}
	return res, ctx.Err()
}

func (r *Runner) orphanAll(ctx context.Context, res *Result) {
	for _, id := range res.Inventory.IDs() {
		if ctx.Err() != nil {
			return
		}
		m, gvr, err := r.find(ctx, id, res.Inventory.Entries[id].gvr(id), res)
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			res.Kept = append(res.Kept, Failure{ID: id, Err: refused(err, false)})
			continue
		case m.GetLabels()[SyncLabel] == r.Owner.label():
			res.Requests++
			if err := r.release(ctx, gvr, id, m, ""); err != nil {
				res.Kept = append(res.Kept, Failure{ID: id, Err: err})
				continue
			}
			res.Done = append(res.Done, Done{id, Release, "the Sync is deleted"})
		}
		delete(res.Inventory.Entries, id)
	}
}
