package apply

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// rewired lets the world's requests go through something else, as those of a new
// process that has not read the inventory.
func (w *world) rewired(wrap func(http.RoundTripper) http.RoundTripper) {
	w.t.Helper()
	cfg, err := w.cp.RESTConfig()
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.UserAgent = "apply-test-" + w.t.Name()
	cfg.Wrap(wrap)
	if w.c, err = Connect(cfg); err != nil {
		w.t.Fatal(err)
	}
	w.run = &Runner{Cluster: w.c, Store: NewInventoryStore(w.c, w.owner), Owner: w.owner}
}

// of are the IDs whose entries are in a shard.
func (i Inventory) of(shard, shards int) []ID {
	return slices.DeleteFunc(i.IDs(), func(id ID) bool { return id.shard(shards) != shard })
}

func edit(inv Inventory, id ID, do func(*Entry)) {
	e := inv.Entries[id]
	do(&e)
	inv.Entries[id] = e
}

// placed checks that there are so many shards, and no entry is where it does not belong.
func (w *world) placed(shards int) {
	w.t.Helper()
	secrets := w.shards()
	if len(secrets) != shards {
		w.t.Errorf("got %d shards, want %d", len(secrets), shards)
	}
	for _, sec := range secrets {
		sh, err := readShard(&sec)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range sh.Entries {
			if name := w.run.Store.name(e.id().shard(shards)); name != sec.Name {
				w.t.Fatalf("%s is in %s, want it in %s", e.id(), sec.Name, name)
			}
		}
	}
}

func TestInventoryShardsAreWrittenWhenTheyChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	inv := large(4001) // the map is the caller's, who goes on changing it
	var gone ID
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"the first time", func() {}, "create 3, create 2, create 1, create 0"},
		{"nothing", func() {}, ""},
		{"what is not stored", func() {
			for id := range inv.Entries {
				edit(inv, id, func(e *Entry) { e.resourceVersion = "7" })
			}
		}, ""},
		{"an entry", func() { edit(inv, inv.of(2, 4)[9], func(e *Entry) { e.Keep = true }) }, "update 2"},
		{"and back", func() { edit(inv, inv.of(2, 4)[9], func(e *Entry) { e.Keep = false }) }, "update 2"},
		{"one less", func() { gone = inv.of(1, 4)[3]; delete(inv.Entries, gone) }, "update 1"},
		{"one for another", func() {
			delete(inv.Entries, inv.of(1, 4)[5])
			inv.Entries[gone] = Entry{Version: "v1", Resource: "deployments", Phase: Intended}
		}, "update 1"},
		{"the commit", func() { inv.Commit = "next" }, "update 0"},
		{"the source", func() { inv.Source = "elsewhere" }, "update 0"},
		{"an entry and the commit", func() {
			edit(inv, inv.of(3, 4)[0], func(e *Entry) { e.Input = "other" })
			inv.Commit = "last"
		}, "update 3, update 0"},
	} {
		c.do()
		if got := strings.Join(w.save(inv), ", "); got != c.want {
			t.Errorf("%s changed: got %q, want %q", c.name, got, c.want)
		}
	}
	for id := range inv.Entries {
		edit(inv, id, func(e *Entry) { e.resourceVersion = "" })
	}
	w.loads(inv)
	if got := w.save(inv); len(got) > 0 {
		t.Errorf("nothing changed since it was read: got %q", got)
	}
}

// TestInventoryAfterDeathBetweenShards kills a Save that grows or shrinks the
// inventory at each of its writes: entries are in two shards then. The next process
// removes one of them, and it stays away; or changes nothing, and puts all in order.
func TestInventoryAfterDeathBetweenShards(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ before, after, writes int }{
		"growing":   {2000, 2001, 2},
		"shrinking": {2001, 10, 4},
	} {
		for writes := range c.writes {
			for _, next := range []string{"nothing", "a removal"} {
				t.Run(fmt.Sprintf("%s, after %d writes, then %s", name, writes, next), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					w.save(large(c.before))
					inv := large(c.after)
					inv.Commit = "next"
					var left atomic.Int32
					left.Store(100)
					w.rewired(func(rt http.RoundTripper) http.RoundTripper { return dying{rt, &left} })
					w.reload()
					left.Store(int32(writes))
					_ = w.run.Store.Save(t.Context(), inv) // nobody is left to hear of it
					w.rewired(func(rt http.RoundTripper) http.RoundTripper { return rt })
					w.reload()
					want := w.inv.Clone()
					if next == "a removal" {
						delete(want.Entries, large(10).of(1, 2)[0])
					}
					w.save(want)
					w.loads(want)
					w.placed(w.run.Store.shards)
				})
			}
		}
	}
}

func TestInventoryShardsThatSomebodyElseTouched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var broken atomic.Bool
	w.rewired(func(rt http.RoundTripper) http.RoundTripper { return harness.NoWrites(rt, &broken) })
	inv := large(2001)
	w.save(inv)
	secrets, name := w.client.CoreV1().Secrets(w.ns), w.run.Store.name(1)

	t.Log("a write that fails is made up for")
	edit(inv, inv.of(1, 2)[0], func(e *Entry) { e.Input = "first" })
	inv.Commit = "next"
	broken.Store(true)
	if err := w.run.Store.Save(t.Context(), inv); err == nil {
		t.Error("got no error of a write that failed")
	}
	broken.Store(false)
	if got, want := w.save(inv), []string{"update 1", "update 0"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	t.Log("what was deleted is made anew, whole")
	if err := secrets.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	edit(inv, inv.of(1, 2)[0], func(e *Entry) { e.Input = "second" })
	if got, want := w.save(inv), []string{"update 1", "create 1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	w.loads(inv)

	t.Log("what was changed is not overwritten")
	before := inv.Clone()
	if _, err := secrets.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	edit(inv, inv.of(1, 2)[0], func(e *Entry) { e.Input = "third" })
	for range 2 {
		if err := w.run.Store.Save(t.Context(), inv); !apierrors.IsConflict(errors.Unwrap(err)) {
			t.Errorf("got %v, want a conflict", err)
		}
	}
	w.loads(before)
}

// TestInventoryMarksAreInTheStoreOnly: what is about to change is stored as intended,
// and a run goes on with, and returns, what it knew.
func TestInventoryMarksAreInTheStoreOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var broken atomic.Bool
	w.rewired(func(rt http.RoundTripper) http.RoundTripper { return harness.NoWrites(rt, &broken) })
	w.mustApply(configMaps("a=1"))
	a, b := ID{Kind: "ConfigMap", Namespace: w.ns, Name: "a"}, ID{Kind: "ConfigMap", Namespace: w.ns, Name: "b"}
	before := w.inv.Clone()
	for _, broke := range []bool{true, false} {
		broken.Store(broke)
		p := NewPlan(w.input(configMaps("a=2", "b=1")))
		res := Result{Inventory: w.inv.Clone()}
		if err := w.run.intend(t.Context(), p, &res); (err != nil) != broke {
			t.Fatal(err)
		}
		if got := res.Inventory.Entries[a]; got != before.Entries[a] {
			t.Errorf("got %+v, want %+v", got, before.Entries[a])
		}
		if got := res.Inventory.Entries[b].Phase; got != Intended {
			t.Errorf("what is new: got phase %q, want %q", got, Intended)
		}
		if _, err := w.run.Run(t.Context(), p, "c"); (err != nil) != broke {
			t.Fatal(err)
		}
		if !maps.Equal(w.inv.Entries, before.Entries) {
			t.Errorf("the run changed its plan's inventory: got %v, want %v", w.inv.Entries, before.Entries)
		}
	}
}

func TestDriftForgetsWhatLeftTheInventory(t *testing.T) {
	t.Parallel()
	d := NewDrift(t.Context(), nil, Owner{Namespace: "n", Name: "s"})
	a, b, c := cm("a"), cm("b"), cm("c")
	first := Inventory{Entries: map[ID]Entry{a: {Input: "1"}, b: {Input: "1"}}} // not applied: nothing to watch
	d.Track(first)
	for _, id := range []ID{a, b} {
		d.drifted[id], d.told[id], d.held[id], d.scaled[id] = "why", true, "annotation", true
	}
	d.begin(a)
	second := Inventory{Entries: map[ID]Entry{b: {Input: "2"}, c: {Input: "2"}}}
	d.Track(second)
	if !maps.Equal(d.entries, second.Entries) {
		t.Errorf("got %v, want %v", d.entries, second.Entries)
	}
	want := map[ID]bool{b: true}
	for what, got := range map[string]map[ID]bool{"told": d.told, "scaled": d.scaled} {
		if !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	if len(d.drifted) != 1 || len(d.held) != 1 || len(d.flight) != 0 {
		t.Errorf("drifted %v, held %v, in flight %v", d.drifted, d.held, d.flight)
	}
	d.end(b, Entry{Input: "3"})
	if first.Entries[b].Input != "1" || second.Entries[b].Input != "2" {
		t.Errorf("the caller's inventories changed: %v, %v", first.Entries, second.Entries)
	}
}

// timed adds up how long writes take.
type timed struct {
	http.RoundTripper
	took *atomic.Int64
}

func (t timed) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := t.RoundTripper.RoundTrip(r)
	if r.Method != http.MethodGet {
		t.took.Add(int64(time.Since(start)))
	}
	return resp, err
}

// BenchmarkRepair corrects the drift of one object among 20,000, with one request for
// the object and one for its shard; own-ms is what the rest takes. Run it with
// -benchtime 10x: it waits for the clock.
func BenchmarkRepair(b *testing.B) {
	w := newWorld(b)
	var requests atomic.Int64
	w.rewired(func(rt http.RoundTripper) http.RoundTripper { return timed{rt, &requests} })
	w.run.Drift = NewDrift(b.Context(), w.c, w.owner)
	w.inv = large(20_000)
	desired, _ := w.desired(configMaps("x=1"))
	repair := func() {
		res, err := w.run.Repair(b.Context(), w.inv, desired, map[ID]string{desired[0].ID: "drifted"})
		if err != nil || len(res.Done) != 1 {
			b.Fatal(res.Failed, err)
		}
		w.inv = res.Inventory
	}
	repair()
	var own time.Duration
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		time.Sleep(time.Second) // the time in managedFields has whole seconds
		if err := w.patch("x", `{"data":{"v":"2"}}`); err != nil {
			b.Fatal(err)
		}
		requests.Store(0)
		b.StartTimer()
		start := time.Now()
		repair()
		own += time.Since(start) - time.Duration(requests.Load())
	}
	b.ReportMetric(float64(own.Microseconds())/1000/float64(b.N), "own-ms/op")
}
