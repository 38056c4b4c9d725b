package apply

import (
	"context"
	"encoding/json"
	"errors"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
)

// Preview is what one step of a plan would change.
type Preview struct {
	Step
	// Live and Planned are the object before and after, as the API server has it and
	// says it would be; nil where there is none, and for Secrets, which are not read.
	Live, Planned *unstructured.Unstructured
	// Refused says why the API server would not take it; nil if it would.
	Refused error
}

// Previews asks the API server, by dry runs, what a plan of objects that were rendered
// without keys would change. Nothing is written, and Secrets are neither sent nor read.
// What turns out to change nothing is left; what is new in git, and in the cluster
// already, is adopted. The error is the first that was not about
// an object.
func (r *Runner) Previews(ctx context.Context, p Plan) ([]Preview, error) {
	out := make([]Preview, len(p.Steps))
	errs := make([]error, len(p.Steps))
	inOrder(make([][]int, len(p.Steps)), Concurrency, func(i int) {
		out[i] = Preview{Step: p.Steps[i]}
		if i < len(p.Desired) && p.Steps[i].Action != Leave && ctx.Err() == nil {
			errs[i] = r.preview(ctx, p.Desired[i], p.inventory.Entries[p.Desired[i].ID], &out[i])
		}
	})
	return out, errors.Join(append(errs, ctx.Err())...)
}

func (r *Runner) preview(ctx context.Context, d Desired, e Entry, into *Preview) error {
	alone, _, _, err := r.leftAlone(ctx, d)
	switch {
	case err != nil:
		return err
	case alone:
		into.Action, into.Reason = Leave, "it asks for it by annotation"
		return nil
	case isSecret(d.ID) || d.Object.CarriesPlaintext():
		return nil
	}
	of := r.Cluster.whole(d.kind.resource, d.ID.Namespace)
	ctx, cancel := context.WithTimeout(klog.NewContext(ctx, klog.Logger{}), requestTimeout)
	defer cancel()
	if into.Live, err = of.Get(ctx, d.ID.Name, metav1.GetOptions{}); err != nil {
		into.Live = nil
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	if into.Live != nil && into.Action == Create {
		if by := claimedBy(into.Live, r.Owner.fieldManager()); by != "" {
			into.Live, into.Planned, into.Refused = told(into.Live), told(d.Object.Shown()), &ClaimedError{By: by}
			return nil
		}
		_, theirs := r.predecessorsOf(d.ID, into.Live)
		from := managersOf(into.Live.GetManagedFields(), theirs)
		into.Reason = takingOver(into.Reason, from)
		into.Step = into.adopting(from)
	}
	if into.Live != nil && (len(d.ignored) > 0 || hasReplicas(d)) {
		d.Object = d.Object.Without(takenOver(into.Live, r.Owner.fieldManager(), d, e)...)
	}
	body, err := r.unsealedBody(d)
	if err != nil {
		return err
	}
	into.Planned, err = of.Patch(ctx, d.ID.Name, types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: r.Owner.fieldManager(), Force: ptr.To(true), DryRun: []string{metav1.DryRunAll}})
	var status apierrors.APIStatus
	switch {
	case err == nil:
		into.Live, into.Planned = told(into.Live), told(into.Planned)
		if into.Reason == changedInput && into.Live != nil && sameObject(into.Live, into.Planned) {
			into.Action, into.Reason, into.Live, into.Planned = Leave, "", nil, nil
		}
	case apierrors.IsNotFound(err) && into.Live == nil: // its namespace or kind comes with it
		into.Planned = told(d.Object.Shown())
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || !errors.As(err, &status):
		return err
	default:
		into.Live, into.Planned, into.Refused = told(into.Live), told(d.Object.Shown()), refused(err, false)
	}
	return nil
}

// unsealedBody is that of an object without sealed values.
func (r *Runner) unsealedBody(d Desired) ([]byte, error) {
	u := d.Object.Shown()
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, r.Owner.labels())
	u.SetLabels(labels)
	return json.Marshal(u.Object)
}

// told is an object without what the API server keeps for itself.
func told(u *unstructured.Unstructured) *unstructured.Unstructured {
	if u == nil {
		return nil
	}
	u = u.DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(u.Object, "metadata", "labels", SyncLabel)
	if labels := u.GetLabels(); len(labels) == 0 {
		unstructured.RemoveNestedField(u.Object, "metadata", "labels")
	}
	delete(u.Object, "status")
	return u
}

func sameObject(a, b *unstructured.Unstructured) bool {
	x, errA := json.Marshal(a.Object)
	y, errB := json.Marshal(b.Object)
	return errA == nil && errB == nil && string(x) == string(y)
}
