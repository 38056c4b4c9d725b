package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const pending = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: pending}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: none}\n"

func TestANewerCommitEndsTheWaitForAnOlderOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Wait = 4 * time.Second
	w.configMap("a", "1")
	w.repo.Write("pending.yaml", pending)
	first := w.repo.Commit("never ready")
	w.start()
	w.eventually("it is applied", func() error { return w.holds("a", "1") })
	w.repo.Remove("pending.yaml")
	w.configMap("a", "2")
	second := w.repo.Commit("what has a status is gone")
	w.eventually("the second is ready", func() error {
		if !strings.Contains(w.log.String(), "msg=ready commit="+second) {
			return errors.New("not yet")
		}
		return nil
	})
	time.Sleep(5 * time.Second) // the first would have been judged by now
	if log := w.log.String(); strings.Contains(log, "msg=ready commit="+first) || strings.Contains(log, "health:") {
		t.Errorf("the first was judged:\n%s", log)
	}
}

func TestWhatDoesNotBecomeReadyIsReportedAndHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Wait = time.Second
	w.configMap("a", "1")
	w.repo.Write("pending.yaml", pending)
	w.repo.Commit("never ready")
	reports := w.start()
	w.eventually("it is reported", func() error {
		for _, r := range reports() {
			if slices.Contains(stagesOf(r), Health) && strings.Contains(r.Err().Error(), "PersistentVolumeClaim/"+w.app+"/pending: is not ready after 1s") {
				return nil
			}
		}
		return errors.New("not yet")
	})
	if err := w.edit("a", "edited"); err != nil {
		t.Fatal(err)
	}
	w.eventually("drift is repaired", func() error { return w.holds("a", "1") })

	t.Log("a single pass waits, too")
	s := w.once()
	r := s.Pass(t.Context())
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	if s.AwaitReady(t.Context(), &r); !slices.Equal(stagesOf(r), []Stage{Health}) {
		t.Errorf("failures: %v", r.Failures)
	}
}

// bind makes a claim ready, as its controller would.
func (w *world) bind(name string) error {
	_, err := w.admin.CoreV1().PersistentVolumeClaims(w.app).Patch(w.t.Context(), name, types.MergePatchType, []byte(`{"status":{"phase":"Bound"}}`), metav1.PatchOptions{}, "status")
	return err
}

func (w *world) says(text string) error {
	if !strings.Contains(w.log.String(), text) {
		return errors.New("not yet")
	}
	return nil
}

const laterMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later, annotations: {gitseal.io/wave: '1'}}\ndata: {v: '%s'}\n"

// twoWaves commits a wave that is not ready before somebody binds its claim, and a
// ConfigMap that comes after it.
func (w *world) twoWaves(message string) (commit string) {
	w.t.Helper()
	w.repo.Write("pending.yaml", pending)
	w.repo.Write("later.yaml", fmt.Sprintf(laterMap, "1"))
	return w.repo.Commit(message)
}

func TestALaterWaveGoesOnWhenTheOneBeforeIsReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = time.Minute
	w.configMap("a", "1")
	w.twoWaves("two waves")
	w.start()
	w.eventually("the second wave waits", func() error { return w.says("msg=\"waves wait\"") })
	mark := w.cp.Mark()
	if err := w.edit("a", "edited"); err != nil {
		t.Fatal(err)
	}
	w.eventually("drift is repaired meanwhile", func() error { return w.holds("a", "1") })
	time.Sleep(3 * w.cfg.Interval)                                                      // looks at git without a new commit
	if n := w.requests(mark, "persistentvolumeclaims", "list", "get", "watch"); n > 1 { // the wait itself may begin only now
		t.Errorf("%d requests for what it waits for", n)
	}
	if err := w.holds("later", "1"); err == nil {
		t.Fatal("the second wave did not wait")
	}
	w.repo.Write("later.yaml", fmt.Sprintf(laterMap, "2"))
	w.configMap("b", "1")
	w.repo.Commit("a newer commit")
	w.eventually("a newer commit ends the wait", func() error { return w.holds("b", "1") })
	if err := w.bind("pending"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the second wave is applied", func() error { return w.holds("later", "2") })
	w.eventually("nothing waits", func() error {
		if got := w.inventory()["ConfigMap/later"]; got != "a" {
			return fmt.Errorf("later is %q", got)
		}
		return nil
	})
}

func TestASinglePassGoesThroughAllWaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = 3 * time.Second
	w.twoWaves("two waves")
	r := w.once().Once(t.Context())
	if !slices.Equal(stagesOf(r), []Stage{Health}) || !strings.Contains(r.Err().Error(), "pending: is not ready after 3s") || len(r.Done) != 1 {
		t.Fatalf("done %v, failures %v", r.Done, r.Failures)
	}
	w.cfg.WaveTimeout = time.Minute
	done := make(chan Report)
	go func() { done <- w.once().Once(t.Context()) }()
	w.eventually("the claim is there", func() error { return w.bind("pending") })
	if r = <-done; r.Err() != nil || len(r.Pending) > 0 || w.holds("later", "1") != nil {
		t.Errorf("done %v, pending %v, failures %v", r.Done, r.Pending, r.Failures)
	}
}

// A wait within a pass, for a finalizer here, ends early where there is something newer to
// apply.
func TestANewerCommitEndsAWaitWithinAPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	binding := func(role string) {
		w.repo.Write("held.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: held, annotations: {gitseal.io/force: enabled}, finalizers: [example.com/hold]}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: "+role+"}\n")
	}
	binding("one")
	w.repo.Commit("one")
	reports := w.start()
	bindings := w.admin.RbacV1().RoleBindings(w.app)
	w.eventually("it is applied", func() error { _, err := bindings.Get(t.Context(), "held", metav1.GetOptions{}); return err })
	binding("two")
	w.repo.Commit("two")
	w.eventually("it is being deleted", func() error {
		b, err := bindings.Get(t.Context(), "held", metav1.GetOptions{})
		if err == nil && b.DeletionTimestamp == nil {
			err = errors.New("not yet")
		}
		return err
	})
	w.configMap("a", "1")
	third := w.repo.Commit("three")
	if err := w.within(15*time.Second, func() error { return w.holds("a", "1") }); err != nil {
		t.Errorf("the newer commit waits for the older one: %v", err)
	}
	if err := w.within(5*time.Second, func() error {
		for _, r := range reports() {
			if r.Newer && r.Commit != third && strings.Contains(fmt.Sprint(r.Err()), "apply: RoleBinding/"+w.app+"/held: a newer commit is there") {
				return nil
			}
		}
		return errors.New("not reported")
	}); err != nil {
		t.Error(err)
	}
	if _, err := bindings.Patch(t.Context(), "held", types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is made anew", func() error {
		b, err := bindings.Get(t.Context(), "held", metav1.GetOptions{})
		if err == nil && b.RoleRef.Name != "two" {
			err = errors.New("it has the role " + b.RoleRef.Name)
		}
		return err
	})
	if _, err := bindings.Patch(context.WithoutCancel(t.Context()), "held", types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
}
