package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// TestSealInstall needs cluster-wide names, so a control plane of its own.
func TestSealInstall(t *testing.T) {
	t.Parallel()
	e := newEnvOn(t, harness.NewControlPlane(t))
	install := func(args ...string) (string, string, int) {
		e.t.Helper()
		return e.run("", filepath.Join(e.bin, "seal"), append([]string{"install"}, args...)...)
	}
	deployments, rbac := e.client.AppsV1().Deployments("gitseal-system"), e.client.RbacV1()

	out, errOut, code := install("--dry-run=server")
	if code != 0 || !strings.Contains(out, "namespace/gitseal-system serverside-applied (server dry run)\n") || !strings.Contains(out, "deployment.apps/gitseal-agent not asked: its namespace does not exist yet\n") {
		t.Errorf("dry run: exit code %d\n%s%s", code, out, errOut)
	}
	if _, err := deployments.Get(t.Context(), "gitseal-agent", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run has made something: %v", err)
	}

	out, errOut, code = install()
	if code != 0 || strings.Count(out, " serverside-applied\n") != 17 || !strings.HasPrefix(out, "namespace/gitseal-system serverside-applied\ncustomresourcedefinition.apiextensions.k8s.io/reseals.gitseal.io ") || errOut != "" {
		t.Fatalf("exit code %d\n%s%s", code, out, errOut)
	}
	d, err := deployments.Get(t.Context(), "gitseal-agent", metav1.GetOptions{})
	if err != nil || len(d.ManagedFields) == 0 || d.ManagedFields[0].Manager != "gitseal-install" {
		t.Fatalf("%v, %+v", err, d.ManagedFields)
	}
	if out, errOut, code = install("--dry-run=server"); code != 0 || strings.Count(out, "(server dry run)") != 17 {
		t.Errorf("dry run of an upgrade: exit code %d\n%s%s", code, out, errOut)
	}

	t.Log("an upgrade")
	if _, errOut, code = install("--image", "registry.local/agent:v9"); code != 0 {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
	if d, err = deployments.Get(t.Context(), "gitseal-agent", metav1.GetOptions{}); err != nil || d.Spec.Template.Spec.Containers[0].Image != "registry.local/agent:v9" || d.Generation != 2 {
		t.Errorf("%v, generation %d", err, d.Generation)
	}

	t.Log("somebody else has scaled it")
	if _, err := deployments.Patch(t.Context(), "gitseal-agent", types.MergePatchType, []byte(`{"spec":{"replicas":2}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code = install(); code != 2 || !strings.Contains(errOut, "somebody") || !strings.Contains(errOut, "hint: --force-conflicts") {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
	if _, errOut, code = install("--force-conflicts"); code != 0 {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
	if d, err = deployments.Get(t.Context(), "gitseal-agent", metav1.GetOptions{}); err != nil || *d.Spec.Replicas != 1 {
		t.Errorf("%v, %d replicas", err, *d.Spec.Replicas)
	}

	t.Log("into some namespaces only")
	if _, errOut, code = install("--namespace", e.system, "--watch-namespaces", e.app, "--components", "ha"); code != 0 {
		t.Errorf("exit code %d\n%s", code, errOut)
	}
	b, err := rbac.RoleBindings(e.app).Get(t.Context(), "gitseal-agent-watch", metav1.GetOptions{})
	if want := (rbacv1.Subject{Kind: "ServiceAccount", Name: "gitseal-agent", Namespace: e.system}); err != nil || len(b.Subjects) != 1 || b.Subjects[0] != want {
		t.Errorf("%v, %+v", err, b.Subjects)
	}

	t.Log("what can not be")
	for what, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no Prometheus operator": {[]string{"--components", "monitoring"}, 2, "hint: install the Prometheus operator first"},
		"no such namespace":      {[]string{"--namespace", e.system, "--watch-namespaces", "nowhere"}, 2, "hint: make the namespaces"},
		"no time":                {[]string{"--timeout", "1ns"}, 4, "deadline exceeded"},
	} {
		if _, errOut, code := install(c.args...); code != c.code || !strings.Contains(errOut, c.says) {
			t.Errorf("%s: exit code %d\n%s", what, code, errOut)
		}
	}
	if _, err := e.client.CoreV1().ServiceAccounts(e.app).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "nobody"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	nobody := e.cp.AccountKubeconfig(t, e.app, "nobody")
	if _, errOut, code := install("--kubeconfig", nobody); code != 3 || !strings.Contains(errOut, "forbidden") {
		t.Errorf("without rights: exit code %d\n%s", code, errOut)
	}
}
