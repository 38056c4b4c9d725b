package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/deploy"
	"github.com/gitseal/gitseal/test/harness"
)

// kubectl runs the real one as an administrator.
func kubectl(t *testing.T, cp *harness.ControlPlane, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(cp.BinDir, "kubectl"), append([]string{"--kubeconfig", cp.Kubeconfig}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestPodsAreLetIntoARestrictedNamespace asks the API server for each variant.
func TestPodsAreLetIntoARestrictedNamespace(t *testing.T) {
	t.Parallel()
	cp := harness.Shared(t)
	cfg, err := cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]deploy.Options{
		"plain": {Namespace: "restricted-plain", WatchNamespaces: []string{"restricted-plain"}},
		"ha":    {Namespace: "restricted-ha", WatchNamespaces: []string{"restricted-ha"}, Components: []string{"ha"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := install(t, o)
			template := deploymentIn(t, w.objects).Spec.Template
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "agent", Namespace: w.system, Labels: template.Labels}, Spec: template.Spec}
			try := func(change func(*corev1.Pod)) error {
				p := pod.DeepCopy()
				change(p)
				_, err := c.CoreV1().Pods(w.system).Create(t.Context(), p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				return err
			}
			if err := try(func(*corev1.Pod) {}); err != nil {
				t.Error(err)
			}
			for what, change := range map[string]func(*corev1.Pod){
				"capabilities": func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext.Capabilities = nil },
				"root":         func(p *corev1.Pod) { p.Spec.SecurityContext.RunAsNonRoot = nil },
			} {
				if err := try(change); !apierrors.IsForbidden(err) || !strings.Contains(fmt.Sprint(err), "PodSecurity") {
					t.Errorf("with other %s: %v", what, err)
				}
			}
			if sc := pod.Spec.Containers[0].SecurityContext; sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem {
				t.Error("the root file system can be written to")
			}
		})
	}
}

func TestADryRunStoresNothing(t *testing.T) {
	t.Parallel()
	cp := harness.Shared(t)
	cfg, err := cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := deploy.Render(t.Context(), deploy.Options{Namespace: "dry-run-only", WatchNamespaces: []string{"dry-run-only"}})
	if err != nil {
		t.Fatal(err)
	}
	outcomes := map[deploy.Outcome]int{}
	if err := deploy.Install(t.Context(), cfg, objects, deploy.DryRun, func(_ *unstructured.Unstructured, o deploy.Outcome) { outcomes[o]++ }); err != nil {
		t.Fatal(err)
	}
	if outcomes[deploy.Checked] != 3 || outcomes[deploy.NotAsked] != len(objects)-3 {
		t.Errorf("got %v", outcomes)
	}
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CoreV1().Namespaces().Get(t.Context(), "dry-run-only", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace: %v", err)
	}
}

// TestTheAgentKeepsItselfFromGit installs by kubectl, and hands the same manifests to the
// agent. It needs the names of install.yaml for itself, so a control plane of its own.
func TestTheAgentKeepsItselfFromGit(t *testing.T) {
	t.Parallel()
	w := &world{t: t, cp: harness.NewControlPlane(t), system: deploy.Namespace}
	w.connect()
	repos := t.TempDir()
	w.repo = harness.NewRepo(t, repos, "fleet")
	w.git = harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: repos})
	for _, dir := range []string{"base", "cluster", "components"} {
		if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			w.repo.Write("deploy/"+filepath.ToSlash(path), string(b))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	const top = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
	w.repo.Write("gitseal/kustomization.yaml", top+"resources: [../deploy/cluster]\ncomponents: [../deploy/components/cluster-admin]\n")
	w.repo.Commit("gitseal")

	out := kubectl(t, w.cp, "apply", "--server-side", "-f", "install.yaml")
	if n := strings.Count(out, "serverside-applied"); n != 17 {
		t.Errorf("%d objects:\n%s", n, out)
	}
	kubectl(t, w.cp, "wait", "--for=condition=Established", "crd/syncs.gitseal.io")
	kubectl(t, w.cp, "apply", "--server-side", "-k", filepath.Join(w.repo.Work, "gitseal"))
	w.start()
	w.public()
	self := w.sync(w.system, "gitseal", "gitseal-applier", "gitseal", func(s *v1alpha1.Sync) {
		s.Spec.AllowProtected, s.Spec.DeletionPolicy = true, "Orphan"
	})
	status := w.ready(self).Status
	if h := status.History[0]; h.Created != 0 || h.Adopted != 19 || status.Objects.Total != 19 {
		t.Errorf("%+v of %d objects", h, status.Objects.Total)
	}

	t.Log("a change")
	w.repo.Write("gitseal/kustomization.yaml", top+"resources: [../deploy/cluster]\ncomponents: [../deploy/components/cluster-admin]\nreplicas: [{name: gitseal-agent, count: 2}]\n")
	w.repo.Commit("two")
	w.ready(self)
	if d, err := w.client.AppsV1().Deployments(w.system).Get(t.Context(), "gitseal-agent", metav1.GetOptions{}); err != nil || *d.Spec.Replicas != 2 {
		t.Errorf("%v, %v", d.Spec.Replicas, err)
	}

	t.Log("nothing is left in git: nothing goes")
	w.repo.Write("gitseal/kustomization.yaml", top+"resources: []\n")
	w.repo.Commit("nothing")
	w.fails(self, "renders no objects")
	w.all("after a render of nothing")

	t.Log("the folder is gone: nothing goes")
	w.repo.Remove("gitseal/kustomization.yaml")
	w.repo.Commit("no folder")
	w.fails(self, "not a folder")
	w.all("after the folder went")

	t.Log("most is gone at once: nothing goes")
	w.repo.Write("gitseal/kustomization.yaml", top+"resources: [../deploy/base/serviceaccount.yaml]\n")
	w.repo.Write("gitseal/serviceaccount.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: gitseal-agent, namespace: gitseal-system}\n")
	w.repo.Write("gitseal/kustomization.yaml", top+"resources: [serviceaccount.yaml]\n")
	w.repo.Commit("one")
	w.fails(self, "would be pruned")
	w.all("after most went")

	t.Log("the Deployment, the namespace and the CRD go from git, by an explicit commit: the Deployment goes, but not what keys and Syncs are in")
	base, err := os.ReadFile("base/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	less := string(base)
	for _, r := range []string{"- namespace.yaml\n", "- crds/gitseal.io_syncs.yaml\n", "- crds/gitseal.io_reseals.yaml\n", "- deployment.yaml\n"} {
		if !strings.Contains(less, r) {
			t.Fatalf("the base has no %q", r)
		}
		less = strings.Replace(less, r, "", 1)
	}
	w.repo.Write("deploy/base/kustomization.yaml", less[:strings.Index(less, "patches:")])
	w.repo.Write("gitseal/kustomization.yaml", top+"resources: [../deploy/cluster]\ncomponents: [../deploy/components/cluster-admin]\n")
	w.repo.Remove("gitseal/serviceaccount.yaml")
	w.repo.Commit("without the agent")
	harness.Eventually(t, "the Deployment is gone", func(ctx context.Context) error {
		_, err := w.client.AppsV1().Deployments(w.system).Get(ctx, "gitseal-agent", metav1.GetOptions{})
		if err == nil {
			return errors.New("it is there")
		}
		return client.IgnoreNotFound(err)
	})
	w.ready(self)
	w.all("after the agent went", "deployment")

	t.Log("the Sync is deleted: everything stays")
	if err := w.admin.Delete(t.Context(), self); err != nil {
		t.Fatal(err)
	}
	w.gone(self)
	w.all("after the Sync went", "deployment")
}

// fails waits until the Sync says something.
func (w *world) fails(s *v1alpha1.Sync, says string) {
	w.t.Helper()
	head := w.repo.Head()
	harness.Eventually(w.t, "the Sync says: "+says, func(ctx context.Context) error {
		out := &v1alpha1.Sync{}
		if err := w.admin.Get(ctx, client.ObjectKeyFromObject(s), out); err != nil {
			return err
		}
		for _, c := range out.Status.Conditions {
			if c.Type == v1alpha1.Ready && strings.Contains(c.Message, says) && (out.Status.Attempted == nil || out.Status.Attempted.Hash == head) {
				return nil
			}
		}
		return fmt.Errorf("status: %+v", out.Status)
	})
}

// all fails the test where something of the installation is gone, or about to go.
func (w *world) all(when string, but ...string) {
	w.t.Helper()
	for _, what := range []string{"namespace/gitseal-system", "crd/syncs.gitseal.io", "deployment/gitseal-agent", "serviceaccount/gitseal-agent", "clusterrole/gitseal-agent",
		"clusterrolebinding/gitseal-agent", "role/gitseal-agent", "secret/gitseal-key-1", "secret/gitseal-token-key", "configmap/gitseal-keys"} {
		if kind, _, _ := strings.Cut(what, "/"); len(but) > 0 && kind == but[0] {
			continue
		}
		out := kubectl(w.t, w.cp, "get", what, "-n", w.system, "--ignore-not-found", "-o", "jsonpath={.metadata.name}{.metadata.deletionTimestamp}")
		if _, name, _ := strings.Cut(what, "/"); out != name {
			w.t.Errorf("%s: %s: %q", when, what, out)
		}
	}
}
