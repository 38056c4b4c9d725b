package harness

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// SyncsResource are the Syncs.
func SyncsResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "gitseal.io", Version: "v1alpha1", Resource: "syncs"}
}

// InstallSyncs installs the CRDs of gitseal, as this tree has them, and waits until Syncs
// and Reseals can be listed. It may be called again.
func InstallSyncs(ctx context.Context, config *rest.Config) error {
	root, err := Root()
	if err != nil {
		return err
	}
	for _, resource := range []schema.GroupVersionResource{SyncsResource(), SyncsResource().GroupVersion().WithResource("reseals")} {
		crd, err := os.ReadFile(filepath.Join(root, "deploy", "base", "crds", "gitseal.io_"+resource.Resource+".yaml"))
		if err != nil {
			return err
		}
		if err := InstallCRD(ctx, config, crd, resource); err != nil {
			return err
		}
	}
	return nil
}

// InstallSyncs is the same, for a test.
func (c *ControlPlane) InstallSyncs(t testing.TB) {
	t.Helper()
	config, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	if err := InstallSyncs(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}
