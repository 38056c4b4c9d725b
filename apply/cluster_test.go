package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

type noKeys struct{}

func (noKeys) Keyring() crypto.Keyring                  { return crypto.Keyring{} }
func (noKeys) CertificateKeys() []crypto.CertificateKey { return nil }

// world is a namespace of a real cluster with a runner for it.
type world struct {
	t      testing.TB
	cp     *harness.ControlPlane
	c      *Cluster
	client kubernetes.Interface
	ns     string
	owner  Owner
	run    *Runner
	inv    Inventory
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, harness.Shared(t))
}

func newWorldOn(t testing.TB, cp *harness.ControlPlane) *world {
	t.Helper()
	cfg, err := cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.UserAgent = "apply-test-" + t.Name()
	c, err := Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ns := cp.Namespace(t, "apply")
	w := &world{t: t, cp: cp, c: c, client: c.client, ns: ns, owner: Owner{Namespace: ns, Name: "test"}}
	w.run = &Runner{Cluster: c, Store: NewInventoryStore(c, w.owner), Owner: w.owner}
	w.reload()
	return w
}

// reload reads the inventory as a new process would.
func (w *world) reload() {
	w.t.Helper()
	w.run.Store = NewInventoryStore(w.c, w.owner)
	inv, err := w.run.Store.Load(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.inv = inv
}

// desired renders manifests; NS stands for the namespace.
func (w *world) desired(manifests string) ([]Desired, []Failure) {
	w.t.Helper()
	tree := fstest.MapFS{"x.yaml": {Data: []byte(strings.ReplaceAll(manifests, "NS", w.ns))}}
	digester, err := decrypt.NewDigester(crypto.NewSecretString(strings.Repeat("k", 32)), "t")
	if err != nil {
		w.t.Fatal(err)
	}
	masker := decrypt.NewMasker(decrypt.MaskerConfig{Tree: tree, Keys: noKeys{}, Digester: digester, Policy: decrypt.Policy{Plaintext: decrypt.PlaintextAllow, Namespace: w.ns}})
	objects, err := build.Run(w.t.Context(), masker, ".", build.AsWritten)
	if err != nil {
		w.t.Fatal(err)
	}
	g := masker.Pass().Gate(objects)
	if len(g.Refused) > 0 {
		w.t.Fatal(g.Refused)
	}
	return w.c.Resolve(g.Objects, w.ns)
}

func (w *world) input(manifests string) PlanInput {
	w.t.Helper()
	d, failed := w.desired(manifests)
	if len(failed) > 0 {
		w.t.Fatal(failed)
	}
	return PlanInput{Owner: w.owner, Desired: d, Inventory: w.inv, Source: "s", Prune: true}
}

// apply carries out the plan for the input and keeps the inventory.
func (w *world) apply(in PlanInput) Result {
	w.t.Helper()
	in.Inventory = w.inv
	res, err := w.run.Run(w.t.Context(), NewPlan(in), "commit")
	if err != nil {
		w.t.Fatal(err)
	}
	w.inv = res.Inventory
	return res
}

func (w *world) mustApply(manifests string) Result {
	w.t.Helper()
	res := w.apply(w.input(manifests))
	if len(res.Failed)+len(res.Waiting)+len(res.Kept) > 0 {
		w.t.Fatalf("failed %v, waiting %v, kept %v", res.Failed, res.Waiting, res.Kept)
	}
	return res
}

// writes counts the requests of this world that change an object of a kind.
func (w *world) writes(since harness.Mark, resource string) int {
	w.t.Helper()
	ev, err := w.cp.Requests(w.t.Context(), since, func(e harness.AuditEvent) bool {
		return e.UserAgent == "apply-test-"+w.t.Name() && e.Resource == resource && e.Verb != "get" && e.Verb != "list" && e.Verb != "watch"
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(ev)
}

func configMaps(names ...string) string {
	var out []string
	for _, n := range names {
		name, value, _ := strings.Cut(n, "=")
		out = append(out, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: NS}\ndata: {v: %q}\n", name, value))
	}
	return strings.Join(out, "---\n")
}

func TestCRDAndItsObjectsAndANamespaceAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	group, crd := w.crd()
	w.mustApply(fmt.Sprintf(`apiVersion: %s/v1
kind: Widget
metadata: {name: one, namespace: NS-inner}
spec: {size: 3}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: inside, namespace: NS-inner}
---
apiVersion: v1
kind: Namespace
metadata: {name: NS-inner}
---
`, group) + crd)
	if len(w.inv.Entries) != 4 {
		t.Errorf("the inventory holds %v", w.inv.IDs())
	}
	t.Log("and all of it goes again, the namespace last, the CRD after its objects")
	res := w.apply(w.input(configMaps("keep")))
	if len(res.Kept)+len(res.Failed) > 0 {
		t.Errorf("kept %v, failed %v", res.Kept, res.Failed)
	}
	if _, err := w.client.Discovery().ServerResourcesForGroupVersion(group + "/v1"); err == nil {
		t.Error("the CRD is still served")
	}
}

func TestOnlyWhatChangedIsSent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(configMaps("a=1", "b=1", "c=1"))
	w.reload() // as after a restart
	mark := w.cp.Mark()
	res := w.mustApply(configMaps("a=1", "b=2", "c=1"))
	if n := w.writes(mark, "configmaps"); n != 1 || res.Requests != 1 {
		t.Errorf("%d writes and %d requests, want one", n, res.Requests)
	}
	mark = w.cp.Mark()
	w.mustApply(configMaps("a=1", "b=2", "c=1"))
	if n := w.writes(mark, "configmaps") + w.writes(mark, "secrets"); n != 0 {
		t.Errorf("nothing changed, and %d writes", n)
	}
}

func TestOneFailingObjectStopsOnlyWhatNeedsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(configMaps("old=1"))
	res := w.apply(w.input(`apiVersion: v1
kind: Secret
metadata: {name: bad, namespace: NS}
type: kubernetes.io/tls
stringData: {password: secret-canary}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: needs-bad, namespace: NS}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: x, envFrom: [{secretRef: {name: bad}}]}]}
---
` + configMaps("fine=1")))
	if len(res.Failed) != 1 || res.Failed[0].ID.Name != "bad" {
		t.Fatalf("failed: %v", res.Failed)
	}
	msg := res.Failed[0].Error()
	if !strings.Contains(msg, "Invalid (422) at data[tls.crt]") || strings.Contains(msg, "canary") {
		t.Errorf("message: %s", msg)
	}
	if len(res.Waiting) != 1 || !strings.Contains(res.Waiting[0].Error(), "Deployment/"+w.ns+"/needs-bad: waits for Secret/"+w.ns+"/bad") {
		t.Errorf("waiting: %v", res.Waiting)
	}
	if _, err := w.client.CoreV1().ConfigMaps(w.ns).Get(t.Context(), "fine", metav1.GetOptions{}); err != nil {
		t.Errorf("the independent object: %v", err)
	}
	if _, err := w.client.CoreV1().ConfigMaps(w.ns).Get(t.Context(), "old", metav1.GetOptions{}); err != nil {
		t.Errorf("something was pruned after a failure: %v", err)
	}
	w.reload()
	if d := cmp.Diff([]string{"ConfigMap/fine", "ConfigMap/old", "Deployment/needs-bad", "Secret/bad"}, names(w.inv)); d != "" {
		t.Errorf("inventory (-want +got):\n%s", d)
	}
}

func names(inv Inventory) []string {
	var out []string
	for _, id := range inv.IDs() {
		out = append(out, id.Kind+"/"+id.Name)
	}
	// by kind and name, whatever the group
	for i := range out {
		for j := i + 1; j < len(out); j++ {
			if out[j] < out[i] {
				out[i], out[j] = out[j], out[i]
			}
		}
	}
	return out
}

func TestPruneDeletesOnlyWhatIsSurelyOurs(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, c := range map[string]struct {
		before func(w *world) error // happens to ConfigMap x before it leaves git
		gone   bool
		entry  bool // still in the inventory afterwards
	}{
		"nothing happened": {func(*world) error { return nil }, true, false},
		"somebody deleted it": {func(w *world) error {
			return w.client.CoreV1().ConfigMaps(w.ns).Delete(ctx, "x", metav1.DeleteOptions{})
		}, true, false},
		"deleted and made anew": {func(w *world) error {
			return errors.Join(w.client.CoreV1().ConfigMaps(w.ns).Delete(ctx, "x", metav1.DeleteOptions{}), w.recreate("x"))
		}, false, false},
		"our label was taken away":  {func(w *world) error { return w.patch("x", `{"metadata":{"labels":{"gitseal.io/sync":null}}}`) }, false, false},
		"another Sync took it over": {func(w *world) error { return w.patch("x", `{"metadata":{"labels":{"gitseal.io/sync":"other.sync"}}}`) }, false, false},
		"annotated to stay": {func(w *world) error {
			return w.patch("x", `{"metadata":{"annotations":{"gitseal.io/prune":"disabled"}}}`)
		}, false, false},
		"annotated for Flux": {func(w *world) error {
			return w.patch("x", `{"metadata":{"annotations":{"kustomize.toolkit.fluxcd.io/prune":"disabled"}}}`)
		}, false, false},
		"annotated for Argo CD": {func(w *world) error {
			return w.patch("x", `{"metadata":{"annotations":{"argocd.argoproj.io/sync-options":"Prune=false"}}}`)
		}, false, false},
		"a finalizer holds it": {func(w *world) error { return w.patch("x", `{"metadata":{"finalizers":["example.com/hold"]}}`) }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.mustApply(configMaps("x=1", "keep=1"))
			if err := c.before(w); err != nil {
				t.Fatal(err)
			}
			w.reload()
			w.mustApply(configMaps("keep=1"))
			_, err := w.client.CoreV1().ConfigMaps(w.ns).Get(t.Context(), "x", metav1.GetOptions{})
			if gone := apierrors.IsNotFound(err); gone != c.gone {
				t.Errorf("gone: %v, want %v (%v)", gone, c.gone, err)
			}
			w.reload()
			if _, ok := w.inv.Entries[ID{Kind: "ConfigMap", Namespace: w.ns, Name: "x"}]; ok != c.entry {
				t.Errorf("in the inventory: %v, want %v", ok, c.entry)
			}
			if c.entry {
				t.Log("once the finalizer is off, the inventory forgets it")
				if err := w.patch("x", `{"metadata":{"finalizers":null}}`); err != nil {
					t.Fatal(err)
				}
				w.mustApply(configMaps("keep=1"))
				if len(w.inv.Entries) != 1 {
					t.Errorf("the inventory holds %v", names(w.inv))
				}
			}
		})
	}
}

func (w *world) patch(name, patch string) error {
	_, err := w.client.CoreV1().ConfigMaps(w.ns).Patch(w.t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "somebody"})
	return err
}

func (w *world) recreate(name string) error {
	obj := configMapObject(name)
	obj.Labels = w.owner.labels()
	_, err := w.client.CoreV1().ConfigMaps(w.ns).Create(w.t.Context(), obj, metav1.CreateOptions{})
	return err
}

func TestANamespaceWithForeignObjectsIsNotPruned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inner := "apiVersion: v1\nkind: Namespace\nmetadata: {name: NS-inner}\n---\n"
	w.mustApply(inner + configMaps("keep=1"))
	if _, err := w.client.CoreV1().ConfigMaps(w.ns+"-inner").Create(t.Context(), configMapObject("foreign"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	res := w.apply(w.input(configMaps("keep=1")))
	if len(res.Kept) != 1 || !strings.Contains(res.Kept[0].Error(), "Namespace/"+w.ns+"-inner: holds ConfigMap/foreign") {
		t.Errorf("kept: %v", res.Kept)
	}
	if err := w.client.CoreV1().ConfigMaps(w.ns+"-inner").Delete(t.Context(), "foreign", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if res := w.apply(w.input(configMaps("keep=1"))); len(res.Kept) != 0 || len(res.Done) != 1 {
		t.Errorf("kept %v, done %v", res.Kept, res.Done)
	}
}

func TestTheAgentsOwnObjectsMayNotComeFromGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	res := w.apply(w.input(configMaps("gitseal-keys=1", "gitseal-other=1")))
	if len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "gitseal-keys: is one of the agent's own objects") {
		t.Errorf("failed: %v", res.Failed)
	}
	if _, err := w.client.CoreV1().ConfigMaps(w.ns).Get(t.Context(), "gitseal-keys", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
}

func TestUnknownKindsAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, failed := w.desired("apiVersion: nowhere.example.com/v1\nkind: Thing\nmetadata: {name: x}\n")
	if len(failed) != 1 || !strings.Contains(failed[0].Error(), "the cluster does not know nowhere.example.com/v1 Thing; is its CRD missing?") {
		t.Errorf("got %v", failed)
	}
}

func TestInventoryGrowsOverShardsAndSurvivesDamageLoudly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inv := Inventory{Source: "s", Commit: "c", Entries: map[ID]Entry{}}
	fill := func(n int) {
		for i := range n {
			inv.Entries[cm(fmt.Sprint("o", i))] = Entry{Version: "v1", Resource: "configmaps", Phase: Applied, Input: strings.Repeat("a", 32), Body: strings.Repeat("b", 32), Evidence: Evidence{UID: "u", Fields: "f"}}
		}
	}
	for _, n := range []int{10, 5000, 9000} {
		fill(n)
		if err := w.run.Store.Save(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
		w.reload()
		if d := cmp.Diff(inv, w.inv, cmp.AllowUnexported(Entry{})); d != "" {
			t.Fatalf("%d entries (-want +got):\n%s", n, d)
		}
	}
	list, err := w.client.CoreV1().Secrets(w.ns).List(t.Context(), metav1.ListOptions{LabelSelector: inventoryLabel})
	if err != nil || len(list.Items) < 5 {
		t.Fatalf("%d shards, %v", len(list.Items), err)
	}
	mark := w.cp.Mark()
	e := inv.Entries[cm("o1")]
	e.Input = "changed"
	inv.Entries[cm("o1")] = e
	inv.Commit = "next"
	if err := w.run.Store.Save(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	if n := w.writes(mark, "secrets"); n < 1 || n > 2 {
		t.Errorf("one entry and the commit changed, and %d shards were written", n)
	}
	victim := list.Items[1].Name
	for what, do := range map[string]func() error{
		"damaged": func() error {
			_, err := w.client.CoreV1().Secrets(w.ns).Patch(t.Context(), victim, types.MergePatchType, []byte(`{"data":{"inventory.json.gz":"AAAA"}}`), metav1.PatchOptions{})
			return err
		},
		"missing": func() error {
			return w.client.CoreV1().Secrets(w.ns).Delete(t.Context(), victim, metav1.DeleteOptions{})
		},
	} {
		if err := do(); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		var ie *InventoryError
		if _, err := NewInventoryStore(w.c, w.owner).Load(t.Context()); !errors.As(err, &ie) || !strings.Contains(err.Error(), victim) {
			t.Errorf("%s: got %v, want an InventoryError that names %s", what, err, victim)
		}
		if what == "missing" {
			break // a damaged shard can not be looked for any more
		}
	}
}

func TestDriftIsSeenAndOtherChangesAreNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.run.Drift = NewDrift(ctx, w.c, w.owner)
	manifests := configMaps("x=1", "z=1") + `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: NS}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: x}]}
`
	w.mustApply(manifests)
	for !w.run.Drift.Synced() {
		time.Sleep(10 * time.Millisecond)
	}
	dep := func(patch string, sub ...string) error {
		_, err := w.client.AppsV1().Deployments(w.ns).Patch(ctx, "d", types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "somebody"}, sub...)
		return err
	}
	for _, c := range []struct {
		name string
		do   func() error
		want string // the object that drifted, "" for none
	}{
		{"a foreign label", func() error { return w.patch("x", `{"metadata":{"labels":{"their":"own"}}}`) }, ""},
		{"a foreign key", func() error { return w.patch("x", `{"data":{"their":"own"}}`) }, ""},
		{"a status", func() error { return dep(`{"status":{"replicas":1}}`, "status") }, ""},
		{"replicas, which git does not set", func() error { return dep(`{"spec":{"replicas":4}}`) }, ""},
		{"a changed value", func() error { return w.patch("x", `{"data":{"v":"2"}}`) }, "x"},
		{"changed and changed back", func() error {
			return errors.Join(w.patch("z", `{"data":{"v":"2"}}`), w.patch("z", `{"data":{"v":"1"}}`))
		}, "z"},
		{"an image", func() error {
			_, err := w.client.AppsV1().Deployments(w.ns).Patch(ctx, "d", types.StrategicMergePatchType, []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"evil"}]}}}}`), metav1.PatchOptions{FieldManager: "somebody"})
			return err
		}, "d"},
		{"a removed key", func() error { return w.patch("x", `{"data":{"v":null}}`) }, "x"},
		{"a removed label of ours", func() error { return w.patch("x", `{"metadata":{"labels":{"gitseal.io/sync":null}}}`) }, "x"},
		{"a deletion", func() error { return w.client.CoreV1().ConfigMaps(w.ns).Delete(ctx, "z", metav1.DeleteOptions{}) }, "z"},
	} {
		t.Log(c.name)
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		// A marker that is always seen comes after: then what came before was
		// judged too.
		if err := w.patch("x", `{"metadata":{"annotations":{"mark":"`+c.name+`"}}}`); err != nil {
			t.Fatal(err)
		}
		why := map[ID]string{}
		deadline := time.After(2 * time.Second)
	wait:
		for {
			select {
			case <-w.run.Drift.Wake():
				for id, r := range w.run.Drift.Take() {
					why[id] = r
				}
				if c.want != "" {
					break wait
				}
			case <-deadline:
				break wait
			}
		}
		switch {
		case c.want == "" && len(why) > 0:
			t.Errorf("%s: seen as drift: %v", c.name, why)
		case c.want != "" && len(why) != 1:
			t.Errorf("%s: got %v, want %s", c.name, why, c.want)
		}
		for id := range why {
			if id.Name != c.want {
				t.Errorf("%s: got %s, want %s", c.name, id, c.want)
			}
		}
		if len(why) == 0 {
			continue
		}
		d, _ := w.desired(manifests)
		res, err := w.run.Repair(ctx, w.inv, d, why)
		if err != nil || len(res.Done) != 1 || len(res.Failed) > 0 {
			t.Fatalf("%s: repair: %+v, %v", c.name, res, err)
		}
		w.inv = res.Inventory
	}
	got, err := w.client.CoreV1().ConfigMaps(w.ns).Get(ctx, "x", metav1.GetOptions{})
	if err != nil || got.Data["v"] != "1" || got.Data["their"] != "own" || got.Labels["their"] != "own" {
		t.Errorf("at the end: %+v, %v", got, err)
	}
}

func configMapObject(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// crd defines Widget in a group of the test's own.
func (w *world) crd() (group, manifest string) {
	group = strings.ReplaceAll(w.ns, "-", "") + ".example.com"
	return group, fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.%[1]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`, group)
}

func TestACRDThatIsInUseIsNotPruned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	group, crd := w.crd()
	widget := fmt.Sprintf("apiVersion: %s/v1\nkind: Widget\nmetadata: {name: one, namespace: NS}\n", group)
	w.mustApply(crd + "---\n" + widget + "---\n" + configMaps("keep=1"))
	t.Log("the CRD leaves git, its object stays in it")
	res := w.apply(w.input(widget + "---\n" + configMaps("keep=1")))
	if len(res.Kept) != 1 || !strings.Contains(res.Kept[0].Error(), "there are still objects of its kind (widgets "+w.ns+"/one)") {
		t.Fatalf("kept: %v", res.Kept)
	}
	t.Log("now the object leaves git too")
	if res = w.apply(w.input(configMaps("keep=1"))); len(res.Kept) != 0 || len(res.Done) != 2 {
		t.Errorf("kept %v, done %v", res.Kept, res.Done)
	}
}

func TestAKindThatIsInstalledLaterIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	group, crd := w.crd()
	widget := fmt.Sprintf("apiVersion: %s/v1\nkind: Widget\nmetadata: {name: one, namespace: NS}\n", group)
	if _, failed := w.desired(widget); len(failed) != 1 {
		t.Fatalf("failed: %v", failed)
	}
	// By somebody else, so that this world's discovery does not hear of it.
	other := newWorld(t)
	other.mustApply(crd)
	if d, failed := w.desired(widget); len(failed) != 0 || len(d) != 1 {
		t.Errorf("failed: %v", failed)
	}
}

func TestOneObjectTwiceIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, failed := w.desired(configMaps("x=1") + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")
	if len(failed) != 1 || !strings.Contains(failed[0].Error(), "ConfigMap/"+w.ns+"/x: is in git twice") {
		t.Errorf("failed: %v", failed)
	}
}

func TestDriftOfAnObjectThatHasToWaitIsNotForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	manifests := func(secretType string) string {
		return `apiVersion: v1
kind: Secret
metadata: {name: s, namespace: NS}
type: ` + secretType + `
stringData: {a: b}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: NS}
spec:
  replicas: 1
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: x, envFrom: [{secretRef: {name: s}}]}]}
`
	}
	w.mustApply(manifests("Opaque"))
	in := w.input(manifests("kubernetes.io/tls")) // the type of a Secret can not change
	deployment := ID{Group: "apps", Kind: "Deployment", Namespace: w.ns, Name: "d"}
	in.Drifted = map[ID]string{deployment: "edited"}
	if res := w.apply(in); len(res.Failed) != 1 || len(res.Waiting) != 1 {
		t.Fatalf("failed %v, waiting %v", res.Failed, res.Waiting)
	}
	res := w.mustApply(manifests("Opaque")) // nobody tells of the drift again
	for _, d := range res.Done {
		if d.ID == deployment {
			return
		}
	}
	t.Errorf("the Deployment was not applied again: %v", res.Done)
}
