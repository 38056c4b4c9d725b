package harness

import (
	"context"
	"os"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
)

// shared is the control plane of this test process. It is a global because
// TestMain, which ends it, and the tests have nothing else in common.
var shared struct {
	sync.Mutex
	cluster *ControlPlane
	err     error // of the first start; it is not tried again
}

// Main runs the tests and then stops the control plane that [Shared] started and
// removes what [Programs] built, if any, also when a panic passes through it. Call it
// from TestMain.
func Main(m *testing.M) {
	defer removePrograms()
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.cluster != nil {
			shared.cluster.Stop()
		}
	}()
	m.Run() // the exit code reaches the process by itself
}

// Shared returns the one control plane of this test process, and starts it at
// first use. Tests that share it keep to namespaces of their own and do not stop
// its API server; those that can not use [NewControlPlane].
func Shared(t testing.TB) *ControlPlane {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = Start(t.Context(), os.Stderr)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// NewControlPlane starts a control plane for one test and stops it at its end.
func NewControlPlane(t testing.TB) *ControlPlane {
	t.Helper()
	c, err := Start(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// Namespace makes a namespace whose name starts with prefix and that no other
// test has. At the end of the test it is deleted, without waiting for what is
// in it.
func (c *ControlPlane) Namespace(t testing.TB, prefix string) string {
	t.Helper()
	client := c.client(t)
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: prefix + "-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
		defer cancel()
		err := client.CoreV1().Namespaces().Delete(ctx, namespace.Name, metav1.DeleteOptions{})
		if err != nil {
			t.Logf("delete namespace %s: %v", namespace.Name, err)
		}
	})
	return namespace.Name
}

func (c *ControlPlane) client(t testing.TB) *kubernetes.Clientset {
	t.Helper()
	config, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.UserAgent = userAgent
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
