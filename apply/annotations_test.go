package apply

import (
	"context"
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// object is the metadata of a ConfigMap of the world.
func (w *world) object(name string) metav1.ObjectMeta {
	w.t.Helper()
	cm, err := w.client.CoreV1().ConfigMaps(w.ns).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return cm.ObjectMeta
}

func (w *world) id(name string) ID { return ID{Kind: "ConfigMap", Namespace: w.ns, Name: name} }

func (w *world) value(name string) string {
	w.t.Helper()
	cm, err := w.client.CoreV1().ConfigMaps(w.ns).Get(w.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return cm.Data["v"]
}

// sibling is another Sync on the same cluster and namespace.
func (w *world) sibling(name string) *world {
	w.t.Helper()
	other := *w
	other.owner.Name = name
	other.run = &Runner{Cluster: w.c, Owner: other.owner}
	other.reload()
	return &other
}

func TestAnotherSyncsObjectIsNotTakenUntilItIsGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(configMaps("x=first", "b=1"))
	before := w.object("x")
	other := w.sibling("other")
	for range 2 { // nor by the next pass, which finds it half applied
		res := other.apply(other.input(configMaps("x=second", "z=1")))
		if len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "ConfigMap/"+w.ns+"/x: the Sync "+w.ns+"/test has applied it already") {
			t.Fatalf("failed: %v", res.Failed)
		}
	}
	if after := w.object("x"); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("it was written: %v", after.Labels)
	}

	t.Log("the first one gives it up, and does not delete it")
	if err := w.patch("x", `{"metadata":{"annotations":{"gitseal.io/prune":"disabled"}}}`); err != nil {
		t.Fatal(err)
	}
	w.mustApply(configMaps("b=1"))
	free := w.object("x")
	if free.UID != before.UID || free.Labels[SyncLabel] != "" {
		t.Errorf("given up: uid %s, labels %v", free.UID, free.Labels)
	}
	for _, f := range free.ManagedFields {
		if f.Manager == w.owner.fieldManager() {
			t.Errorf("it still owns %s", f.FieldsV1)
		}
	}
	other.mustApply(configMaps("x=second", "z=1"))
	if after := w.object("x"); after.UID != before.UID || after.Labels[SyncLabel] != other.owner.label() {
		t.Errorf("taken: uid %s, labels %v", after.UID, after.Labels)
	}
}

const deployment = `apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: NS, annotations: {ANNOTATION}}
spec:
  replicas: 0
  selector: {matchLabels: {app: APP}}
  template:
    metadata: {labels: {app: APP}}
    spec: {containers: [{name: c, image: IMAGE}]}
`

func deploymentOf(app, image, annotation string) string {
	return strings.NewReplacer("APP", app, "IMAGE", image, "ANNOTATION", annotation).Replace(deployment)
}

func TestWhatCanNotBeChangedIsMadeAnewOnlyIfAskedAndAccepted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		annotation, image string
		force             bool
		want              string // "" where it is made anew
	}{
		"not asked":             {"", "nginx", false, "gitseal.io/force: enabled"},
		"by annotation":         {"gitseal.io/force: enabled", "nginx", false, ""},
		"by Flux' annotation":   {"kustomize.toolkit.fluxcd.io/force: enabled", "nginx", false, ""},
		"by Argo CD's":          {"argocd.argoproj.io/sync-options: 'Prune=false, Replace=true'", "nginx", false, ""},
		"by the Sync":           {"", "nginx", true, ""},
		"invalid as a new one":  {"", "''", true, "image"},
		"asked for another one": {"argocd.argoproj.io/sync-options: ForceAll=true", "nginx", false, "gitseal.io/force: enabled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.run.Force = c.force
			w.mustApply(deploymentOf("a", "nginx", ""))
			uid := func() types.UID {
				d, err := w.client.AppsV1().Deployments(w.ns).Get(t.Context(), "d", metav1.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return d.UID
			}
			before := uid()
			res := w.apply(w.input(deploymentOf("b", c.image, c.annotation)))
			if c.want == "" {
				if len(res.Failed) > 0 || uid() == before || !strings.Contains(res.Done[0].Reason, "made anew") {
					t.Errorf("failed %v, done %v", res.Failed, res.Done)
				}
				return
			}
			var answer *RefusedError
			if len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), c.want) || !errors.As(res.Failed[0].Err, &answer) {
				t.Errorf("failed %v, want %s", res.Failed, c.want)
			}
			if strings.Contains(c.want, "image") && strings.Contains(res.Failed[0].Error(), "gitseal.io/force") {
				t.Errorf("the hint does not help here: %v", res.Failed)
			}
			if uid() != before {
				t.Error("it was made anew")
			}
		})
	}
}

func wave(name, number, data string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: NS, annotations: {gitseal.io/wave: \"" + number + "\"}}\ndata: " + data + "\n---\n"
}

func TestWavesGoOneAfterAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	late, early := wave("late", "10", "{a: b}"), wave("early", "-1", "{a: b}")
	res := w.mustApply(late + configMaps("middle=1") + "---\n" + early + strings.Replace(wave("middle2", "0", "{a: b}"), "gitseal.io/wave", "argocd.argoproj.io/sync-wave", 1))
	if len(res.Done) != 4 {
		t.Fatalf("done %v", res.Done)
	}
	var order []string
	for _, name := range []string{"early", "middle", "middle2", "late"} {
		order = append(order, w.object(name).ResourceVersion)
	}
	if !older(order[0], order[1]) || !older(order[0], order[2]) || !older(order[1], order[3]) || !older(order[2], order[3]) {
		t.Errorf("resource versions of -1, 0, 0 and 10: %v", order)
	}

	t.Log("what fails holds up the waves after it, and no other")
	res = w.apply(w.input(wave("late", "10", "{a: c}") + strings.Replace(configMaps("middle=2"), "name: middle", "name: middle_", 1) + "---\n" + wave("early", "-1", "{a: c}")))
	if len(res.Failed) != 1 || len(res.Waiting) != 1 || len(res.Done) != 1 || res.Waiting[0].ID.Name != "late" || res.Done[0].ID.Name != "early" || !strings.Contains(res.Waiting[0].Error(), "waits for ConfigMap/"+w.ns+"/middle_") {
		t.Errorf("failed %v, waiting %v, done %v", res.Failed, res.Waiting, res.Done)
	}

	t.Log("prune goes the other way")
	keep := configMaps("keep=1")
	w.mustApply(late + early + configMaps("middle=1") + "---\n" + keep)
	res = w.mustApply(keep)
	var gone []string
	for _, d := range res.Done {
		gone = append(gone, d.ID.Name)
	}
	if strings.Join(gone, " ") != "late middle early" && strings.Join(gone, " ") != "late middle middle2 early" {
		t.Errorf("pruned in the order %v", gone)
	}
	res = w.apply(w.input(keep + "---\n" + wave("odd", "soon", "{a: b}")))
	if len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), `gitseal.io/wave: "soon" is not a number`) {
		t.Errorf("failed %v", res.Failed)
	}
}

func TestAnObjectInTheClusterMayAskToBeLeftAlone(t *testing.T) {
	t.Parallel()
	for _, annotation := range []string{reconcileAnnotation, fluxReconcile} {
		t.Run(annotation, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.run.Drift = NewDrift(ctx, w.c, w.owner)
			w.mustApply(configMaps("x=1", "b=1"))
			if err := w.patch("x", `{"metadata":{"annotations":{"`+annotation+`":"disabled"}},"data":{"v":"by hand"}}`); err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, "it is seen", func(context.Context) error {
				if w.run.Drift.Held()[w.id("x")] == "" {
					return errors.New("not yet")
				}
				return nil
			})
			if drift := w.run.Drift.Take(); len(drift) > 0 {
				t.Errorf("drift: %v", drift)
			}
			in := w.input(configMaps("x=2", "b=2"))
			in.Held = w.run.Drift.Held()
			if res := w.apply(in); len(res.Done) != 1 || w.value("x") != "by hand" {
				t.Errorf("done %v, x holds %q", res.Done, w.value("x"))
			}
			w.reload()
			if _, held, err := w.run.Survey(t.Context(), w.inv); err != nil || held[w.id("x")] != annotation {
				t.Errorf("a look without watches: %v, %v", held, err)
			}
			if err := w.patch("x", `{"metadata":{"annotations":{"`+annotation+`":null}}}`); err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, "it is looked at again", func(context.Context) error {
				if !strings.Contains(w.run.Drift.Take()[w.id("x")], annotation) {
					return errors.New("not yet")
				}
				return nil
			})
			if res := w.apply(w.input(configMaps("x=2", "b=2"))); len(res.Done) != 1 || w.value("x") != "2" {
				t.Errorf("done %v, x holds %q", res.Done, w.value("x"))
			}
		})
	}
}
