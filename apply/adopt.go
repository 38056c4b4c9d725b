package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/gitseal/gitseal/crypto"
)

// predecessors are tools that applied from files what gitseal applies from now
// on. As co-owners of fields they would keep each field for ever that later
// leaves git.
var predecessors = []string{
	"kustomize-controller", "argocd-controller", "argocd-application-controller",
	"kubectl", "kubectl-client-side-apply", "kubectl-last-applied",
	"helm", "helm-controller",
}

// sealedSecretsManager is what the controller of sealed-secrets calls itself. The
// name is common, so it counts only on a Secret that a SealedSecret owned.
const sealedSecretsManager = "controller"

// adopt takes over the fields of predecessors from an object that is new in the
// inventory and was in the cluster before: their entries become part of ours, and
// the body, sent again, removes what git does not name. It returns what it took
// over from, nothing where there was nothing to do.
func (r *Runner) adopt(ctx context.Context, d Desired, m *metav1.PartialObjectMetadata, body crypto.Secret) (after *metav1.PartialObjectMetadata, from []string, requests int, err error) {
	fields := m.GetManagedFields()
	ours, theirs := r.predecessorsOf(d.ID, m)
	if ours < 0 || len(theirs) == 0 {
		return m, nil, 0, nil
	}
	union, err := fieldSet(fields[ours])
	if err != nil {
		return m, nil, 0, err
	}
	for _, i := range theirs {
		set, err := fieldSet(fields[i])
		if err != nil {
			return m, nil, 0, err
		}
		union = union.Union(set)
	}
	from = managersOf(fields, theirs)
	raw, err := union.ToJSON()
	if err != nil {
		return m, nil, 0, errors.New("its field ownership can not be written")
	}
	var next []metav1.ManagedFieldsEntry
	for i, f := range fields {
		if slices.Contains(theirs, i) {
			continue
		}
		if i == ours {
			f.FieldsV1 = metav1.NewFieldsV1(string(raw))
		}
		next = append(next, f)
	}
	if err := r.setOwnership(ctx, d.kind.resource, d.ID, m, next); err != nil {
		return m, nil, 1, err
	}
	again, err := r.Cluster.apply(ctx, d.kind.resource, d.ID, body, r.Owner.fieldManager(), true)
	if err != nil {
		return m, nil, 2, refused(err, d.Object.CarriesPlaintext())
	}
	return again.PartialObjectMetadata, from, 2, nil
}

// predecessorsOf finds our entry of the managedFields, -1 if there is none, and those
// that are to be taken over.
func (r *Runner) predecessorsOf(id ID, m metav1.Object) (ours int, theirs []int) {
	ours = -1
	for i, f := range m.GetManagedFields() {
		switch {
		case f.Subresource != "" || f.FieldsV1 == nil:
		case isOurs(f, r.Owner.fieldManager()):
			ours = i
		case slices.Contains(predecessors, f.Manager), strings.HasPrefix(f.Manager, managerPrefix), f.Manager == sealedSecretsManager && isSecret(id) && ownedBySealedSecret(m):
			theirs = append(theirs, i)
		}
	}
	return ours, theirs
}

// managersOf names the managers of these entries, each once.
func managersOf(fields []metav1.ManagedFieldsEntry, which []int) []string {
	var out []string
	for _, i := range which {
		out = append(out, fields[i].Manager)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// setOwnership replaces an object's managedFields and makes further changes, if
// nobody else has written meanwhile. Errors are safe to print.
func (r *Runner) setOwnership(ctx context.Context, gvr schema.GroupVersionResource, id ID, m metav1.Object, fields []metav1.ManagedFieldsEntry, more ...map[string]any) error {
	patch, err := json.Marshal(append(more,
		map[string]any{"op": "replace", "path": "/metadata/managedFields", "value": fields},
		map[string]any{"op": "replace", "path": "/metadata/resourceVersion", "value": m.GetResourceVersion()}))
	if err != nil {
		return errors.New("its field ownership can not be written")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err = r.Cluster.in(gvr, id.Namespace).Patch(ctx, id.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: r.Owner.fieldManager()})
	if err != nil {
		return refused(err, true)
	}
	return nil
}

func fieldSet(f metav1.ManagedFieldsEntry) (*fieldpath.Set, error) {
	set := &fieldpath.Set{}
	if err := set.FromJSON(bytes.NewReader(f.FieldsV1.GetRawBytes())); err != nil {
		return nil, errors.New("the field ownership of " + f.Manager + " can not be read")
	}
	return set, nil
}

func takingOver(reason string, from []string) string {
	if len(from) == 0 {
		return reason
	}
	return reason + "; taken over from " + strings.Join(from, ", ")
}

// adopting is the step for an object that turned out to be in the cluster already.
func (s Step) adopting(from []string) Step {
	s.Action = Adopt
	if len(from) == 0 {
		s.Reason += "; it was there already"
	}
	return s
}
