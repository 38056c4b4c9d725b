package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

func idsOf(members []Member) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.ID.String())
	}
	return out
}

func TestMembersAreWhatTheOwnersApplied(t *testing.T) {
	t.Parallel()
	w, v := newWorld(t), newWorld(t)
	group, crd := w.crd()
	w.mustApply(crd + fmt.Sprintf(`---
apiVersion: %s/v1
kind: Widget
metadata: {name: one, namespace: NS}
spec: {size: 3}
---
apiVersion: v1
kind: Namespace
metadata: {name: NS-inner}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: NS-inner}
stringData: {a: b}
---
`, group) + configMaps("a=1"))
	v.mustApply(configMaps("other=1"))
	copied := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "copied", Labels: w.owner.labels()}}
	if _, err := w.client.CoreV1().ConfigMaps(w.ns).Create(t.Context(), copied, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	held := []byte(`{"metadata":{"finalizers":["test/hold"]}}`)
	if _, err := w.client.CoreV1().ConfigMaps(w.ns).Patch(t.Context(), "a", types.MergePatchType, held, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.CoreV1().ConfigMaps(w.ns).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_, _ = w.client.CoreV1().ConfigMaps(w.ns).Patch(context.WithoutCancel(t.Context()), "a", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	}()

	l, err := w.c.Members(t.Context(), []Owner{w.owner, v.owner})
	if err != nil {
		t.Fatal(err)
	}
	all := l.Objects[w.owner]
	want := []string{"ConfigMap/" + w.ns + "/a", "Namespace/" + w.ns + "-inner", "Secret/" + w.ns + "-inner/s"}
	got := idsOf(all)
	if len(got) != 5 || !slices.Equal(got[:3], want) || !slices.Contains(got, "Widget/"+w.ns+"/one") || !all[0].Terminating || all[1].Terminating {
		t.Errorf("got %v, want %v, the CRD and a Widget", all, want)
	}
	if got := idsOf(l.Objects[v.owner]); !slices.Equal(got, []string{"ConfigMap/" + v.ns + "/other"}) {
		t.Errorf("of the other owner: got %v", got)
	}
	if len(l.Unlisted) > 0 || l.Within {
		t.Errorf("an administrator may list everything: %+v", l)
	}

	t.Log("by one who may list ConfigMaps in the namespace only")
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}}}
	bind := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "r"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "r"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: w.ns + "-user"}}}
	if _, err := w.client.RbacV1().Roles(w.ns).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.client.RbacV1().RoleBindings(w.ns).Create(t.Context(), bind, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c, err := w.c.As(rest.ImpersonationConfig{UserName: w.ns + "-user", Groups: []string{"system:authenticated"}})
	if err != nil {
		t.Fatal(err)
	}
	if l, err = c.Members(t.Context(), []Owner{w.owner}); err != nil {
		t.Fatal(err)
	}
	if got := idsOf(l.Objects[w.owner]); !slices.Equal(got, want[:1]) || !l.Within {
		t.Errorf("got %v, within %v", got, l.Within)
	}
	unlisted := map[string]bool{}
	for _, u := range l.Unlisted {
		unlisted[u.Kind.Kind] = u.Namespaced
	}
	if namespaced, ok := unlisted["Secret"]; !ok || !namespaced {
		t.Error("Secret is not told as a kind of the namespace that may not be listed")
	}
	if namespaced, ok := unlisted["Namespace"]; !ok || namespaced {
		t.Error("Namespace is not told as a kind of the cluster that may not be listed")
	}
	if _, ok := unlisted["ConfigMap"]; ok {
		t.Error("ConfigMap is told, which was listed")
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.c.Members(ended, []Owner{w.owner}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of ctx: got %v", err)
	}
}

func TestMembersOfManyPagesAndOwners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var names []string
	for i := range memberPage + 10 {
		names = append(names, fmt.Sprintf("c%03d=x", i))
	}
	w.mustApply(configMaps(names...))
	for _, more := range []int{0, memberOwners + 10} {
		owners := []Owner{w.owner}
		for i := range more {
			owners = append(owners, Owner{Namespace: w.ns, Name: fmt.Sprint("none-", i)})
		}
		l, err := w.c.Members(t.Context(), owners)
		if err != nil || len(l.Objects[w.owner]) != len(names) || len(l.Objects) != 1 {
			t.Errorf("%d owners: got %d objects of %d, %v", len(owners), len(l.Objects[w.owner]), len(names), err)
		}
	}
}

func TestASelectorStaysShort(t *testing.T) {
	t.Parallel()
	l := &listing{byLabel: map[string]Owner{"ns.one": {}}}
	if got := l.selector(); got != SyncLabel+" in (ns.one)" {
		t.Errorf("of one owner: got %s", got)
	}
	for i := range memberOwners {
		l.byLabel[fmt.Sprint("ns.", i)] = Owner{}
	}
	if got := l.selector(); got != SyncLabel {
		t.Errorf("of many owners: got %s", got)
	}
}

func TestAMemberThatTwoGroupsServeIsToldOnce(t *testing.T) {
	t.Parallel()
	o := Owner{Namespace: "ns", Name: "test"}
	m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "ns", UID: "1", Labels: o.labels(), ManagedFields: []metav1.ManagedFieldsEntry{{
		Manager: o.fieldManager(), Operation: metav1.ManagedFieldsOperationApply, APIVersion: "new.example/v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:labels":{"f:gitseal.io/sync":{}}}}`),
	}}}}
	for _, groups := range [][]string{{"old.example", "new.example"}, {"new.example", "old.example"}} {
		l := &listing{byLabel: map[string]Owner{o.label(): o}, found: map[Owner]map[types.UID]Member{}}
		for _, g := range groups {
			l.take(schema.GroupKind{Group: g, Kind: "Thing"}, schema.GroupVersionResource{}, m)
		}
		if got := l.result().Objects[o]; len(got) != 1 || got[0].ID.Group != "new.example" {
			t.Errorf("%v: got %v", groups, got)
		}
	}
}
