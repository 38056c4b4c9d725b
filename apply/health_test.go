package apply

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// setStatus writes the status of an object as its controller would.
func (w *world) setStatus(d Desired, status string) {
	w.t.Helper()
	r := w.somebody().Resource(d.kind.resource).Namespace(w.ns)
	if _, err := r.Patch(w.t.Context(), d.ID.Name, types.MergePatchType, []byte(`{"status":`+status+`}`), metav1.PatchOptions{}, "status"); err != nil {
		w.t.Fatal(err)
	}
}

func claimNamed(name string) string {
	return "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: " + name + ", namespace: NS}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: none}\n---\n"
}

const failedCondition = `{"startTime":"2026-01-01T00:00:00Z","conditions":[{"type":"FailureTarget","status":"True","reason":"BackoffLimitExceeded","message":"it gave up","lastTransitionTime":"2026-01-01T00:00:00Z"},` +
	`{"type":"Failed","status":"True","reason":"BackoffLimitExceeded","message":"it gave up","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`

func TestReadinessIsWaitedForByEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	manifests := configMaps("a=1") + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: NS}\nstringData: {k: v}\n---\n" + claimNamed("one") + claimNamed("two")
	w.mustApply(manifests)
	desired, _ := w.desired(manifests)
	mark := w.cp.Mark()
	done := make(chan []Failure, 1)
	go func() { done <- w.run.AwaitReady(t.Context(), desired, time.Minute) }()
	w.setStatus(desired[2], `{"phase":"Bound"}`)
	select {
	case f := <-done:
		t.Fatalf("one of two is ready, and it goes on with %v", f)
	case <-time.After(500 * time.Millisecond):
	}
	w.setStatus(desired[3], `{"phase":"Bound"}`)
	select {
	case f := <-done:
		if len(f) > 0 {
			t.Errorf("not ready: %v", f)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("both are ready, and it waits on")
	}
	ev, err := w.cp.Requests(t.Context(), mark, func(e harness.AuditEvent) bool {
		return e.UserAgent == "apply-test-"+t.Name()
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ev {
		if e.Resource != "persistentvolumeclaims" {
			t.Errorf("it read %s: %s", e.Resource, e.RequestURI)
		}
	}
	if len(ev) > 2 {
		t.Errorf("%d requests, want a list and a watch", len(ev))
	}
}

func TestWhatIsNotReadyIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: NS}\nspec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}\n---\n"
	manifests := claimNamed("late") + strings.Replace(claimNamed("left"), "namespace: NS", "namespace: NS, annotations: {gitseal.io/ssa: Ignore}", 1) + job
	w.mustApply(manifests)
	desired, _ := w.desired(manifests)

	t.Log("at the limit")
	start := time.Now()
	f := w.run.AwaitReady(t.Context(), desired[:2], 300*time.Millisecond)
	if len(f) != 1 || !strings.Contains(f[0].Error(), "PersistentVolumeClaim/"+w.ns+"/late: is not ready after 300ms: InProgress: ") {
		t.Errorf("not ready: %v", f)
	}

	t.Log("at once if it has failed for good")
	w.setStatus(desired[2], failedCondition)
	f = w.run.AwaitReady(t.Context(), desired, time.Minute)
	if len(f) != 1 || !strings.Contains(f[0].Error(), "Job/"+w.ns+"/j: has failed: ") || time.Since(start) > 30*time.Second {
		t.Errorf("not ready: %v", f)
	}

	t.Log("not at all if the wait is ended")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if f := w.run.AwaitReady(ctx, desired[:2], time.Minute); f != nil {
		t.Errorf("not ready: %v", f)
	}
}
