// Command gen makes deploy/install.yaml of deploy/cluster, and the CRDs of the chart. It
// runs in the root of the repository.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/deploy"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

const head = "# Made by `make generate` from deploy/cluster.\n"

func run(ctx context.Context) error {
	objects, err := deploy.Render(ctx, deploy.Options{})
	if err != nil {
		return err
	}
	if err := write("deploy/install.yaml", objects); err != nil {
		return err
	}
	for _, o := range objects {
		if o.GetKind() != "CustomResourceDefinition" {
			continue
		}
		if err := write("deploy/chart/crds/"+o.GetName()+".yaml", []*unstructured.Unstructured{o}); err != nil {
			return err
		}
	}
	return nil
}

func write(file string, objects []*unstructured.Unstructured) error {
	b, err := deploy.YAML(objects)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, append([]byte(head), b...), 0o644)
}
