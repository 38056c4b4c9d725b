package apply

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// TestTheAPIServerStopsInTheMiddleOfAPass stops it after some objects, and lets the
// next pass be that of the same process, or of a new one.
func TestTheAPIServerStopsInTheMiddleOfAPass(t *testing.T) {
	t.Parallel()
	cp := harness.NewControlPlane(t)
	for _, c := range []struct {
		next string
		do   func(*player, Result)
	}{
		{"the same process goes on", func(p *player, res Result) { p.inv = res.Inventory }},
		{"a new process begins", func(p *player, _ Result) { p.reload() }},
	} {
		t.Run(c.next, func(t *testing.T) { // one after the other: they share the API server
			const objects, before = 60, 20
			p := newPlayerIn(newWorldOn(t, cp), false)
			want := map[string]string{}
			for i := range objects {
				want[fmt.Sprintf("o%d", i)] = "1"
			}
			git := manifests(want)

			var sent, answered atomic.Int32
			reached, stopped := make(chan struct{}), make(chan struct{})
			c2 := p.through(func(rt http.RoundTripper) roundTrip {
				return func(r *http.Request) (*http.Response, error) {
					if r.Method != http.MethodPatch {
						return rt.RoundTrip(r)
					}
					if sent.Add(1) > before {
						<-stopped
						return rt.RoundTrip(r)
					}
					resp, err := rt.RoundTrip(r)
					if answered.Add(1) == before {
						close(reached)
					}
					return resp, err
				}
			})
			p.run.Cluster, p.run.Store = c2, NewInventoryStore(c2, p.owner)
			in := p.input(git)
			type end struct {
				res Result
				err error
			}
			ended := make(chan end, 1)
			go func() {
				res, err := p.run.Run(t.Context(), NewPlan(in), "commit")
				ended <- end{res, err}
			}()
			<-reached
			if err := cp.StopAPIServer(t.Context()); err != nil {
				t.Fatal(err)
			}
			close(stopped)
			e := <-ended
			if err := cp.StartAPIServer(t.Context()); err != nil {
				t.Fatal(err)
			}
			if e.err == nil || !strings.Contains(e.err.Error(), "write the inventory") {
				t.Errorf("got error %v, want one of the inventory, which could not be written", e.err)
			}
			if len(e.res.Done) != before || len(e.res.Failed) != objects-before || len(e.res.Waiting) > 0 {
				t.Errorf("done %d, failed %d, waiting %v", len(e.res.Done), len(e.res.Failed), e.res.Waiting)
			}
			for _, f := range e.res.Failed {
				if !strings.Contains(f.Error(), f.ID.Name+": the API server could not be reached") {
					t.Errorf("failed: %v", f)
				}
			}
			done := map[string]string{}
			for _, d := range e.res.Done {
				done[d.ID.Name] = "1"
			}
			if there := p.values(); fmt.Sprint(there) != fmt.Sprint(done) {
				t.Errorf("in the cluster are %v, the result says %v", there, done)
			}

			c.do(p, e.res)
			if len(p.inv.Entries) != objects {
				t.Errorf("got %d entries, want all %d", len(p.inv.Entries), objects)
			}
			p.mustApply(git)
			p.holdsExactly(want)
			mark := cp.Mark()
			p.mustApply(git)
			if n := p.writes(mark, "configmaps"); n != 0 {
				t.Errorf("nothing changed, and %d writes", n)
			}
		})
	}
}

// values are those of the ConfigMaps in the cluster.
func (w *world) values() map[string]string {
	w.t.Helper()
	l, err := w.client.CoreV1().ConfigMaps(w.ns).List(w.t.Context(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	got := map[string]string{}
	for _, cm := range l.Items {
		if cm.Name != "kube-root-ca.crt" {
			got[cm.Name] = cm.Data["v"]
		}
	}
	return got
}
