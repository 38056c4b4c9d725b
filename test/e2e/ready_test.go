package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A leader is ready once it has its keys; a replica that waits needs none.
func TestAnAgentIsReadyOnceItHasKeys(t *testing.T) {
	t.Parallel()
	e := newPublicEnv(t)
	quotas := e.client.CoreV1().ResourceQuotas(e.system)
	full := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "full"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("0")}}}
	if _, err := quotas.Create(t.Context(), full, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	leading, leader := e.probed()
	e.logSays(leading, "leading")
	_, second := e.probed()
	ready := func(url string, code int, texts ...string) {
		t.Helper()
		e.eventually(fmt.Sprint("/readyz says ", code), func(ctx context.Context) error {
			got, body := answer(ctx, url+"/readyz?verbose=1")
			for _, text := range texts {
				if !strings.Contains(body, text) {
					got = 0
				}
			}
			if got != code {
				return fmt.Errorf("it says %d %s", got, body)
			}
			return nil
		})
	}
	ready(leader, 500, "[-]keys failed", "[+]syncs ok")
	ready(second, 200, "[+]keys ok", "[+]syncs ok")
	if code, body := answer(t.Context(), leader+"/healthz"); code != 200 {
		t.Errorf("/healthz says %d %s: it would be killed for what it can not mend", code, body)
	}
	if err := quotas.Delete(t.Context(), full.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ready(leader, 200, "[+]keys ok")
}

// probed is an agent with a port for probes, and its URL.
func (e *env) probed() (*agent, string) {
	e.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		e.t.Fatal(err)
	}
	return e.startArgs(e.controllerArgs("--watch-namespaces", e.system, "--health-probe-bind-address", address)...), "http://" + address
}

func answer(ctx context.Context, url string) (code int, body string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body) // what of it came
	return r.StatusCode, string(b)
}
