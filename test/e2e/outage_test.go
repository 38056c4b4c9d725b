package e2e

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// TestAnAgentOutlivesAnOutageOfTheAPIServer: longer than its lease lasts. It must
// not end, and must repair what happened meanwhile.
func TestAnAgentOutlivesAnOutageOfTheAPIServer(t *testing.T) {
	t.Parallel()
	cp := harness.NewControlPlane(t)
	e := newEnvOn(t, cp).withKeys()
	a := e.start()
	e.eventually("it is applied", func(ctx context.Context) error { return e.configMapValue(ctx, "begin", "a", "b") })
	if err := cp.StopAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.repo.Write("apps/during.yaml", configMap(e.app, "during", "a", "b"))
	e.repo.Commit("during the outage")
	time.Sleep(35 * time.Second)
	select {
	case <-a.done:
		t.Fatal("the agent ended")
	default:
	}
	if err := cp.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.eventually("the commit of the outage is applied", func(ctx context.Context) error { return e.configMapValue(ctx, "during", "a", "b") })
	if err := e.client.CoreV1().ConfigMaps(e.app).Delete(t.Context(), "begin", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("drift is seen again", func(ctx context.Context) error { return e.configMapValue(ctx, "begin", "a", "b") })
}
