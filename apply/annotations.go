package apply

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Annotations by which an object asks to be left alone, as people who come from
// Flux have them.
const (
	fluxReconcile = "kustomize.toolkit.fluxcd.io/reconcile"
	fluxSSA       = "kustomize.toolkit.fluxcd.io/ssa"
)

// leftAlone reports whether an object is not to be written: never, or because it
// is to be created only and is there.
func (r *Runner) leftAlone(ctx context.Context, d Desired) (yes bool, requests int, err error) {
	a := d.Object.Masked.GetAnnotations()
	switch {
	case a[fluxReconcile] == "disabled", a[fluxSSA] == "Ignore":
		return true, 0, nil
	case a[fluxSSA] != "IfNotPresent":
		return false, 0, nil
	}
	_, err = r.Cluster.get(ctx, d.kind.resource, d.ID)
	switch {
	case apierrors.IsNotFound(err):
		return false, 1, nil
	case err != nil:
		return false, 1, refused(err, false)
	}
	return true, 1, nil
}
