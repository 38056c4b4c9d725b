package syncs

import (
	"context"
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/test/harness"
)

// Admin is an administrator of a cluster, for the length of a test, which its methods
// fail.
type Admin struct {
	client.Client
	t testing.TB
}

// NewAdmin connects one. The cluster may get the CRD of Syncs later.
func NewAdmin(t testing.TB, config *rest.Config) *Admin {
	t.Helper()
	c, err := client.New(config, client.Options{Scheme: Scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	return &Admin{Client: c, t: t}
}

// Scheme knows the types of Kubernetes and Syncs.
func Scheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(s), v1alpha1.AddToScheme(s)); err != nil {
		t.Fatal(err)
	}
	return s
}

// Make creates an object.
func (a *Admin) Make(o client.Object) {
	a.t.Helper()
	if err := a.Create(a.t.Context(), o); err != nil {
		a.t.Fatal(err)
	}
}

// Account makes a service account with a ClusterRole in its namespace; "" for none.
func (a *Admin) Account(namespace, account, role string) {
	a.t.Helper()
	a.Make(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}})
	if role != "" {
		ref, subjects := grant(namespace, account, role)
		a.Make(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}, RoleRef: ref, Subjects: subjects})
	}
}

// ClusterAccount makes one with a ClusterRole everywhere, until the test ends.
func (a *Admin) ClusterAccount(namespace, account, role string) {
	a.t.Helper()
	a.Account(namespace, account, "")
	ref, subjects := grant(namespace, account, role)
	b := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace + "-" + account}, RoleRef: ref, Subjects: subjects}
	a.Make(b)
	a.t.Cleanup(func() { _ = a.Delete(context.WithoutCancel(a.t.Context()), b) }) // the test may have done so
}

func grant(namespace, account, role string) (rbacv1.RoleRef, []rbacv1.Subject) {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		[]rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}}
}

// Applied waits until a Sync has applied a commit, and is ready.
func (a *Admin) Applied(s *v1alpha1.Sync, commit string) *v1alpha1.Sync {
	a.t.Helper()
	var out *v1alpha1.Sync
	harness.Eventually(a.t, "Sync "+s.Name+" has applied "+commit, func(ctx context.Context) error {
		out = &v1alpha1.Sync{}
		if err := a.Get(ctx, client.ObjectKeyFromObject(s), out); err != nil {
			return err
		}
		if out.Status.Applied == nil || out.Status.Applied.Hash != commit || !meta.IsStatusConditionTrue(out.Status.Conditions, v1alpha1.Ready) || out.Status.ObservedGeneration != out.Generation {
			return fmt.Errorf("status: %+v", out.Status)
		}
		return nil
	})
	return out
}

// Unfinalize lets Syncs, and so their namespaces, go when no agent is left. It may be
// called when the test has ended.
func (a *Admin) Unfinalize(which client.ListOption) error {
	ctx, l := context.WithoutCancel(a.t.Context()), &v1alpha1.SyncList{}
	if err := a.List(ctx, l, which); err != nil {
		return err
	}
	for i := range l.Items {
		_ = a.Patch(ctx, &l.Items[i], client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))) // it may be gone
	}
	return nil
}
