package apply

import (
	"context"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

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
	go func() { done <- w.run.AwaitReady(t.Context(), desired, w.inv, time.Minute) }()
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

const suspended = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j, namespace: NS}\nspec: {suspend: true, template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}\n---\n"

func TestWhatIsNotReadyIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	manifests := claimNamed("late") + strings.Replace(claimNamed("left"), "namespace: NS", "namespace: NS, annotations: {gitseal.io/ssa: Ignore}", 1) + suspended
	w.mustApply(manifests)
	desired, _ := w.desired(manifests)

	t.Log("at the limit")
	start := time.Now()
	f := w.run.AwaitReady(t.Context(), desired[:2], w.inv, 300*time.Millisecond)
	if len(f) != 1 || !strings.Contains(f[0].Error(), "PersistentVolumeClaim/"+w.ns+"/late: is not ready after 300ms: InProgress: ") {
		t.Errorf("not ready: %v", f)
	}

	t.Log("at once if it has failed for good")
	w.setStatus(desired[2], failedCondition)
	f = w.run.AwaitReady(t.Context(), desired, w.inv, time.Minute)
	if len(f) != 1 || !strings.Contains(f[0].Error(), "Job/"+w.ns+"/j: has failed: ") || time.Since(start) > 30*time.Second {
		t.Errorf("not ready: %v", f)
	}

	t.Log("not at all if the wait is ended")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if f := w.run.AwaitReady(ctx, desired[:2], w.inv, time.Minute); f != nil {
		t.Errorf("not ready: %v", f)
	}
}

func inWave(manifest, number string) string {
	return strings.Replace(manifest, "namespace: NS", "namespace: NS, annotations: {gitseal.io/wave: '"+number+"'}", 1)
}

func TestAWaveWaitsUntilTheOneBeforeItIsReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	apply := func(manifests string) Result {
		t.Helper()
		in := w.input(manifests)
		in.AwaitWaves = true
		return w.apply(in)
	}
	apply(configMaps("old=1"))
	manifests := claimNamed("one") + inWave(configMaps("late=1"), "1") + "---\n" + inWave(configMaps("later=1"), "2")
	res := apply(manifests)
	if len(res.Done) != 1 || len(res.Failed)+len(res.Waiting) > 0 {
		t.Fatalf("done %v, failed %v, waiting %v", res.Done, res.Failed, res.Waiting)
	}
	for i, want := range []string{"late: waits for PersistentVolumeClaim/", "later: waits for PersistentVolumeClaim/"} {
		if len(res.Pending) != 2 || !strings.Contains(res.Pending[i].Error(), want) || !strings.Contains(res.Pending[i].Error(), "/one, which is not ready yet") {
			t.Fatalf("pending %v", res.Pending)
		}
	}
	if len(res.Unready) != 1 || res.Unready[0].ID.Name != "one" {
		t.Fatalf("unready %v", res.Unready)
	}
	if w.object("old").UID == "" || w.inv.Commit != "commit" {
		t.Errorf("inventory %v", w.inv)
	}
	w.setStatus(res.Unready[0], `{"phase":"Bound"}`)
	res = apply(manifests)
	if len(res.Done) != 3 || len(res.Pending) > 0 || res.Done[2].Action != Prune {
		t.Fatalf("done %v, pending %v", res.Done, res.Pending)
	}
	t.Log("what changes in the first wave only asks nobody")
	w.setStatus(w.input(manifests).Desired[0], `{"phase":"Lost"}`)
	mark := w.cp.Mark()
	res = apply(strings.Replace(manifests, "{name: one, ", "{name: one, labels: {l: m}, ", 1))
	ev, err := w.cp.Requests(t.Context(), mark, func(e harness.AuditEvent) bool {
		return e.UserAgent == "apply-test-"+t.Name() && e.Verb != "patch" && e.Resource == "persistentvolumeclaims"
	})
	if err != nil || len(ev) > 0 || len(res.Done) != 1 {
		t.Errorf("done %v; it asked %v, %v", res.Done, ev, err)
	}
}

func TestAWaveThatFailedForGoodHoldsUpTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	manifests := suspended + inWave(configMaps("late=1"), "1")
	in := w.input(manifests)
	in.AwaitWaves = true
	if res := w.apply(in); len(res.Done) != 1 || len(res.Pending) != 1 {
		t.Fatalf("done %v, pending %v", res.Done, res.Pending)
	}
	w.setStatus(in.Desired[0], failedCondition)
	res := w.apply(in)
	if len(res.Waiting) != 1 || !strings.Contains(res.Waiting[0].Error(), "late: waits for Job/"+w.ns+"/j, which has failed: ") || len(res.Done)+len(res.Pending) > 0 {
		t.Fatalf("done %v, waiting %v, pending %v", res.Done, res.Waiting, res.Pending)
	}
}

func TestKindsOfWhichKstatusSaysTooLittle(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ object, want string }{
		"a Job that runs":                   {`{apiVersion: batch/v1, kind: Job, metadata: {name: j}, status: {startTime: "2026-01-01T00:00:00Z", active: 1}}`, "InProgress"},
		"a Job that is complete":            {`{apiVersion: batch/v1, kind: Job, metadata: {name: j}, status: {startTime: "2026-01-01T00:00:00Z", conditions: [{type: Complete, status: "True"}]}}`, "Current"},
		"a SealedSecret, new":               {`{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: s, generation: 1}}`, "InProgress"},
		"a SealedSecret, opened":            {`{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: s, generation: 2}, status: {observedGeneration: 2, conditions: [{type: Synced, status: "True"}]}}`, "Current"},
		"a SealedSecret, opened before":     {`{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: s, generation: 3}, status: {observedGeneration: 2, conditions: [{type: Synced, status: "True"}]}}`, "InProgress"},
		"a SealedSecret that does not open": {`{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: s, generation: 2}, status: {observedGeneration: 2, conditions: [{type: Synced, status: "False", message: "value hunter2"}]}}`, "Failed"},
	} {
		var u unstructured.Unstructured
		text, err := yaml.YAMLToJSON([]byte(c.object))
		if err != nil {
			t.Fatal(name, err)
		}
		if err := u.UnmarshalJSON(text); err != nil {
			t.Fatal(name, err)
		}
		got := judged(&u, false)
		if string(got.Status) != c.want || strings.Contains(got.Message, "hunter2") {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}
