package apply

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// Sequences of events that ended badly once.

// Polled: an object that asked to be left alone is deleted.
func TestAnObjectThatAskedToBeLeftAloneAndIsDeletedUnseenComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.limited("get", "list", "create", "patch", "delete")
	w.run.Drift = NewDrift(t.Context(), w.c, w.owner)
	w.run.Drift.Poll = 100 * time.Millisecond
	w.mustApply(configMaps("a=1", "b=1"))
	if _, err := w.client.CoreV1().ConfigMaps(w.ns).Patch(t.Context(), "a", types.MergePatchType, []byte(`{"metadata":{"annotations":{"gitseal.io/reconcile":"disabled"}}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "held", func(context.Context) error {
		if len(w.run.Drift.Held()) != 1 {
			return fmt.Errorf("held %v", w.run.Drift.Held())
		}
		return nil
	})
	w.run.Drift.Take()
	w.delete("a")
	w.tells("a")
	time.Sleep(500 * time.Millisecond)
	t.Logf("held: %v", w.run.Drift.Held())
	res, err := w.run.Repair(t.Context(), w.inv, w.input(configMaps("a=1", "b=1")).Desired, map[ID]string{w.id("a"): "x"})
	if err != nil {
		t.Fatal(err)
	}
	w.inv = res.Inventory
	in := w.input(configMaps("a=2", "b=1"))
	in.Held = w.run.Drift.Held()
	w.apply(in)
	if _, err := w.client.CoreV1().ConfigMaps(w.ns).Get(t.Context(), "a", metav1.GetOptions{}); err != nil {
		t.Errorf("neither a repair nor a new commit makes it anew: %v", err)
	}
}

// A has applied x; it is deleted while A is away; B, which has it too, makes it. A comes back.
func TestASyncDoesNotTakeBackWhatAnotherHasMadeMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(configMaps("x=first", "k=1"))
	b := w.sibling("b")
	if res := b.apply(b.input(configMaps("x=second"))); len(res.Failed) != 1 {
		t.Fatal(res.Failed)
	}
	w.delete("x")
	b.mustApply(configMaps("x=second"))
	w.reload()
	in := w.input(configMaps("x=first", "k=1"))
	var err error
	if in.Drifted, in.Held, err = w.run.Survey(t.Context(), w.inv); err != nil {
		t.Fatal(err)
	}
	res := w.apply(in)
	if len(res.Failed) == 0 {
		t.Errorf("A took it without a word: done %v, value %s, label %s", res.Done, w.value("x"), w.object("x").Labels[SyncLabel])
	}
	drifted, _, err := b.run.Survey(t.Context(), b.inv)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("B sees: %v", drifted)
	inB := b.input(configMaps("x=second"))
	inB.Drifted = drifted
	t.Logf("B does: %v; label %s", b.apply(inB).Done, w.object("x").Labels[SyncLabel])
}

// An object is made anew; the process dies before it is recorded; then it leaves git.
func TestWhatWasMadeAnewBeforeADeathIsPrunedAllTheSame(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(configMaps("a=1", "keep=1"))
	shards, err := w.client.CoreV1().Secrets(w.ns).List(t.Context(), metav1.ListOptions{LabelSelector: inventoryLabel})
	if err != nil {
		t.Fatal(err)
	}
	uid := w.object("a").UID
	w.delete("a")
	if _, err := w.run.Repair(t.Context(), w.inv, w.input(configMaps("a=1", "keep=1")).Desired, map[ID]string{w.id("a"): "deleted"}); err != nil {
		t.Fatal(err)
	}
	if w.object("a").UID == uid {
		t.Fatal("not made anew")
	}
	for _, s := range shards.Items { // what was stored when the process was killed
		now, err := w.client.CoreV1().Secrets(w.ns).Get(t.Context(), s.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		now.Data = s.Data
		if _, err := w.client.CoreV1().Secrets(w.ns).Update(t.Context(), now, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.reload()
	res := w.apply(w.input(configMaps("keep=1")))
	_, known := w.inv.Entries[w.id("a")]
	if _, err := w.client.CoreV1().ConfigMaps(w.ns).Get(t.Context(), "a", metav1.GetOptions{}); err == nil && !known {
		t.Errorf("a is still there with our label (%s), and the inventory has forgotten it; done %v, kept %v", w.object("a").Labels[SyncLabel], res.Done, res.Kept)
	}
}

// A namespace of git holds somebody else's Secret, whose controller is cluster-scoped.
func TestANamespaceWithAChildOfAForeignClusterScopedObjectIsKept(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	p.play(story{{git: namespace("NS-in", "") + configMaps("keep=1"), done: "create Namespace/NS-in, create ConfigMap/keep"}})
	if err := create("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: NS-owner}\n")(p); err != nil {
		t.Fatal(err)
	}
	owner, err := p.read("ClusterRole/NS-owner")
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "foreign", OwnerReferences: []metav1.OwnerReference{{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: owner.GetName(), UID: owner.GetUID(), Controller: &yes}}}, StringData: map[string]string{"k": "v"}}
	if _, err := p.client.CoreV1().Secrets(p.ns+"-in").Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.play(story{{git: configMaps("keep=1"), kept: []string{"Namespace/NS-in: holds Secret/foreign"}, inventory: "ConfigMap/keep applied, Namespace/NS-in applied", cluster: "ConfigMap/keep same, Namespace/NS-in same"}})
}

// Git takes the autoscaler out and sets the replicas itself.
func TestReplicasAreGitsAgainWhenTheAutoscalerLeaves(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, true)
	p.play(story{
		{git: strings.Replace(scaled, "replicas: 0", "replicas: 1", 1) + "---\n" + autoscaler, done: "create Deployment/d, create HorizontalPodAutoscaler/h"},
		{meanwhile: eventually(holds("Deployment/d", "spec.replicas=3")), requests: "none"},
		{git: strings.Replace(scaled, "replicas: 0", "replicas: 2", 1), done: "change Deployment/d, prune HorizontalPodAutoscaler/h", then: holds("Deployment/d", "spec.replicas=2")},
	})
}

// A wave of prunes does not wait for the one before.
func TestAPruneWaveWaitsForFinalizersOfTheOneBefore(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	p.play(story{
		{git: wave("operator", "0", "{}") + wave("resource", "1", "{}") + configMaps("keep=1"), done: "create ConfigMap/operator, create ConfigMap/resource, create ConfigMap/keep"},
		{meanwhile: patch("ConfigMap/resource", `{"metadata":{"finalizers":["example.com/operator"]}}`), git: configMaps("keep=1"), done: "prune ConfigMap/resource", kept: []string{"ConfigMap/NS/operator: waits for ConfigMap/NS/resource of a later wave, which is still being deleted"},
			inventory: "ConfigMap/keep applied, ConfigMap/operator applied, ConfigMap/resource terminating", cluster: "ConfigMap/keep same, ConfigMap/operator same, ConfigMap/resource leaving"},
	})
	p.play(story{{meanwhile: patch("ConfigMap/resource", `{"metadata":{"finalizers":null}}`), done: "prune ConfigMap/operator", cluster: "ConfigMap/keep same, ConfigMap/operator gone, ConfigMap/resource absent"}})
}

// hang answers no watch of ConfigMaps, ever.
func TestAWatchThatNeverAnswersIsUnhealthy(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	p.mustApply(configMaps("a=1", "b=1"))
	p.run.Cluster = p.through(func(rt http.RoundTripper) roundTrip {
		return func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Query().Get("labelSelector"), SyncLabel) && strings.HasSuffix(r.URL.Path, "/configmaps") {
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			return rt.RoundTrip(r)
		}
	})
	p.c = p.run.Cluster
	p.run.Drift = NewDrift(t.Context(), p.c, p.owner)
	p.run.Drift.Track(p.inv)
	p.run.Drift.AwaitSync(t.Context())
	t.Logf("synced %v, unhealthy %v", p.run.Drift.Synced(), p.run.Drift.Unhealthy())
	res := p.apply(p.input(configMaps("a=1")))
	if len(res.Kept) != 1 {
		t.Errorf("b was pruned although nothing has ever been seen of its kind: %v", res.Done)
	}
}

// The version that was applied is not served any more; the objects live on in another.
func TestObjectsOfAVersionThatIsNotServedAnyMoreAreWatchedInAnother(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, true)
	p.play(story{
		{git: versions("true", "false") + newVersion + widget("v1beta1"), done: "create CustomResourceDefinition/widgets.GROUP, create Widget/one"},
		idle,
	})
	crds := p.dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	_, err := crds.Patch(t.Context(), "widgets."+p.group, types.JSONPatchType, []byte(`[{"op":"test","path":"/spec/versions/0/name","value":"v1beta1"},{"op":"replace","path":"/spec/versions/0/served","value":false}]`), metav1.PatchOptions{FieldManager: "somebody"})
	if err != nil {
		t.Fatal(err)
	}
	// somebody's edit of the CRD is drift, which nobody repairs here: as if the CRD were not in git
	harness.Eventually(t, "v1beta1 is not served", func(ctx context.Context) error {
		_, err := p.dynamic.Resource(schema.GroupVersionResource{Group: p.group, Version: "v1beta1", Resource: "widgets"}).Namespace(p.ns).Get(ctx, "one", metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("still")
		}
		return nil
	})
	time.Sleep(2 * time.Second)
	p.run.Drift.Take()
	v1 := p.dynamic.Resource(schema.GroupVersionResource{Group: p.group, Version: "v1", Resource: "widgets"}).Namespace(p.ns)
	if _, err := v1.Patch(t.Context(), "one", types.MergePatchType, []byte(`{"spec":{"size":9}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	told := p.run.Drift.Take()
	missed, err := p.run.Drift.Audit(t.Context())
	if bad := p.run.Drift.Unhealthy(); len(told) == 0 && len(bad) == 0 {
		t.Errorf("drift of Widget/one is not seen, no kind is unhealthy, and an audit finds %d, %v", missed, err)
	}
	t.Logf("told %v, unhealthy %v, audit %d, %v", told, p.run.Drift.Unhealthy(), missed, err)
}

// With getEach (neither list nor watch): objects that are applied while it looks.
func TestALookTakesNothingForDriftThatIsAppliedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.limited("get", "create", "patch", "delete")
	w.mustApply(configMaps("a=1"))
	p := &player{world: w}
	looking, goOn := make(chan bool), make(chan bool)
	first := true
	slow := p.through(func(rt http.RoundTripper) roundTrip {
		return func(r *http.Request) (*http.Response, error) {
			if first && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/configmaps/a") {
				first = false
				close(looking)
				<-goOn
			}
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/configmaps") {
				return &http.Response{StatusCode: 403, Header: http.Header{"Content-Type": {"application/json"}}, Body: http.NoBody, Request: r}, nil
			}
			return rt.RoundTrip(r)
		}
	})
	w.run.Drift = NewDrift(t.Context(), slow, w.owner)
	w.run.Drift.Poll = 50 * time.Millisecond
	w.run.Drift.Track(w.inv)
	<-looking
	w.mustApply(configMaps("a=1", "b=1"))
	close(goOn)
	time.Sleep(500 * time.Millisecond)
	if told := w.run.Drift.Take(); len(told) > 0 {
		t.Errorf("false drift: %v", told)
	}
}

// An object that is only created where it is missing, and is there, in a wave with one behind it.
func TestAWaveDoesNotWaitForAnObjectThatItLeavesAlone(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	if err := create("apiVersion: v1\nkind: Namespace\nmetadata: {name: NS-old}\n")(p); err != nil {
		t.Fatal(err)
	}
	in := p.input(p.text("apiVersion: v1\nkind: Namespace\nmetadata: {name: NS-old, annotations: {gitseal.io/ssa: IfNotPresent}}\n---\n" + inWave(configMaps("later=1"), "1")))
	in.AwaitWaves = true
	for range 3 {
		res := p.apply(in)
		t.Logf("done %v, pending %v", res.Done, res.Pending)
		if len(res.Pending) > 0 {
			t.Errorf("an Active namespace is not ready: %v", p.run.AwaitReady(t.Context(), res.Unready, p.inv, 3*time.Second))
		}
	}
}

// What a finalizer holds was pruned already, but counts for the limit for ever.
func TestWhatIsTerminatingDoesNotCountForThePruneLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all, rest []string
	for i := range 20 {
		all = append(all, fmt.Sprintf("c%d=1", i))
	}
	rest = all[12:]
	w.mustApply(configMaps(all...))
	for i := range 12 {
		if _, err := w.client.CoreV1().ConfigMaps(w.ns).Patch(t.Context(), fmt.Sprintf("c%d", i), types.MergePatchType, []byte(`{"metadata":{"finalizers":["example.com/hold"]}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
			t.Fatal(err)
		}
	}
	in := w.input(configMaps(rest...))
	in.ConfirmPrune = true
	if res := w.apply(in); len(res.Done) != 12 {
		t.Fatal(res.Done)
	}
	for i := range 12 {
		if _, err := w.client.CoreV1().ConfigMaps(w.ns).Patch(t.Context(), fmt.Sprintf("c%d", i), types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Second)
	in = w.input(configMaps(append(rest, "new=1")...)) // the next commit
	if why := NewPlan(in).PruneBlocked; why != "" {
		t.Errorf("all 12 are gone from the cluster, confirmed, and yet: %s", why)
	}
}

// Deployments can not be watched just now; git changes a label of one that is autoscaled.
func TestReplicasStayTheAutoscalersWhileTheKindCanNotBeWatched(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, true)
	p.play(story{
		{git: scaled, done: "create Deployment/d"},
		{meanwhile: scaleAs("kube-controller-manager", 4), requests: "none", then: holds("Deployment/d", "spec.replicas=4")},
	})
	p.run.Cluster = p.through(func(rt http.RoundTripper) roundTrip { // a new process
		return func(r *http.Request) (*http.Response, error) {
			if strings.Contains(r.URL.Query().Get("labelSelector"), SyncLabel) {
				return nil, fmt.Errorf("connection lost")
			}
			return rt.RoundTrip(r)
		}
	})
	p.run.Drift = NewDrift(t.Context(), p.run.Cluster, p.owner)
	p.reload()
	p.run.Drift.Track(p.inv)
	p.run.Drift.AwaitSync(t.Context())
	res := p.apply(p.input(p.text(strings.Replace(scaled, "name: d, namespace: NS", "name: d, namespace: NS, labels: {l: new}", 1))))
	if err := holds("Deployment/d", "spec.replicas=4")(p); err != nil {
		t.Errorf("%v; done %v", err, res.Done)
	}
}
