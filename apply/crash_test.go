package apply

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
)

// dying lets some writes through; the next one is carried out, but its answer
// never comes, and nothing after it: as when the process is killed.
type dying struct {
	http.RoundTripper
	left *atomic.Int32
}

func (d dying) RoundTrip(r *http.Request) (*http.Response, error) {
	dead := errors.New("dead")
	if r.Method == http.MethodGet {
		if d.left.Load() < 0 {
			return nil, dead
		}
		return d.RoundTripper.RoundTrip(r)
	}
	left := d.left.Add(-1)
	if left < -1 {
		return nil, dead
	}
	resp, err := d.RoundTripper.RoundTrip(r)
	if err == nil && left == -1 {
		_, _ = io.Copy(io.Discard, resp.Body) // the server has finished
		_ = resp.Body.Close()
		return nil, dead
	}
	return resp, err
}

// TestDeathAtEveryWrite kills a pass at each of its writes, lets a new process
// bring the cluster to that commit, back to the one before, or to a third, and
// compares what is there with git.
func TestDeathAtEveryWrite(t *testing.T) {
	t.Parallel()
	before := map[string]string{"a": "1", "b": "1", "c": "1"}
	killed := map[string]string{"a": "2", "c": "1", "d": "1"} // change, remove, add
	for then, after := range map[string]map[string]string{
		"the same again":  killed,
		"it was reverted": before,
		"another commit":  {"a": "3", "b": "2", "e": "1"},
	} {
		for writes := int32(0); writes < 8; writes++ {
			t.Run(fmt.Sprintf("after %d writes, then %s", writes, then), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.mustApply(manifests(before))

				cfg, err := w.cp.RESTConfig()
				if err != nil {
					t.Fatal(err)
				}
				var left atomic.Int32
				left.Store(writes)
				cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return dying{rt, &left} })
				w.mortal(cfg, manifests(killed))

				w.reload()
				in := w.input(manifests(after))
				if in.Drifted, in.Held, err = w.run.Survey(t.Context(), w.inv); err != nil {
					t.Fatal(err)
				}
				if res := w.apply(in); len(res.Failed)+len(res.Waiting)+len(res.Kept) > 0 {
					t.Fatalf("failed %v, waiting %v, kept %v", res.Failed, res.Waiting, res.Kept)
				}
				w.holdsExactly(after)
			})
		}
	}
}

// mortal carries out a plan as a process that will not live to its end.
func (w *world) mortal(cfg *rest.Config, manifests string) {
	w.t.Helper()
	c, err := Connect(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &Runner{Cluster: c, Store: NewInventoryStore(c, w.owner), Owner: w.owner}
	in := w.input(manifests)
	if in.Inventory, err = r.Store.Load(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	_, _ = r.Run(w.t.Context(), NewPlan(in), "killed") // nobody is left to hear of it
}

func manifests(values map[string]string) string {
	var out []string
	for name, v := range values {
		out = append(out, configMaps(name+"="+v))
	}
	return strings.Join(out, "---\n")
}

// holdsExactly compares the cluster and the stored inventory with git.
func (w *world) holdsExactly(want map[string]string) {
	w.t.Helper()
	if diff := cmp.Diff(w.values(), want); diff != "" {
		w.t.Errorf("cluster: got -, want +:\n%s", diff)
	}
	w.reload()
	names, applied := map[string]Phase{}, map[string]Phase{}
	for id, e := range w.inv.Entries {
		names[id.Name] = e.Phase
	}
	for name := range want {
		applied[name] = Applied
	}
	if diff := cmp.Diff(names, applied); diff != "" {
		w.t.Errorf("inventory: got -, want +:\n%s", diff)
	}
}
