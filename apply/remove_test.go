package apply

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (w *world) remove(orphan bool) Result {
	w.t.Helper()
	w.reload()
	res, err := w.run.Remove(w.t.Context(), w.inv, orphan)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// stored counts the Secrets of the inventory.
func (w *world) stored() int {
	w.t.Helper()
	list, err := w.client.CoreV1().Secrets(w.ns).List(w.t.Context(), metav1.ListOptions{LabelSelector: inventoryLabel})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(list.Items)
}

func TestADeletedSyncTakesItsObjectsAlong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kept := strings.Replace(configMaps("kept=1"), "namespace: NS", "namespace: NS, annotations: {gitseal.io/prune: disabled}", 1)
	w.mustApply(configMaps("a=1", "b=1") + "---\n" + kept)
	if err := w.patch("b", `{"metadata":{"finalizers":["example.com/hold"]}}`); err != nil {
		t.Fatal(err)
	}
	if res := w.remove(false); len(res.Inventory.Entries) != 1 || w.stored() != 1 {
		t.Errorf("held by a finalizer: %v, %d Secrets of the inventory", res.Inventory.Entries, w.stored())
	}
	if err := w.patch("b", `{"metadata":{"finalizers":null}}`); err != nil {
		t.Fatal(err)
	}
	if res := w.remove(false); len(res.Inventory.Entries) != 0 || w.stored() != 0 {
		t.Errorf("left: %v, %d Secrets of the inventory", res.Inventory.Entries, w.stored())
	}
	for _, name := range []string{"a", "b"} {
		if _, err := w.client.CoreV1().ConfigMaps(w.ns).Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.object("kept").Labels[SyncLabel] != "" {
		t.Error("what is kept was not given up")
	}
}

func TestADeletedSyncMayLeaveItsObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mustApply(configMaps("a=1", "b=1"))
	before := w.object("a")
	res := w.remove(true)
	if len(res.Done) != 2 || w.stored() != 0 {
		t.Errorf("done %v, %d Secrets of the inventory", res.Done, w.stored())
	}
	after := w.object("a")
	if after.UID != before.UID || after.Labels[SyncLabel] != "" || w.value("a") != "1" {
		t.Errorf("a: uid %s, labels %v, value %q", after.UID, after.Labels, w.value("a"))
	}
	other := w.sibling("other")
	other.mustApply(configMaps("a=2"))
}
