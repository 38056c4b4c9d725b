package apply

import (
	"cmp"
	"context"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Annotations by which an object asks for something else than the usual: ours,
// and those that people who come from Flux and Argo CD have.
const (
	pruneAnnotation     = "gitseal.io/prune"         // disabled: stays when it leaves git
	forceAnnotation     = "gitseal.io/force"         // enabled: made anew where it can not be changed
	ssaAnnotation       = "gitseal.io/ssa"           // IfNotPresent: only created; Ignore: never written; Merge: nothing of others is taken out
	reconcileAnnotation = "gitseal.io/reconcile"     // disabled: never written nor pruned; in git, or in the cluster
	waveAnnotation      = "gitseal.io/wave"          // a number: after all lower ones
	ignoreAnnotation    = "gitseal.io/ignore-fields" // JSON pointers of fields that others may take over

	fluxPrune     = "kustomize.toolkit.fluxcd.io/prune"
	fluxForce     = "kustomize.toolkit.fluxcd.io/force"
	fluxSSA       = "kustomize.toolkit.fluxcd.io/ssa"
	fluxReconcile = "kustomize.toolkit.fluxcd.io/reconcile"
	detach        = "client.lifecycle.config.k8s.io/deletion" // of Config Sync and kpt
	argoOptions   = "argocd.argoproj.io/sync-options"
	argoWave      = "argocd.argoproj.io/sync-wave"

	enabled, disabled = "enabled", "disabled"
	ifNotPresent      = "IfNotPresent"
)

// argoOption reports whether one of the options is set; they are separated by
// commas.
func argoOption(annotations map[string]string, options ...string) bool {
	for o := range strings.SplitSeq(annotations[argoOptions], ",") {
		if slices.Contains(options, strings.TrimSpace(o)) {
			return true
		}
	}
	return false
}

// asks is what the object says by an annotation; those of Flux may be labels.
func asks(m metav1.Object, name string) string {
	if v, ok := m.GetAnnotations()[name]; ok || strings.HasPrefix(name, "gitseal.io/") {
		return v
	}
	return m.GetLabels()[name]
}

// unreconciled names the annotation that keeps an object from being written, "".
func unreconciled(m metav1.Object) string {
	for _, name := range []string{reconcileAnnotation, fluxReconcile} {
		if strings.EqualFold(asks(m, name), disabled) {
			return name
		}
	}
	return ""
}

// ssa is how the object asks to be applied.
func ssa(m metav1.Object) string { return cmp.Or(asks(m, ssaAnnotation), asks(m, fluxSSA)) }

// neverWritten objects ask for it in git.
func neverWritten(m metav1.Object) bool {
	return unreconciled(m) != "" || ssa(m) == "Ignore"
}

// leftAlone reports whether an object is not to be written: never, and not pruned
// either, or because it is to be created only and is there.
func (r *Runner) leftAlone(ctx context.Context, d Desired) (yes, never bool, requests int, err error) {
	m := d.Object.Masked
	switch {
	case neverWritten(m):
		return true, true, 0, nil
	case ssa(m) != ifNotPresent:
		return false, false, 0, nil
	}
	_, err = r.Cluster.get(ctx, d.kind.resource, d.ID)
	switch {
	case apierrors.IsNotFound(err):
		return false, false, 1, nil
	case err != nil:
		return false, false, 1, refused(err, false)
	}
	return true, false, 1, nil
}

// retained names the annotation by which the object asks not to be pruned.
func retained(m metav1.Object) string {
	a := m.GetAnnotations()
	switch {
	case a[pruneAnnotation] == disabled:
		return pruneAnnotation
	case asks(m, fluxPrune) == disabled:
		return fluxPrune
	case a[detach] == "detach":
		return detach
	case argoOption(a, "Prune=false", "Prune=confirm"): // nobody is there to be asked
		return argoOptions
	case a[skipOwnerAnnotation] == "true": // to sealed-secrets: the Secret outlives the SealedSecret
		return skipOwnerAnnotation
	case a[patchAnnotation] == "true" && a[managedAnnotation] != "true": // somebody else's Secret, with values added
		return patchAnnotation
	}
	return unreconciled(m)
}
