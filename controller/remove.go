package controller

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/reconcile"
)

// removeAgain is the time until a Sync is looked at again whose objects are held.
const removeAgain = 2 * time.Second

// remove takes a Sync that is being deleted out of the cluster: its objects first, then
// its inventory, then itself.
func (c *Controller) remove(ctx context.Context, sync *v1alpha1.Sync) (ctrl.Result, error) {
	n := name{sync.Namespace, sync.Name}
	if !controllerutil.ContainsFinalizer(sync, v1alpha1.Finalizer) {
		return ctrl.Result{}, nil
	}
	c.statuses.know(sync)
	left, err := c.removeObjects(ctx, sync)
	if err != nil {
		c.report(n, reconcile.Report{Idle: true, Failures: []error{&reconcile.StageError{Stage: reconcile.Prune, Err: &SyncError{Reason: DeletionFailed, Err: err}}}}, about{generation: sync.Generation})
		return ctrl.Result{}, fmt.Errorf("delete the objects of Sync %s: %w", n, err)
	}
	if left > 0 {
		return ctrl.Result{RequeueAfter: removeAgain}, nil
	}
	controllerutil.RemoveFinalizer(sync, v1alpha1.Finalizer)
	return ctrl.Result{}, c.storeFinalizers(ctx, sync)
}

// storeFinalizers writes those that the Sync has here, if nobody has changed it since.
func (c *Controller) storeFinalizers(ctx context.Context, sync *v1alpha1.Sync) error {
	patch := fmt.Appendf(nil, `{"metadata":{"finalizers":%s,"resourceVersion":%q}}`, mustJSON(sync.Finalizers), sync.ResourceVersion)
	return client.IgnoreNotFound(c.client.Patch(ctx, sync, client.RawPatch(types.MergePatchType, patch)))
}

// removeObjects reports how many objects are still being deleted.
func (c *Controller) removeObjects(ctx context.Context, sync *v1alpha1.Sync) (left int, err error) {
	owner := c.ownerOf(sync)
	store := apply.NewInventoryStore(c.cluster, owner)
	inventory, err := store.Load(ctx)
	if err != nil {
		return 0, err
	}
	if len(inventory.Entries) == 0 {
		return 0, store.Delete(ctx)
	}
	orphan := sync.Spec.DeletionPolicy == "Orphan" || sync.Spec.DeletionPolicy == "" && !sync.Spec.Prunes()
	user, err := c.userOf(sync)
	if err != nil {
		return 0, err
	}
	if user != "" {
		gone, err := c.accountGone(ctx, sync.Namespace, user)
		switch {
		case err != nil:
			return 0, err
		case gone && orphan:
			return 0, store.Delete(ctx) // its objects stay
		case gone:
			ends, err := c.namespaceEnds(ctx, sync.Namespace)
			if err != nil {
				return 0, err
			}
			if ends && c.tenant(sync) {
				return 0, store.Delete(ctx) // its objects go with the namespace
			}
			return 0, fmt.Errorf("service account %s/%s does not exist: make it again, or set spec.deletionPolicy to Orphan, which leaves the objects", sync.Namespace, user)
		}
	}
	cluster, err := c.as(sync.Namespace, user)
	if err != nil {
		return 0, err
	}
	runner := &apply.Runner{Cluster: cluster, Store: store, Owner: owner}
	res, err := runner.Remove(ctx, inventory, orphan)
	r := reconcile.Report{Done: res.Done, Objects: 0}
	n := name{sync.Namespace, sync.Name}
	c.sayer.knows(sync)
	c.sayer.say(n, r, v1alpha1.SyncStatus{}, v1alpha1.SyncStatus{})
	switch {
	case err != nil:
		return 0, err
	case len(res.Kept) > 0:
		return 0, res.Kept[0]
	}
	return len(res.Inventory.Entries), nil
}

func (c *Controller) accountGone(ctx context.Context, namespace, account string) (bool, error) {
	_, err := c.cluster.Client().CoreV1().ServiceAccounts(namespace).Get(ctx, account, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

// namespaceEnds reports whether a namespace is being deleted, with all that is in it.
func (c *Controller) namespaceEnds(ctx context.Context, namespace string) (bool, error) {
	ns, err := c.cluster.Client().CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("look whether namespace %s is being deleted: %w", namespace, err)
	}
	return ns.DeletionTimestamp != nil, nil
}
