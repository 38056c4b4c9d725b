package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

func TestASyncAppliesItsFolderSecretsIncluded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "app/web.yaml", syncs.ConfigMap("", "web", "one"), "app/db.yaml", w.secret(w.team, "db", "hunter2", w.team+"/db"), "elsewhere/x.yaml", syncs.ConfigMap("", "x", "no"))
	s := w.sync(w.team, "app", "app", nil)
	w.start()
	got := w.ready(s)
	w.value(w.team, "web", "one")
	w.opened(w.team, "db", "hunter2")
	w.stays(w.team, "x", "")
	if got.Status.Objects.Total != 2 || got.Status.Applied.Subject != "first" || got.Status.Applied.Author == "" || !strings.HasSuffix(got.Status.Applied.Revision, "@sha1:"+w.repo.Head()) {
		t.Errorf("status: %+v", got.Status)
	}
	contains(t, "Ready", said(got), "applied ", w.repo.Head())

	w.commit("second", "app/web.yaml", syncs.ConfigMap("", "web", "two"))
	got = w.ready(s)
	w.value(w.team, "web", "two")
	if n := len(got.Status.History); n != 2 || got.Status.History[0].Changed != 1 || got.Status.History[1].Created != 2 {
		t.Errorf("history: %+v", got.Status.History)
	}
	if strings.Contains(w.log.String()+w.audit.String()+fmt.Sprint(got.Status), "hunter2") {
		t.Error("the plaintext was said")
	}
	w.audits(`"action":"change"`)
	var actions []string
	for line := range strings.Lines(w.audit.String()) {
		var l struct{ Audit, Sync, Commit, Author, Action, Object, Outcome any }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Audit != true || l.Sync != w.team+"/app" || l.Author == nil || l.Outcome != "done" {
			t.Errorf("audit line %s: %v", line, err)
		}
		actions = append(actions, fmt.Sprint(l.Action, " ", l.Object))
	}
	contains(t, "audit", strings.Join(actions, "\n"), "create Secret/"+w.team+"/db", "create ConfigMap/"+w.team+"/web", "change ConfigMap/"+w.team+"/web")
	if len(actions) != 3 {
		t.Errorf("audit: got %q, want one line for each change", actions)
	}
	harness.Eventually(t, "events name the commit", func(ctx context.Context) error {
		l := &eventsv1.EventList{}
		if err := w.admin.List(ctx, l, client.InNamespace(w.team)); err != nil {
			return err
		}
		for _, e := range l.Items {
			if e.Regarding.Name == "app" && e.Reason == "Applied" && strings.Contains(e.Note, w.repo.Head()) {
				return nil
			}
		}
		return fmt.Errorf("events: %+v", l.Items)
	})
}

func TestDriftIsCorrectedAndASuspendedSyncLetsItBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	s := w.sync(w.team, "app", "", nil)
	w.start()
	w.ready(s)
	w.change(w.team, "web", "edited")
	w.value(w.team, "web", "one")
	w.audits(`"action":"correct"`)

	w.edit(s, func(s *v1alpha1.Sync) { s.Spec.Suspend = true })
	harness.Eventually(t, "the loop ends", func(context.Context) error {
		return w.stopped(s)
	})
	harness.Eventually(t, "the suspended Sync does not count as in progress", func(context.Context) error {
		if got := w.get(s); got.Status.ObservedGeneration != got.Generation {
			return fmt.Errorf("observed %d of %d", got.Status.ObservedGeneration, got.Generation)
		}
		return nil
	})
	w.commit("second", "web.yaml", syncs.ConfigMap("", "web", "two"))
	w.change(w.team, "web", "edited")
	time.Sleep(1500 * time.Millisecond)
	w.stays(w.team, "web", "edited")
	w.edit(s, func(s *v1alpha1.Sync) { s.Spec.Suspend = false })
	w.value(w.team, "web", "two")
	w.ready(s)
}

// stopped is nil when the agent watches nothing for the Sync any more: its last event
// was the end of its watch.
func (w *world) stopped(s *v1alpha1.Sync) error {
	w.controller.mu.Lock()
	defer w.controller.mu.Unlock()
	if w.controller.loops[name{s.Namespace, s.Name}] != nil {
		return fmt.Errorf("Sync %s is still kept", s.Name)
	}
	return nil
}

func (w *world) change(namespace, name, value string) {
	w.t.Helper()
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"data":{"key":%q}}`, value))
	if err := w.admin.Patch(w.t.Context(), cm, patch, client.FieldOwner("somebody")); err != nil {
		w.t.Fatal(err)
	}
}

func TestReconcileAtLooksAtGitAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	s := w.sync(w.team, "app", "", func(s *v1alpha1.Sync) { s.Spec.Interval = metav1.Duration{Duration: time.Hour} })
	w.start()
	w.ready(s)
	w.commit("second", "web.yaml", syncs.ConfigMap("", "web", "two"))
	time.Sleep(300 * time.Millisecond)
	w.stays(w.team, "web", "one")
	w.edit(s, func(s *v1alpha1.Sync) { s.Annotations = map[string]string{v1alpha1.ReconcileAtAnnotation: "now"} })
	w.value(w.team, "web", "two")
	handled := func(at string) {
		t.Helper()
		harness.Eventually(t, "reconcile-at "+at+" is dealt with", func(context.Context) error {
			if got := w.get(s).Status.HandledReconcileAt; got != at {
				return fmt.Errorf("got %q", got)
			}
			return nil
		})
	}
	handled("now")
	w.edit(s, func(s *v1alpha1.Sync) { s.Annotations[v1alpha1.ReconcileAtAnnotation] = "again" }) // and nothing is new
	handled("again")
}

func TestDeletingASync(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit  func(*v1alpha1.Sync)
		stays string
	}{
		"prunes what it applied":                    {func(*v1alpha1.Sync) {}, ""},
		"leaves it with Orphan":                     {func(s *v1alpha1.Sync) { s.Spec.DeletionPolicy = "Orphan" }, "one"},
		"leaves it where prune is off":              {func(s *v1alpha1.Sync) { s.Spec.Prune = ptr.To(false) }, "one"},
		"prunes it with Delete where prune is off":  {func(s *v1alpha1.Sync) { s.Spec.Prune, s.Spec.DeletionPolicy = ptr.To(false), "Delete" }, ""},
		"leaves it while suspended only if told so": {func(s *v1alpha1.Sync) { s.Spec.Suspend = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
			s := w.sync(w.team, "app", "", nil)
			w.start()
			w.ready(s)
			w.edit(s, c.edit)
			if err := w.admin.Delete(t.Context(), w.get(s)); err != nil {
				t.Fatal(err)
			}
			harness.Eventually(t, "the Sync is gone", func(ctx context.Context) error {
				err := w.admin.Get(ctx, client.ObjectKeyFromObject(s), &v1alpha1.Sync{})
				if !apierrors.IsNotFound(err) {
					return fmt.Errorf("got %w", err)
				}
				return nil
			})
			w.stays(w.team, "web", c.stays)
			l := &corev1.SecretList{}
			if err := w.admin.List(t.Context(), l, client.InNamespace(w.system), client.HasLabels{"gitseal.io/inventory"}); err != nil || len(l.Items) != 0 {
				t.Errorf("inventories: %v, %v", l.Items, err)
			}
		})
	}
}

func TestASyncComesFromGitItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	child := fmt.Sprintf("apiVersion: gitseal.io/v1alpha1\nkind: Sync\nmetadata: {name: child, namespace: %s}\nspec: {source: {url: %q}, path: child, interval: 1s, serviceAccountName: deployer}\n", w.team, w.url())
	w.commit("first", "root/child.yaml", child, "child/web.yaml", syncs.ConfigMap("", "web", "one"))
	root := w.sync(w.system, "root", "root", nil)
	w.start()
	w.ready(root)
	w.value(w.team, "web", "one")
	w.repo.Remove("root/child.yaml")
	w.commit("without the child", "root/note.yaml", syncs.ConfigMap(w.other, "note", "here"))
	w.value(w.team, "web", "")
	w.ready(root)
	if err := w.admin.Get(t.Context(), client.ObjectKey{Namespace: w.team, Name: "child"}, &v1alpha1.Sync{}); !apierrors.IsNotFound(err) {
		t.Errorf("the child: got %v", err)
	}
}

func TestASyncWaitsForThoseItDependsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "base/web.yaml", syncs.ConfigMap("", "base", "one"), "app/web.yaml", syncs.ConfigMap("", "app", "one"))
	app := w.sync(w.team, "app", "app", func(s *v1alpha1.Sync) {
		s.Spec.DependsOn = []v1alpha1.SyncReference{{Name: "base"}}
		s.Spec.Interval = metav1.Duration{Duration: time.Hour} // only the event can wake it
	})
	w.start()
	got := w.condition(app, v1alpha1.Ready, metav1.ConditionFalse, DependencyNotReady)
	contains(t, "Ready", said(got), "waits for Sync "+w.team+"/base, which does not exist")
	w.stays(w.team, "app", "")
	base := w.sync(w.team, "base", "base", nil)
	w.ready(base)
	w.ready(app)
	w.value(w.team, "app", "one")

	// Of one repository a new commit goes to the dependency first, and stops there if
	// it fails.
	w.commit("second", "base/web.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: BAD}\n", "app/web.yaml", syncs.ConfigMap("", "app", "two"))
	w.condition(base, v1alpha1.Ready, metav1.ConditionFalse, ApplyFailed)
	w.edit(app, func(s *v1alpha1.Sync) { s.Annotations = map[string]string{v1alpha1.ReconcileAtAnnotation: "now"} })
	w.condition(app, v1alpha1.Ready, metav1.ConditionFalse, DependencyNotReady)
	w.stays(w.team, "app", "one")
	w.change(w.team, "app", "edited") // what is applied is kept meanwhile
	w.value(w.team, "app", "one")
	w.commit("third", "base/web.yaml", syncs.ConfigMap("", "base", "three"))
	w.ready(base)
	w.edit(app, func(s *v1alpha1.Sync) { s.Annotations[v1alpha1.ReconcileAtAnnotation] = "again" })
	w.ready(app)
	w.value(w.team, "app", "two")
}

func TestACircleOfDependenciesIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	on := func(n string) func(*v1alpha1.Sync) {
		return func(s *v1alpha1.Sync) { s.Spec.DependsOn = []v1alpha1.SyncReference{{Name: n}} }
	}
	a, b, c := w.sync(w.team, "a", "", on("b")), w.sync(w.team, "b", "", on("c")), w.sync(w.team, "c", "", on("a"))
	w.start()
	for _, s := range []*v1alpha1.Sync{a, b, c} {
		got := w.condition(s, v1alpha1.Stalled, metav1.ConditionTrue, InvalidSpec)
		contains(t, "Ready", said(got), "circle", w.team+"/a", w.team+"/b", w.team+"/c")
	}
	w.edit(c, func(s *v1alpha1.Sync) { s.Spec.DependsOn = nil; s.Spec.Path = "nothing-here" })
	w.condition(a, v1alpha1.Ready, metav1.ConditionFalse, DependencyNotReady)
	if meta.IsStatusConditionTrue(w.get(a).Status.Conditions, v1alpha1.Stalled) {
		t.Error("still stalled")
	}
}

func TestWaitMakesReadyMeanThatObjectsAre(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "job.yaml", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: job}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}\n")
	s := w.sync(w.team, "app", "", func(s *v1alpha1.Sync) { s.Spec.Wait = true })
	w.start()
	w.condition(s, v1alpha1.Ready, metav1.ConditionUnknown, Progressing)
	w.condition(s, v1alpha1.Healthy, metav1.ConditionUnknown, Progressing)
	w.edit(s, func(s *v1alpha1.Sync) { s.Spec.Timeout = metav1.Duration{Duration: time.Second} })
	got := w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, HealthCheckFailed)
	contains(t, "Ready", said(got), "Job/"+w.team+"/job")
	w.commit("without the job", "job.yaml", syncs.ConfigMap("", "web", "one"))
	w.ready(s)
	w.condition(s, v1alpha1.Healthy, metav1.ConditionTrue, Succeeded)
}

func TestAFailureIsSaidAndForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	s := w.sync(w.team, "app", "", nil)
	w.start()
	w.ready(s)

	w.git.SetDown(true)
	got := w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, FetchFailed)
	if got.Status.Applied.Hash != good {
		t.Errorf("applied: %+v", got.Status.Applied)
	}
	w.change(w.team, "web", "edited") // drift is corrected also now
	w.value(w.team, "web", "one")
	w.git.SetDown(false)
	w.ready(s)

	bad := w.commit("broken", "web.yaml", "kind: [")
	got = w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, BuildFailed)
	contains(t, "Ready", said(got), "web.yaml")
	if got.Status.Applied.Hash != good || got.Status.Attempted == nil || got.Status.Attempted.Hash != bad || len(got.Status.Failures) != 1 || got.Status.Failures[0].Stage != "build" {
		t.Errorf("status: %+v", got.Status)
	}
	stranger, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	w.commit("someone else's key", "web.yaml", syncs.Seal(t, []crypto.Recipient{stranger.Recipient()}, syncs.Secret{Namespace: w.team, Name: "db", Password: "hunter2", Binding: w.team + "/db"}))
	got = w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, DecryptionFailed)
	if len(got.Status.Failures) == 0 || got.Status.Failures[0].Object != "web.yaml" {
		t.Errorf("failures: %+v", got.Status.Failures)
	}
	w.audits(`"outcome":"failed"`, `"reason":"`+got.Status.Failures[0].Reason)
	w.commit("mended", "web.yaml", syncs.ConfigMap("", "web", "two"))
	got = w.ready(s)
	if len(got.Status.Failures) != 0 || got.Status.Attempted != nil {
		t.Errorf("status: %+v", got.Status)
	}
}

// Another Sync may get the name of one that was deleted: nothing of the old one counts.
func TestASyncThatIsMadeAgainBeginsAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	s := w.sync(w.team, "app", "", nil)
	w.start()
	w.ready(s)
	if err := w.admin.Delete(t.Context(), w.get(s)); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the Sync is gone", func(ctx context.Context) error {
		if err := w.admin.Get(ctx, client.ObjectKeyFromObject(s), &v1alpha1.Sync{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	s = w.sync(w.team, "app", "", nil)
	got := w.ready(s)
	w.value(w.team, "web", "one")
	if len(got.Status.History) != 1 || got.Status.History[0].Created != 1 {
		t.Errorf("history: %+v", got.Status.History)
	}
}

// A namespace that is deleted takes its Syncs, service accounts and objects with it, in
// any order.
func TestANamespaceIsDeletedWithItsSync(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	s := w.sync(w.team, "app", "", nil)
	w.start()
	w.ready(s)
	if err := w.admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.team}}); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the namespace is gone", func(ctx context.Context) error {
		if err := w.admin.Get(ctx, client.ObjectKey{Name: w.team}, &corev1.Namespace{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	l := &corev1.SecretList{}
	if err := w.admin.List(t.Context(), l, client.InNamespace(w.system), client.HasLabels{"gitseal.io/inventory"}); err != nil || len(l.Items) != 0 {
		t.Errorf("inventories: %v, %v", l.Items, err)
	}
}
