package apply

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// pruneAll deletes what left git. Each delete is preceded by a look at the
// object's metadata, and tied by preconditions to what was seen.
// A kind that can not be watched is left alone: what is known of it may be old.
func (r *Runner) pruneAll(ctx context.Context, p Plan, res *Result) {
	if p.Count(Prune)+p.Count(Release) == 0 {
		return
	}
	unhealthy := r.Drift.unknown()
	wanted := map[string]bool{} // uids of what git holds
	for _, d := range p.Desired {
		if uid := res.Inventory.Entries[d.ID].Evidence.UID; uid != "" {
			wanted[uid] = true
		}
	}
	var held *absentee // by a finalizer
	for _, s := range p.Steps {
		if s.Action == Release && ctx.Err() == nil {
			delete(res.Inventory.Entries, s.ID)
			res.Done = append(res.Done, Done{s.ID, Release, s.Reason})
		}
		if s.Action != Prune || ctx.Err() != nil {
			continue
		}
		if wave := res.Inventory.Entries[s.ID].Wave; held != nil && wave < held.wave {
			res.Kept = append(res.Kept, Failure{ID: s.ID, Err: fmt.Errorf("waits for %s of a later wave, which is still being deleted", held.id)})
			continue
		}
		if err := unhealthy[s.ID.GroupKind()]; err != nil {
			res.Kept = append(res.Kept, Failure{ID: s.ID, Err: fmt.Errorf("its kind can not be watched: %w", refused(err, false))})
			continue
		}
		e := res.Inventory.Entries[s.ID]
		if wanted[e.Evidence.UID] { // it is the same object under another API group
			delete(res.Inventory.Entries, s.ID)
			continue
		}
		r.Drift.begin(s.ID)
		gone, deleted, err := r.prune(ctx, s.ID, e, res, changeTries)
		switch {
		case err != nil:
			res.Kept = append(res.Kept, Failure{ID: s.ID, Err: err})
		case gone:
			delete(res.Inventory.Entries, s.ID)
		default: // a finalizer holds it
			e.Phase = Terminating
			res.Inventory.Entries[s.ID] = e
			if held == nil { // waves come from the highest down
				held = &absentee{s.ID, e.Wave}
			}
		}
		if deleted {
			res.Done = append(res.Done, Done{s.ID, Prune, s.Reason})
		}
	}
}

var labelPath = fieldpath.MakePathOrDie("metadata", "labels", SyncLabel)

// prune reports whether the inventory may forget the object, and whether it was
// deleted by this call.
func (r *Runner) prune(ctx context.Context, id ID, e Entry, res *Result, tries int) (gone, deleted bool, err error) {
	m, gvr, err := r.find(ctx, id, e.gvr(id), res)
	if apierrors.IsNotFound(err) {
		return true, false, nil
	}
	if err != nil {
		return false, false, refused(err, false)
	}
	if m.GetLabels()[SyncLabel] != r.Owner.label() || e.Evidence.UID != "" && e.Evidence.UID != string(m.GetUID()) && !owns(m, r.Owner.fieldManager(), labelPath) {
		// Somebody took it over or made it anew: not ours any more. It is, where we made
		// it anew and ended before that was recorded: then the label is ours as well.
		return true, false, nil
	}
	if m.GetDeletionTimestamp() != nil {
		return false, false, nil
	}
	if by := retained(m); by != "" || e.Keep {
		res.Requests++
		err := r.release(ctx, gvr, id, m, by)
		return err == nil, false, err
	}
	if id.Group == "" && id.Kind == "Namespace" {
		if err := r.namespaceEmpty(ctx, id.Name, res); err != nil {
			return false, false, err
		}
	}
	if isCRD(id.GroupKind()) {
		if err := r.crdUnused(ctx, id.Name, res); err != nil {
			return false, false, err
		}
	}
	res.Requests++
	err = r.Cluster.delete(ctx, gvr, id, metav1.Preconditions{UID: ptr.To(m.GetUID()), ResourceVersion: ptr.To(m.GetResourceVersion())})
	switch {
	case apierrors.IsConflict(err) && tries > 1: // of a status that changes all the time
		return r.prune(ctx, id, e, res, tries-1)
	case apierrors.IsNotFound(err):
		return true, false, nil
	case err != nil:
		return false, false, refused(err, isSecret(id)) // webhooks are shown what goes
	}
	held := len(m.GetFinalizers()) > 0 || (id.Group == "" && id.Kind == "Namespace")
	return !held, true, nil
}

// find looks for the object in the version it was applied with and, where that
// is not served any more, in the one that is.
func (r *Runner) find(ctx context.Context, id ID, gvr schema.GroupVersionResource, res *Result) (*metav1.PartialObjectMetadata, schema.GroupVersionResource, error) {
	res.Requests++
	m, err := r.Cluster.get(ctx, gvr, id)
	if !apierrors.IsNotFound(err) {
		return m, gvr, err
	}
	served, lookupErr := r.Cluster.mapper.RESTMapping(id.GroupKind())
	if lookupErr != nil && !meta.IsNoMatchError(lookupErr) {
		return nil, gvr, lookupErr // not knowing is not being gone
	}
	if lookupErr != nil || served.Resource == gvr {
		return nil, gvr, err
	}
	res.Requests++
	m, err = r.Cluster.get(ctx, served.Resource, id)
	return m, served.Resource, err
}

// crdUnused refuses to delete a CRD while there are objects of its kind, which
// would go with it. Those that left git were pruned before it.
func (r *Runner) crdUnused(ctx context.Context, name string, res *Result) error {
	plural, group, _ := strings.Cut(name, ".")
	gvr, err := r.Cluster.mapper.ResourceFor(schema.GroupVersionResource{Group: group, Resource: plural})
	if meta.IsNoMatchError(err) {
		return nil // it is not served, so it has no objects
	}
	if err != nil {
		return fmt.Errorf("whether it has objects could not be found out: %w", err)
	}
	res.Requests++
	found, err := r.Cluster.metadata.Resource(gvr).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("its objects could not be listed: %w", refused(err, false))
	}
	if len(found.Items) == 0 {
		return nil
	}
	o := &found.Items[0]
	object := plural + " " + strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
	if o.GetDeletionTimestamp() != nil { // its finalizer may need the CRD
		return fmt.Errorf("an object of its kind (%s) is still being deleted", object)
	}
	return fmt.Errorf("there are still objects of its kind (%s), which would be deleted with it; remove them, or keep it with the annotation gitseal.io/prune: disabled", object)
}

// namespaceEmpty refuses to delete a namespace that holds anything that is not
// ours. It lists the metadata of every kind in it.
func (r *Runner) namespaceEmpty(ctx context.Context, ns string, res *Result) error {
	lists, err := r.Cluster.client.Discovery().ServerPreferredNamespacedResources()
	if err != nil {
		return fmt.Errorf("holds objects that could not be listed: %w", err)
	}
	lists = discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists)
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			return err
		}
		for _, resource := range l.APIResources {
			if madeByTheCluster(gv.Group, resource.Name) {
				continue
			}
			res.Requests++
			found, err := r.Cluster.metadata.Resource(gv.WithResource(resource.Name)).Namespace(ns).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				continue // the kind went away meanwhile, and its objects with it
			}
			if err != nil {
				return fmt.Errorf("its %s could not be listed: %w", resource.Name, refused(err, false))
			}
			for i := range found.Items {
				if o := &found.Items[i]; !r.harmless(gv.Group, resource.Kind, o) {
					return fmt.Errorf("holds %s/%s, which would be deleted with it; remove it, or take the namespace out of gitseal's hands with the annotation gitseal.io/prune: disabled", resource.Kind, o.GetName())
				}
			}
		}
	}
	return nil
}

// madeByTheCluster lists kinds that nobody makes by hand and nobody would miss.
func madeByTheCluster(group, resource string) bool {
	switch {
	case group == "events.k8s.io", group == "metrics.k8s.io", group == "discovery.k8s.io":
		return true
	case group == "":
		return resource == "events" || resource == "endpoints"
	}
	return false
}

// harmless objects are on their way out, made by the cluster for every namespace,
// or children of another object of the namespace, which is looked at itself. Ours that
// left git went before the namespace.
func (r *Runner) harmless(group, kind string, o metav1.Object) bool {
	switch owner := metav1.GetControllerOf(o); {
	case o.GetDeletionTimestamp() != nil:
		return true
	case owner != nil:
		k, err := r.Cluster.lookup(schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind))
		return err == nil && k.namespaced
	case group == "" && kind == "ConfigMap" && o.GetName() == "kube-root-ca.crt",
		group == "" && kind == "ServiceAccount" && o.GetName() == "default":
		return true
	}
	return false
}
