package controller

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/test/harness"
)

// While nothing happens thirty Syncs that look at git every second send nothing to the
// API server but what keeps a watch alive.
func TestIdleSyncsSendNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 30
	for i := range n {
		w.repo.Write(fmt.Sprintf("%d/web.yaml", i), configMap("", fmt.Sprintf("web-%d", i), "one"))
		w.repo.Write(fmt.Sprintf("%d/db.yaml", i), w.secret(w.team, fmt.Sprintf("db-%d", i), "hunter2", w.team+"/*"))
	}
	w.commit("first")
	var syncs []*v1alpha1.Sync
	for i := range n {
		syncs = append(syncs, w.sync(w.team, fmt.Sprintf("app-%d", i), fmt.Sprint(i), func(s *v1alpha1.Sync) { s.Spec.Interval = metav1.Duration{Duration: time.Second} }))
	}
	w.start()
	for _, s := range syncs {
		w.ready(s)
	}
	ours := func(e harness.AuditEvent) bool { return e.UserAgent == "agent-"+w.system && e.Verb != "watch" }
	time.Sleep(time.Second) // events and the last statuses
	mark := w.cp.Mark()
	w.git.ResetRequests()
	time.Sleep(4 * time.Second)
	events, err := w.cp.Requests(t.Context(), mark, ours)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		t.Errorf("%s %s", e.Verb, e.RequestURI)
	}
	if looks := len(w.git.Requests()); looks < 2 || looks > 8 {
		t.Errorf("%d looks at git in four seconds for %d Syncs of one repository, want about four", looks, n)
	}

	// A commit that touches one of them costs what that one needs.
	mark = w.cp.Mark()
	w.commit("second", "7/web.yaml", configMap("", "web-7", "two"))
	w.value(w.team, "web-7", "two")
	for _, s := range syncs {
		w.ready(s)
	}
	time.Sleep(time.Second)
	events, err = w.cp.Requests(t.Context(), mark, func(e harness.AuditEvent) bool {
		return ours(e) && (e.Resource == "configmaps" || e.Resource == "secrets") && e.Namespace == w.team
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 1 || events[0].Verb != "patch" || events[0].Name != "web-7" {
		t.Errorf("requests for objects: %+v, want one patch of web-7", events)
	}
}
