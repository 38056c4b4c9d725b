package controller

import (
	"cmp"
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/api/v1alpha1"
)

// dependencies reports the first Sync that a Sync waits for. A dependency that follows
// the same ref of the same repository must have applied the very commit: both are told
// of it at the same moment. Errors are *DependencyError, and *SyncError for a circle.
func (c *Controller) dependencies(ctx context.Context, of name, s settings, commit string) error {
	for _, n := range s.dependsOn {
		way, err := c.circle(ctx, of, n, map[name]bool{})
		switch {
		case err != nil:
			return err
		case way != "":
			return stalled(InvalidSpec, fmt.Errorf("spec.dependsOn: a circle of Syncs that wait for each other: %s → %s", of, way))
		}
		dep := &v1alpha1.Sync{}
		switch err := c.client.Get(ctx, types.NamespacedName(n), dep); {
		case apierrors.IsNotFound(err):
			return &DependencyError{n.String(), "which does not exist"}
		case err != nil:
			return err
		}
		if why := notReady(dep, s, commit); why != "" {
			return &DependencyError{n.String(), why}
		}
	}
	return nil
}

func notReady(dep *v1alpha1.Sync, s settings, commit string) string {
	ready := meta.FindStatusCondition(dep.Status.Conditions, v1alpha1.Ready)
	source := dep.Spec.Source
	switch {
	case ready == nil || dep.Status.ObservedGeneration != dep.Generation:
		return "which has not been looked at yet"
	case ready.Status != "True":
		return "which is not ready"
	case source.URL == s.source.URL && refOf(source.Ref) == s.source.Ref && (dep.Status.Applied == nil || dep.Status.Applied.Hash != commit):
		return fmt.Sprintf("which has not applied commit %.12s yet", commit)
	}
	return ""
}

// circle follows the dependencies from one Sync and returns the way back to the first,
// "" if there is none. What was looked at is not looked at again.
func (c *Controller) circle(ctx context.Context, first, at name, seen map[name]bool) (string, error) {
	if at == first {
		return at.String(), nil
	}
	if seen[at] {
		return "", nil
	}
	seen[at] = true
	sync := &v1alpha1.Sync{}
	if err := c.client.Get(ctx, types.NamespacedName(at), sync); err != nil {
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return "", err
	}
	for _, d := range sync.Spec.DependsOn {
		next := name{cmp.Or(d.Namespace, at.Namespace), d.Name}
		if way, err := c.circle(ctx, first, next, seen); err != nil || way != "" {
			return at.String() + " → " + way, err
		}
	}
	return "", nil
}
