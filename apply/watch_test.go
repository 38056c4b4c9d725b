package apply

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/test/harness"
)

// may lets the world's user do these things with ConfigMaps.
func (w *world) may(verbs ...string) {
	w.t.Helper()
	role := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: w.ns},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: verbs}},
	}
	_, err := w.client.RbacV1().ClusterRoles().Update(w.t.Context(), role, metav1.UpdateOptions{})
	if err != nil {
		_, err = w.client.RbacV1().ClusterRoles().Create(w.t.Context(), role, metav1.CreateOptions{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// limited makes the runner a user who may do only this with ConfigMaps.
func (w *world) limited(verbs ...string) {
	w.t.Helper()
	w.may(verbs...)
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: w.ns},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: w.ns},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: w.ns}},
	}
	if _, err := w.client.RbacV1().ClusterRoleBindings().Create(w.t.Context(), binding, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx := context.WithoutCancel(w.t.Context())
		_ = w.client.RbacV1().ClusterRoleBindings().Delete(ctx, w.ns, metav1.DeleteOptions{}) // with the control plane, at the latest
		_ = w.client.RbacV1().ClusterRoles().Delete(ctx, w.ns, metav1.DeleteOptions{})
	})
	cfg, err := w.cp.RESTConfig()
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.Impersonate = rest.ImpersonationConfig{UserName: w.ns}
	cfg.UserAgent = "apply-test-" + w.t.Name()
	if w.run.Cluster, err = Connect(cfg); err != nil {
		w.t.Fatal(err)
	}
	w.c = w.run.Cluster
	harness.Eventually(w.t, "the rights hold", func(ctx context.Context) error {
		_, err := w.c.client.CoreV1().ConfigMaps(w.ns).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
}

func (w *world) edit(name, value string) {
	w.t.Helper()
	_, err := w.client.CoreV1().ConfigMaps(w.ns).Patch(w.t.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"data":{"v":%q}}`, value), metav1.PatchOptions{FieldManager: "somebody"})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) unlabel(name string) {
	w.t.Helper()
	_, err := w.client.CoreV1().ConfigMaps(w.ns).Patch(w.t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":null}}`), metav1.PatchOptions{FieldManager: "somebody"})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) delete(name string) {
	w.t.Helper()
	if err := w.client.CoreV1().ConfigMaps(w.ns).Delete(w.t.Context(), name, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// tells waits until drift of exactly these objects was told.
func (w *world) tells(names ...string) {
	w.t.Helper()
	told := map[ID]string{}
	harness.Eventually(w.t, "drift is told", func(context.Context) error {
		maps.Copy(told, w.run.Drift.Take())
		var got []string
		for _, id := range sorted(told) {
			got = append(got, id.Name)
		}
		if !slices.Equal(got, names) {
			return fmt.Errorf("told of %v, want %v", told, names)
		}
		return nil
	})
}

func TestAKindThatMayNotBeWatchedIsLookedAtNowAndThen(t *testing.T) {
	t.Parallel()
	rights := []string{"get", "create", "patch", "delete"}
	for name, list := range map[string][]string{"but listed": {"list"}, "nor listed": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.limited(append(list, rights...)...)
			w.run.Drift = NewDrift(t.Context(), w.c, w.owner)
			w.run.Drift.Poll = 100 * time.Millisecond
			w.mustApply(configMaps("a=1", "b=1", "c=1", "d=1"))
			configMap := schema.GroupKind{Kind: "ConfigMap"}
			harness.Eventually(t, "it is polled", func(context.Context) error {
				if why := w.run.Drift.Polled()[configMap]; why == nil || !strings.Contains(why.Error(), "forbidden") || !w.run.Drift.Synced() {
					return fmt.Errorf("polled: %v", why)
				}
				return nil
			})
			if bad := w.run.Drift.Unhealthy(); len(bad) > 0 {
				t.Errorf("unhealthy: %v", bad)
			}
			w.edit("a", "theirs")
			w.delete("b")
			w.unlabel("c")
			w.tells("a", "b", "c")
			repaired, err := w.run.Repair(t.Context(), w.inv, w.input(configMaps("a=1", "b=1", "c=1", "d=1")).Desired, map[ID]string{w.id("a"): "x", w.id("b"): "x", w.id("c"): "x"})
			if err != nil {
				t.Fatal(err)
			}
			w.inv = repaired.Inventory
			if w.value("a") != "1" || w.value("b") != "1" || w.object("c").Labels[SyncLabel] == "" {
				t.Error("it was not put back")
			}
			res := w.mustApply(configMaps("a=1", "b=1", "c=1"))
			if len(res.Done) != 1 || res.Done[0].Action != Prune {
				t.Errorf("done: %v, want a prune", res.Done)
			}
			w.may(append(rights, "list", "watch")...)
			harness.Eventually(t, "it is watched", func(context.Context) error {
				if p := w.run.Drift.Polled(); len(p) > 0 {
					return fmt.Errorf("polled: %v", p)
				}
				return nil
			})
			w.run.Drift.Take()
			w.edit("a", "again")
			w.tells("a")
		})
	}
}

func TestAKindOfWhichNothingMayBeReadIsUnhealthy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.limited("create", "patch", "delete", "get")
	w.run.Drift = NewDrift(t.Context(), w.c, w.owner)
	w.run.Drift.Poll = 50 * time.Millisecond
	w.mustApply(configMaps("a=1"))
	w.may("create", "patch", "delete")
	harness.Eventually(t, "it is unhealthy", func(context.Context) error {
		if bad := w.run.Drift.Unhealthy(); len(bad) != 1 {
			return fmt.Errorf("unhealthy: %v", bad)
		}
		return nil
	})
	if res := w.apply(w.input(configMaps("z=1"))); len(res.Kept) != 1 || !strings.Contains(res.Kept[0].Error(), "ConfigMap/"+w.ns+"/a: its kind can not be watched") {
		t.Errorf("kept: %v", res.Kept)
	}
}

func TestAnAuditFindsWhatTheWatchesDidNotTell(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cfg, err := w.cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	var on atomic.Bool
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return harness.Deaf(rt, &on) })
	if w.run.Cluster, err = Connect(cfg); err != nil {
		t.Fatal(err)
	}
	w.run.Drift = NewDrift(t.Context(), w.run.Cluster, w.owner)
	w.mustApply(configMaps("a=1", "b=1", "c=1", "d=1", "e=1"))
	audit := func(want int) {
		t.Helper()
		missed, err := w.run.Drift.Audit(t.Context())
		if err != nil || missed != want {
			t.Errorf("missed %d, want %d; error %v", missed, want, err)
		}
	}
	harness.Eventually(t, "the watches have begun", func(context.Context) error {
		if !w.run.Drift.Synced() {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	audit(0)
	w.edit("d", "theirs") // this one is told
	w.tells("d")
	audit(0)
	on.Store(true)
	w.edit("a", "theirs")
	w.delete("b")
	w.unlabel("c")
	if told := w.run.Drift.Take(); len(told) > 0 {
		t.Fatalf("the watches are not deaf: %v", told)
	}
	audit(3)
	want := map[string]string{"a": `it was changed in the cluster, last by "somebody"`, "b": notThere, "c": notThere}
	got := map[string]string{}
	for id, why := range w.run.Drift.Take() {
		got[id.Name] = strings.TrimSuffix(why, ", which the watch had not told")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("drift (-want +got):\n%s", d)
	}
	audit(0) // it was told by now
}
