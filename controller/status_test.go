package controller

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/reconcile"
)

// What reports make of a status, one after another, and what kstatus makes of that.
func TestStatusesAreWhatToolsExpect(t *testing.T) {
	t.Parallel()
	done := []apply.Done{{ID: apply.ID{Kind: "ConfigMap", Namespace: "ns", Name: "a"}, Action: apply.Create}}
	pass := reconcile.Report{Commit: "c1", Ref: "main@sha1:c1", Objects: 3, Done: done}
	idle := reconcile.Report{Commit: "c1", Ref: "main@sha1:c1", Idle: true}
	fail := func(r reconcile.Report, stage reconcile.Stage, err error) reconcile.Report {
		r.Failures = []error{&reconcile.StageError{Stage: stage, Err: err}}
		return r
	}
	pending := pass
	pending.Pending = []apply.Failure{{ID: done[0].ID, Err: errors.New("waits")}}
	gated := idle
	gated.Gated = true
	ready := reconcile.Report{Of: reconcile.Readiness, Commit: "c1"}
	repair := reconcile.Report{Of: reconcile.Repair, Commit: "c1", Done: done}
	down := errors.New("git server unreachable")
	for name, c := range map[string]struct {
		waits   bool
		reports []reconcile.Report
		ready   string // status and reason
		kstatus status.Status
		applied string
	}{
		"applied":                              {false, []reconcile.Report{pass}, "True ReconciliationSucceeded", status.CurrentStatus, "c1"},
		"git is down from the start":           {false, []reconcile.Report{fail(reconcile.Report{Idle: true}, reconcile.Fetch, down)}, "False FetchFailed", status.InProgressStatus, ""},
		"git is down later":                    {false, []reconcile.Report{pass, fail(idle, reconcile.Fetch, down)}, "False FetchFailed", status.InProgressStatus, "c1"},
		"git is back":                          {false, []reconcile.Report{pass, fail(idle, reconcile.Fetch, down), idle}, "True ReconciliationSucceeded", status.CurrentStatus, "c1"},
		"the spec is wrong":                    {false, []reconcile.Report{fail(reconcile.Report{Idle: true}, reconcile.Fetch, stalled(InvalidSpec, errors.New("x")))}, "False InvalidSpec", status.FailedStatus, ""},
		"the spec was wrong":                   {false, []reconcile.Report{fail(reconcile.Report{Idle: true}, reconcile.Fetch, stalled(InvalidSpec, errors.New("x"))), pass}, "True ReconciliationSucceeded", status.CurrentStatus, "c1"},
		"a wave waits":                         {false, []reconcile.Report{pending}, "Unknown WaveNotReady", status.InProgressStatus, ""},
		"a wave waits still":                   {false, []reconcile.Report{pending, fail(gated, reconcile.Fetch, down), gated}, "Unknown WaveNotReady", status.InProgressStatus, ""},
		"applied, not ready yet":               {true, []reconcile.Report{pass}, "Unknown Progressing", status.InProgressStatus, "c1"},
		"applied, and ready":                   {true, []reconcile.Report{pass, ready}, "True ReconciliationSucceeded", status.CurrentStatus, "c1"},
		"applied, and never ready":             {true, []reconcile.Report{pass, fail(ready, reconcile.Health, errors.New("no"))}, "False HealthCheckFailed", status.InProgressStatus, "c1"},
		"never ready, and git was down":        {true, []reconcile.Report{pass, fail(ready, reconcile.Health, errors.New("no")), fail(idle, reconcile.Fetch, down), idle}, "False HealthCheckFailed", status.InProgressStatus, "c1"},
		"ready, and git was down":              {true, []reconcile.Report{pass, ready, fail(idle, reconcile.Fetch, down), idle}, "True ReconciliationSucceeded", status.CurrentStatus, "c1"},
		"not ready yet, and git was down":      {true, []reconcile.Report{pass, fail(idle, reconcile.Fetch, down), idle}, "Unknown Progressing", status.InProgressStatus, "c1"},
		"drift was corrected":                  {false, []reconcile.Report{pass, repair}, "True ReconciliationSucceeded", status.CurrentStatus, "c1"},
		"drift was corrected while git is off": {false, []reconcile.Report{pass, fail(idle, reconcile.Fetch, down), repair}, "False FetchFailed", status.InProgressStatus, "c1"},
		"drift could not be corrected":         {false, []reconcile.Report{pass, fail(repair, reconcile.Apply, apply.Failure{ID: done[0].ID, Err: errors.New("no")})}, "False ApplyFailed", status.InProgressStatus, "c1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := v1alpha1.Sync{TypeMeta: metav1.TypeMeta{APIVersion: "gitseal.io/v1alpha1", Kind: "Sync"}, ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns", Generation: 4}}
			for _, r := range c.reports {
				before := *s.Status.DeepCopy()
				s.Status = nextStatus(s.Status, r, about{generation: 4, waits: c.waits, now: time.Now().Truncate(time.Second)})
				if r.Of != reconcile.Repair && len(s.Status.Conditions) == 0 {
					t.Fatalf("no conditions after %+v of %+v", r, before)
				}
			}
			cond := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.Ready)
			if got := string(cond.Status) + " " + cond.Reason; got != c.ready {
				t.Errorf("Ready: got %s, want %s", got, c.ready)
			}
			if got := s.Status.Applied; c.applied == "" && got != nil || c.applied != "" && (got == nil || got.Hash != c.applied) {
				t.Errorf("applied: got %+v, want %q", got, c.applied)
			}
			o, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&s)
			if err != nil {
				t.Fatal(err)
			}
			res, err := status.Compute(&unstructured.Unstructured{Object: o})
			if err != nil || res.Status != c.kstatus {
				t.Errorf("kstatus: got %+v, %v, want %s", res, err, c.kstatus)
			}
		})
	}
}

func TestWhatIsLongIsCutBetweenCharacters(t *testing.T) {
	t.Parallel()
	got := clip(strings.Repeat("ü", maxMessage))
	if len(got) > maxMessage+len("…") || !strings.HasSuffix(got, "ü…") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("got %q", got)
	}
}
