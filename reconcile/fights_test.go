package reconcile

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gitseal/gitseal/apply"
)

func TestCorrectionsInARowAreAFight(t *testing.T) {
	t.Parallel()
	a, b := apply.ID{Kind: "ConfigMap", Name: "a"}, apply.ID{Kind: "ConfigMap", Name: "b"}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f, at := newFights(), start
	for n := range 7 {
		if !f.due(a, at) || f.due(a, f.at(a).Add(-1)) && n > 0 {
			t.Errorf("repair %d is due at %s", n, f.at(a))
		}
		f.tried(a, at)
		f.tried(b, at) // and nothing was to be done
		if got, want := f.corrected(apply.Done{ID: a, Reason: fmt.Sprint("reason ", n)}), n == 4; got != want {
			t.Errorf("correction %d begins a fight: %v, want %v", n, got, want)
		}
		if n < 4 && len(f.now(at)) > 0 {
			t.Errorf("after %d corrections: %v", n+1, f.now(at))
		}
		at = f.at(a)
	}
	if got, want := at.Sub(start), 127*time.Second; got != want {
		t.Errorf("seven repairs take %s, want %s", got, want)
	}
	last := at.Add(-64 * time.Second)
	if d := cmp.Diff([]Fight{{ID: a, Why: "reason 6", Corrections: 7, Since: start}}, f.now(last.Add(calm))); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := f.now(last.Add(calm + 1)); len(got) > 0 || len(f.of) > 0 {
		t.Errorf("after it was calm: %v, and %v", got, f.of)
	}
}

// first waits for a report.
func (w *world) first(reports func() []Report) Report {
	w.t.Helper()
	w.eventually("there is a report", func() error {
		if len(reports()) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	return reports()[0]
}

func TestAFightIsOverOnceItIsCalm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configMap("a", "1")
	w.repo.Commit("one")
	a := apply.ID{Kind: "ConfigMap", Namespace: w.app, Name: "a"}
	reports := w.startWith(func(s *Sync) {
		s.fights.calm = 4 * time.Second
		s.fights.of[a] = &fight{Fight: Fight{ID: a, Corrections: 9}, last: time.Now()}
	})
	if first := w.first(reports); len(first.Fights) != 1 || first.Fights[0].Corrections != 9 {
		t.Errorf("while it goes on: %v", first.Fights)
	}
	w.eventually("passes that have nothing to do tell that it is over", func() error {
		r := reports()
		if last := r[len(r)-1]; len(last.Fights) > 0 || !last.Idle {
			return fmt.Errorf("idle %v, %v", last.Idle, last.Fights)
		}
		return nil
	})
}

func TestWhatIsOnlyCreatedIsNotFoughtOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.repo.Write("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {gitseal.io/ssa: IfNotPresent}}\ndata: {v: '1'}\n")
	w.configMap("b", "1")
	w.repo.Commit("one")
	reports := w.start()
	w.eventually("it is applied", func() error { return errors.Join(w.holds("a", "1"), w.holds("b", "1")) })
	mark := w.cp.Mark()
	for n := range 8 {
		if err := w.edit("a", fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
	}
	t.Log("nor where the label was taken off: then somebody has to look")
	if err := w.label("a", "null"); err != nil {
		t.Fatal(err)
	}
	if err := w.edit("b", "theirs"); err != nil {
		t.Fatal(err)
	}
	w.eventually("what came later is put back", func() error { return w.holds("b", "1") })
	w.eventually("it was looked at", func() error {
		if n := w.requests(mark, "configmaps", "get"); n != 1 {
			return fmt.Errorf("%d looks", n)
		}
		return nil
	})
	if err := w.holds("a", "7"); err != nil {
		t.Error(err)
	}
	if n := w.requests(mark, "configmaps", "patch"); n != 1 {
		t.Errorf("%d patches, want that of b", n)
	}
	for _, r := range reports() {
		for _, f := range r.Fights {
			if f.ID.Name == "a" {
				t.Errorf("it counts as fought over: %v", f)
			}
		}
		for _, d := range r.Done {
			if d.Action == apply.Change && d.ID.Name == "a" {
				t.Errorf("it counts as corrected: %v", d)
			}
		}
	}
}

// deafTo fails looks at a kind while it is on.
type deafTo struct {
	http.RoundTripper
	kind string
	on   *atomic.Bool
}

func (d deafTo) RoundTrip(r *http.Request) (*http.Response, error) {
	if d.on.Load() && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/"+d.kind) {
		return nil, errors.New("connection lost")
	}
	return d.RoundTripper.RoundTrip(r)
}

func TestAReportNamesKindsThatCanNotBeWatched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configMap("a", "1")
	w.repo.Commit("one")
	var on atomic.Bool
	on.Store(true)
	w.wrap = func(rt http.RoundTripper) http.RoundTripper { return deafTo{rt, "serviceaccounts", &on} }
	reports := w.start()
	last := func() Report { r := reports(); return r[len(r)-1] }
	if r := w.first(reports); len(r.Unwatched) > 0 {
		t.Errorf("%v", r.Unwatched)
	}
	w.repo.Write("sa.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: sa}\n")
	w.repo.Commit("two")
	w.eventually("it is named", func() error {
		if err := last().Unwatched[schema.GroupKind{Kind: "ServiceAccount"}]; err == nil {
			return errors.New("not yet")
		}
		return nil
	})
	on.Store(false)
	w.eventually("and no more once it can be watched", func() error {
		if r := last(); len(r.Unwatched) > 0 || !r.Idle {
			return fmt.Errorf("idle %v, %v", r.Idle, r.Unwatched)
		}
		return nil
	})
}

func TestWhatALostInventoryLeavesIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		w.configMap(name, "1")
	}
	w.repo.Commit("one")
	if r := w.once().Once(t.Context()); r.Err() != nil || len(r.Strays) > 0 {
		t.Fatal(r.Err(), r.Strays)
	}
	if err := w.admin.CoreV1().Secrets(w.system).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "gitseal.io/inventory"}); err != nil {
		t.Fatal(err)
	}
	w.repo.Remove("b.yaml")
	w.repo.Remove("c.yaml")
	w.repo.Commit("two")
	mark := w.cp.Mark()
	reports := w.start()
	w.eventually("it is told", func() error {
		return w.says("the inventory was lost, and 2 objects that this sync has applied are not in git: ConfigMap/" + w.app + "/b, for instance")
	})
	if r := w.first(reports); len(r.Strays) != 2 || r.Count(apply.Adopt) != 1 || r.Count(apply.Create) != 0 || r.Left != 0 {
		t.Errorf("strays %v, done %v, left %d", r.Strays, r.Done, r.Left)
	}
	if n := w.requests(mark, "configmaps", "get"); n > 0 {
		t.Errorf("%d requests for single objects", n)
	}
	w.configMap("b", "1") // taken back
	w.configMap("d", "1")
	w.repo.Commit("three")
	w.eventually("the next commit is applied", func() error { return w.holds("d", "1") })
	if err := errors.Join(w.holds("b", "1"), w.holds("c", "1")); err != nil {
		t.Error(err)
	}
	if n := strings.Count(w.log.String(), "the inventory was lost"); n != 1 {
		t.Errorf("told %d times", n)
	}
}
