package main

import (
	"os"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/gitseal/gitseal/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestDemoOnAClusterOfOnesOwn runs it as `KUBECONFIG=… make demo` does, and looks
// at what it leaves behind.
func TestDemoOnAClusterOfOnesOwn(t *testing.T) {
	cp := harness.Shared(t)
	bin := harness.Programs(t)
	t.Setenv("KUBECONFIG", cp.Kubeconfig)
	t.Setenv("TMPDIR", t.TempDir())
	if err := run(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	cfg, err := cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	list, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made := 0
	for _, ns := range list.Items {
		if !strings.HasPrefix(ns.Name, "gitseal-demo-") && !strings.HasPrefix(ns.Name, "quickstart-") {
			continue
		}
		made++
		if ns.DeletionTimestamp == nil {
			t.Errorf("namespace %s was left behind", ns.Name)
		}
	}
	if len(list.Items) < 4 || made > 3 {
		t.Errorf("%d namespaces, %d of the demo", len(list.Items), made)
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("files were left behind: %v, %v", left, err)
	}
}
