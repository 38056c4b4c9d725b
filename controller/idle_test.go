package controller

import (
	"fmt"
	"maps"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

// While nothing happens a hundred Syncs that look at git every second send nothing to the
// API server but what keeps a watch alive; a commit costs one request for each object that it changes.
func TestIdleSyncsSendNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 100
	for i := range n {
		w.repo.Write(fmt.Sprintf("%d/web.yaml", i), syncs.ConfigMap("", fmt.Sprintf("web-%d", i), "one"))
		w.repo.Write(fmt.Sprintf("%d/db.yaml", i), w.secret(w.team, fmt.Sprintf("db-%d", i), "hunter2", w.team+"/*"))
	}
	w.commit("first")
	var all []*v1alpha1.Sync
	for i := range n {
		all = append(all, w.sync(w.team, fmt.Sprintf("app-%d", i), fmt.Sprint(i), func(s *v1alpha1.Sync) { s.Spec.Interval = metav1.Duration{Duration: time.Second} }))
	}
	w.start()
	for _, s := range all {
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

	objects := func(e harness.AuditEvent) bool {
		return ours(e) && (e.Resource == "configmaps" || e.Resource == "secrets") && e.Namespace == w.team
	}
	for name, changed := range map[string][]int{"a commit that touches one": {7}, "one that touches all": upTo(n)} {
		mark = w.cp.Mark()
		want := map[string]int{}
		for _, i := range changed {
			w.repo.Write(fmt.Sprintf("%d/web.yaml", i), syncs.ConfigMap("", fmt.Sprintf("web-%d", i), "now it is "+name))
			want[fmt.Sprintf("patch web-%d", i)] = 1
		}
		w.commit(name)
		for _, s := range all {
			w.ready(s)
		}
		time.Sleep(time.Second) // what comes late counts
		events, err := w.cp.Requests(t.Context(), mark, objects)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for _, e := range events {
			got[e.Verb+" "+e.Name]++
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: requests for objects %v, want %v", name, got, want)
		}
	}
}

func upTo(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}
