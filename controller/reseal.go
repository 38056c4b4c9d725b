package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/keys"
)

// resealAge is how long an answer can be read; `seal rotate` deletes it at once.
const resealAge = 10 * time.Minute

// resealer answers Reseals of the agent's namespace. It implements the Reconciler of
// controller-runtime. Safe for concurrent use.
type resealer struct {
	client client.Client
	keys   *sharedKeys
	store  keys.Store
	ready  <-chan struct{} // closed when there are keys
	log    *slog.Logger
	audit  *slog.Logger // nil for none
}

func (c *Controller) addResealer(mgr manager.Manager) error {
	r := &resealer{client: mgr.GetClient(), keys: c.keys, store: c.keys.store, ready: c.Ready, log: c.log, audit: c.sayer.audit}
	// Two at once, each on all processors: one is read and written while another works.
	options := ctrlcontroller.Options{MaxConcurrentReconciles: 2, SkipNameValidation: controllerOptions.SkipNameValidation}
	return ctrl.NewControllerManagedBy(mgr).For(&v1alpha1.Reseal{}).Named("reseal").WithOptions(options).Complete(r)
}

// Reconcile answers once, and deletes the Reseal later.
func (r *resealer) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	if req.Namespace != r.store.Namespace {
		return ctrl.Result{}, nil // nothing is opened for anybody else
	}
	reseal := &v1alpha1.Reseal{}
	if err := r.client.Get(ctx, req.NamespacedName, reseal); err != nil || !reseal.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if at := reseal.Status.CompletedAt; at != nil {
		if left := time.Until(at.Add(resealAge)); left > 0 {
			return ctrl.Result{RequeueAfter: left}, nil
		}
		return ctrl.Result{}, client.IgnoreNotFound(r.client.Delete(ctx, reseal, client.Preconditions{UID: &reseal.UID}))
	}
	if r.ready != nil {
		select {
		case <-ctx.Done():
			return ctrl.Result{}, ctx.Err()
		case <-r.ready:
		}
	}
	terms, err := r.terms(ctx)
	if err != nil {
		r.log.Error("a Reseal waits", "reseal", reseal.Name, "error", err.Error())
		return ctrl.Result{RequeueAfter: firstFetchRetry}, nil
	}
	before := reseal.DeepCopy()
	started := time.Now()
	reseal.Status = v1alpha1.ResealStatus{CompletedAt: &metav1.Time{Time: terms.now}, Generation: int32(terms.active.Number), Files: resealFiles(reseal.Spec, terms)}
	for _, f := range reseal.Status.Files {
		if f.Reason == "" {
			reseal.Status.Resealed++
		} else {
			reseal.Status.Refused++
		}
	}
	// Of two who answer at once the first one counts.
	err = r.client.Status().Patch(ctx, reseal, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("answer Reseal %s: %w", reseal.Name, err)
	}
	r.say(reseal, terms, time.Since(started))
	return ctrl.Result{RequeueAfter: resealAge}, nil
}

func (r *resealer) terms(ctx context.Context) (resealTerms, error) {
	ring, err := r.keys.load(ctx)
	if err != nil {
		return resealTerms{}, err
	}
	t := resealTerms{ring: ring, now: time.Now()}
	active, errActive := ring.Active()
	listed, errListed := r.store.Recipients(ctx)
	t.active, t.listed = active, listed
	return t, errors.Join(errActive, errListed)
}

// say writes a line for each file: who asked stands in the API server's own audit log.
func (r *resealer) say(reseal *v1alpha1.Reseal, terms resealTerms, took time.Duration) {
	r.log.Info("resealed", "reseal", reseal.Name, "files", reseal.Status.Resealed, "refused", reseal.Status.Refused, "generation", terms.active.Number, "took", took)
	if r.audit == nil {
		return
	}
	for _, f := range reseal.Status.Files {
		outcome := "done"
		if f.Reason != "" {
			outcome = "refused"
		}
		r.audit.Info("file", "audit", true, "action", "reseal", "reseal", reseal.Name, "file", f.Name, "generation", terms.active.Number,
			"key", terms.active.Identity.Recipient().Fingerprint(), "outcome", outcome, "reason", f.Reason)
	}
}
