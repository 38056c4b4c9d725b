package deploy

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// FieldManager of what Install applies.
const FieldManager = "gitseal-install"

// Mode says how Install applies.
type Mode string

// The modes.
const (
	Apply  Mode = "apply"  // what somebody else has set is a conflict
	Force  Mode = "force"  // it is taken over
	DryRun Mode = "dryrun" // nothing is stored
)

// Outcome of one object.
type Outcome string

// The outcomes.
const (
	Applied Outcome = "serverside-applied"
	Checked Outcome = "serverside-applied (server dry run)"
	// NotAsked is what lies in a namespace that a dry run has not made.
	NotAsked Outcome = "not asked: its namespace does not exist yet"
)

// Install applies objects, as Render has sorted them, by server-side apply, and waits
// until CRDs are served before it goes on. done is called for each object. On error some
// objects may be applied; those of a later call are the same.
func Install(ctx context.Context, cfg *rest.Config, objects []*unstructured.Unstructured, mode Mode, done func(*unstructured.Unstructured, Outcome)) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	objectsOf, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("connect to the API server: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	missing := map[string]bool{}
	for _, o := range objects {
		gvk := o.GroupVersionKind()
		id := fmt.Sprintf("%s %s", gvk.Kind, o.GetName())
		m, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			return fmt.Errorf("apply %s: %w", id, err)
		}
		var r dynamic.ResourceInterface = objectsOf.Resource(m.Resource)
		if m.Scope.Name() == meta.RESTScopeNameNamespace {
			r = objectsOf.Resource(m.Resource).Namespace(o.GetNamespace())
		}
		options := metav1.ApplyOptions{FieldManager: FieldManager, Force: mode == Force}
		if mode == DryRun {
			options.DryRun, options.Force = []string{metav1.DryRunAll}, true
			if gvk.Kind == "Namespace" {
				_, err := r.Get(ctx, o.GetName(), metav1.GetOptions{})
				missing[o.GetName()] = apierrors.IsNotFound(err)
			}
			if missing[o.GetNamespace()] {
				done(o, NotAsked)
				continue
			}
		}
		if _, err := r.Apply(ctx, o.GetName(), o, options); err != nil {
			return fmt.Errorf("apply %s: %w", id, err)
		}
		if mode == DryRun {
			done(o, Checked)
			continue
		}
		done(o, Applied)
		if gvk.Kind == "CustomResourceDefinition" {
			if err := established(ctx, r, o.GetName()); err != nil {
				return err
			}
		}
	}
	return nil
}

const establishedEvery = 100 * time.Millisecond

// established waits until a CRD is served.
func established(ctx context.Context, crds dynamic.ResourceInterface, name string) error {
	for {
		crd, err := crds.Get(ctx, name, metav1.GetOptions{})
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait for CustomResourceDefinition %s: %w", name, err)
		}
		if err == nil {
			conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions") // none yet
			for _, c := range conditions {
				if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for CustomResourceDefinition %s: %w", name, ctx.Err())
		case <-time.After(establishedEvery):
		}
	}
}
