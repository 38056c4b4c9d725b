package apply

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// large makes an inventory as long passes leave it: names of people's lengths, and
// digests as this package makes them, which do not compress.
func large(entries int) Inventory {
	inv := Inventory{Source: "ssh://git@git.example.com/platform/fleet.git//clusters/production", Commit: shortHash("commit") + shortHash("rest"), Entries: map[ID]Entry{}}
	for i := range entries {
		id := ID{Group: "apps", Kind: "Deployment", Namespace: fmt.Sprintf("team-%d-%s", i/40, shortHash(fmt.Sprint(i / 40))[:6]), Name: fmt.Sprintf("service-%s-%d-backend", shortHash(fmt.Sprint(i))[:8], i)}
		h := shortHash("uid" + id.String())
		inv.Entries[id] = Entry{
			Version: "v1", Resource: "deployments", Phase: Applied, Input: shortHash("input"+id.String()) + shortHash(id.String())[:12], Body: shortHash("body"+id.String()) + shortHash(id.Name)[:12],
			Evidence: Evidence{UID: h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + shortHash(h)[:12], Fields: shortHash("fields"+h) + shortHash("more" + h)[:4]},
		}
	}
	return inv
}

// shards are the Secrets that hold the inventory.
func (w *world) shards() []corev1.Secret {
	w.t.Helper()
	l, err := w.client.CoreV1().Secrets(w.ns).List(w.t.Context(), metav1.ListOptions{LabelSelector: inventoryLabel})
	if err != nil {
		w.t.Fatal(err)
	}
	return l.Items
}

// written are the requests of this world that change Secrets, as "verb shard".
func (w *world) written(since harness.Mark) []string {
	w.t.Helper()
	ev, err := w.cp.Requests(w.t.Context(), since, func(e harness.AuditEvent) bool {
		return e.UserAgent == "apply-test-"+w.t.Name() && e.Resource == "secrets" && e.Verb != "get" && e.Verb != "list"
	})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range ev {
		out = append(out, e.Verb+" "+strings.TrimPrefix(e.Name, w.run.Store.prefix()))
	}
	return out
}

func (w *world) save(inv Inventory) []string {
	w.t.Helper()
	mark := w.cp.Mark()
	if err := w.run.Store.Save(w.t.Context(), inv); err != nil {
		w.t.Fatal(err)
	}
	return w.written(mark)
}

// loads compares what a new process reads.
func (w *world) loads(want Inventory) {
	w.t.Helper()
	w.reload()
	if w.inv.Source != want.Source || w.inv.Commit != want.Commit || !maps.Equal(w.inv.Entries, want.Entries) { // cmp takes minutes
		w.t.Fatalf("got %d entries of %s at %s, want %d of %s at %s, or they differ", len(w.inv.Entries), w.inv.Source, w.inv.Commit, len(want.Entries), want.Source, want.Commit)
	}
}

func TestAnInventoryOfFiftyThousandObjects(t *testing.T) {
	t.Parallel()
	const (
		maxSecret  = corev1.MaxSecretSize // bytes of data
		maxRequest = 3 << 19              // bytes that etcd takes: 1.5 MiB
	)
	w := newWorld(t)
	inv := large(50_000)
	if got := w.save(inv); len(got) != 32 || got[31] != "create 0" {
		t.Errorf("saved by %q, want 32 shards, the head last", got)
	}
	w.loads(inv)
	for _, s := range w.shards() {
		whole, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(s.Data[inventoryDataKey]); n > maxSecret/2 || len(whole) > maxRequest/2 {
			t.Errorf("%s holds %d bytes, as a whole %d", s.Name, n, len(whole))
		}
	}

	t.Log("a commit that changes one object writes its shard and the head")
	ids := inv.IDs()
	changed := inv.Clone()
	e := changed.Entries[ids[7]]
	e.Input = shortHash("changed")
	changed.Entries[ids[7]], changed.Commit = e, shortHash("next")
	if got := w.save(changed); len(got) != 2 || !strings.HasPrefix(got[0], "update ") || got[1] != "update 0" {
		t.Errorf("an entry and the commit changed, and %q", got)
	}

	t.Log("what is left of it needs one shard")
	few := changed.Clone()
	for _, id := range ids[10:] {
		delete(few.Entries, id)
	}
	w.save(few)
	if got := w.shards(); len(got) != 1 {
		t.Errorf("%d entries are in %d shards", len(few.Entries), len(got))
	}
	w.loads(few)
	if got := w.save(few); len(got) != 0 {
		t.Errorf("nothing changed, and %q", got)
	}

	t.Log("and it grows again")
	inv = large(5000)
	w.save(inv)
	w.loads(inv)
	inv.Commit = shortHash("one more")
	if got := w.save(inv); !slices.Equal(got, []string{"update 0"}) {
		t.Errorf("the commit changed, and %q, want the head only", got)
	}

	t.Log("a shard that is gone or damaged is no smaller inventory")
	victim := w.shards()[2].Name
	secrets := w.client.CoreV1().Secrets(w.ns)
	refused := func(what string) {
		t.Helper()
		var damage *InventoryError
		got, err := NewInventoryStore(w.c, w.owner).Load(t.Context())
		if !errors.As(err, &damage) || !strings.HasSuffix(damage.Shard, victim) || len(got.Entries) > 0 {
			t.Errorf("%s: got %v and %d entries, want an InventoryError of %s", what, err, len(got.Entries), victim)
		}
	}
	if _, err := secrets.Patch(t.Context(), victim, types.MergePatchType, []byte(`{"data":{"inventory.json.gz":"AAAA"}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	refused("damaged")
	if err := secrets.Delete(t.Context(), victim, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	refused("missing")
}
