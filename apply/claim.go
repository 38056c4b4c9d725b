package apply

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/gitseal/gitseal/crypto"
)

// send applies a body, and returns what of it was accepted in the end.
//
// What this Sync never applied before, or what may be another's by now, is sent
// without force first: every Sync owns its label on an object with another value, so
// that of another one answers with a conflict, at no request more than a new object
// costs. Conflicts with anybody else are overruled, but for the fields that they may
// take over.
func (r *Runner) send(ctx context.Context, d Desired, step Step, e Entry, body crypto.Secret) (a answer, sent crypto.Secret, requests int, err error) {
	isNew := e.Evidence.UID == ""
	yields := len(d.ignored) > 0 || hasReplicas(d) && (isNew || r.Drift.mayBeScaled(d.ID))
	if yields && !isNew {
		requests++
		if body, err = r.yield(ctx, d, e, body); err != nil {
			return a, body, requests, err
		}
	}
	relabelled := ""
	if isNew || step.mayBeAnothers() {
		requests++
		a, err = r.Cluster.apply(ctx, d.kind.resource, d.ID, body, r.Owner.fieldManager(), false)
		if !apierrors.IsConflict(err) {
			return a, body, requests, err
		}
		relabelled = labelledBy(err, r.Owner.fieldManager())
		if other, is := syncOf(relabelled); is {
			return a, body, requests, &ClaimedError{By: other}
		}
	}
	if yields && isNew {
		requests++
		if body, err = r.yield(ctx, d, e, body); err != nil {
			return a, body, requests, err
		}
	}
	a, err = r.Cluster.apply(ctx, d.kind.resource, d.ID, body, r.Owner.fieldManager(), true)
	a.relabelled = relabelled
	return a, body, requests + 1, err
}

// mayBeAnothers reports whether the object that the step is about may have another
// owner by now.
func (s Step) mayBeAnothers() bool {
	return strings.HasPrefix(s.Reason, notThere) || strings.HasPrefix(s.Reason, madeAnew)
}

// ClaimedError says that another Sync has applied an object.
type ClaimedError struct{ By string }

func (e *ClaimedError) Error() string {
	return fmt.Sprintf("the Sync %s has applied it already; remove it from one of the two (to move it without a deletion, give it the annotation gitseal.io/prune: disabled there, then remove it there), or, if that Sync is gone, remove the object's label %s", e.By, SyncLabel)
}

const managerPrefix = "gitseal."

// syncOf names the Sync whose field manager it is.
func syncOf(manager string) (name string, is bool) {
	name, is = strings.CutPrefix(manager, managerPrefix)
	return strings.Replace(name, ".", "/", 1), is // a namespace has no dots
}

// claimedBy names the other Sync that owns the label of an object, or "".
func claimedBy(m metav1.Object, own string) string {
	for _, f := range m.GetManagedFields() {
		if other, is := syncOf(f.Manager); is && f.Manager != own && owns(m, f.Manager, labelPath) {
			return other
		}
	}
	return ""
}

// conflictWith is how the API server names the other owner of a field
// (structured-merge-diff, merge.Conflict).
var conflictWith = regexp.MustCompile(`^conflict with "([^"]+)"`)

// labelledBy names the other manager who owns the label, or "". Of several, with the
// same value, another Sync is the one that counts.
func labelledBy(err error, own string) (manager string) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return ""
	}
	for _, c := range status.Status().Details.Causes {
		match := conflictWith.FindStringSubmatch(c.Message)
		if match == nil || !strings.HasSuffix(c.Field, SyncLabel) || match[1] == own {
			continue
		}
		if _, is := syncOf(match[1]); is || manager == "" {
			manager = match[1]
		}
	}
	return manager
}

// release gives an object up without deleting it: our label and the ownership of
// our fields go, so that another may have it, and with them the annotation by which
// git asked for it, which would bind the next owner. Nothing else changes.
func (r *Runner) release(ctx context.Context, gvr schema.GroupVersionResource, id ID, m metav1.Object, annotation string) error {
	var patch []map[string]any
	remove := func(field, key string) {
		patch = append(patch, map[string]any{"op": "remove", "path": "/metadata/" + field + "/" + strings.ReplaceAll(key, "/", "~1")})
	}
	if _, ok := m.GetLabels()[SyncLabel]; ok {
		remove("labels", SyncLabel)
	}
	if _, ok := m.GetAnnotations()[annotation]; ok && annotation == pruneAnnotation && ownsAnnotation(m, r.Owner.fieldManager(), annotation) {
		remove("annotations", annotation)
	}
	rest := slices.DeleteFunc(slices.Clone(m.GetManagedFields()), func(f metav1.ManagedFieldsEntry) bool { return f.Manager == r.Owner.fieldManager() })
	if len(rest) == 0 {
		rest = []metav1.ManagedFieldsEntry{{}} // an empty list would change nothing
	}
	err := r.setOwnership(ctx, gvr, id, m, rest, patch...)
	var answer *RefusedError
	if err == nil || errors.As(err, &answer) && answer.Reason == metav1.StatusReasonNotFound {
		return nil
	}
	return fmt.Errorf("could not be given up: %w", err)
}

func ownsAnnotation(m metav1.Object, manager, annotation string) bool {
	return owns(m, manager, fieldpath.MakePathOrDie("metadata", "annotations", annotation))
}

func owns(m metav1.Object, manager string, path fieldpath.Path) bool {
	return ownedBy(m, path, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == manager })
}

// ownedBy reports whether one of these managers' entries has the field.
func ownedBy(m metav1.Object, path fieldpath.Path, these func(metav1.ManagedFieldsEntry) bool) bool {
	return slices.ContainsFunc(m.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		if !these(f) || f.FieldsV1 == nil {
			return false
		}
		set, err := fieldSet(f)
		return err == nil && set.Has(path)
	})
}
