package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"filippo.io/age"

	"github.com/gitseal/gitseal/test/harness"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// page is a document whose shell blocks are run in their order.
type page struct {
	*env
	vars  []string
	steps []string
}

func newPage(t *testing.T, e *env, name string, steps int, vars ...string) *page {
	t.Helper()
	root, err := harness.Root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	p := &page{env: e, vars: vars}
	for _, m := range shellBlock.FindAllStringSubmatch(string(b), -1) {
		p.steps = append(p.steps, m[1])
	}
	if len(p.steps) != steps {
		t.Fatalf("%s has %d shell blocks, the test knows %d", name, len(p.steps), steps)
	}
	return p
}

// step runs the next block as a reader would and returns what it prints.
func (p *page) step() string {
	p.t.Helper()
	script := p.steps[0]
	p.steps = p.steps[1:]
	cmd := exec.CommandContext(p.t.Context(), "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = p.repo.Work
	path := strings.Join([]string{p.bin, p.cp.BinDir, filepath.Dir(harness.Oracle(p.t, "sops")), filepath.Dir(harness.Oracle(p.t, "kubeseal")), os.Getenv("PATH")}, ":")
	cmd.Env = append(harness.GitEnv(), "PATH="+path, "HOME="+p.home, "KUBECONFIG="+p.cp.Kubeconfig)
	cmd.Env = append(cmd.Env, p.vars...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("%s: %v\n%s", script, err, out.String())
	}
	return out.String()
}

func (p *page) uid(namespace, name string) string {
	p.t.Helper()
	s, err := p.client.CoreV1().Secrets(namespace).Get(p.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return string(s.UID) + " " + string(s.Data["password"])
}

// openEnv has a repository that anyone may read, as the pages assume.
func openEnv(t *testing.T) *env {
	t.Helper()
	e := newEnvOn(t, harness.NewControlPlane(t))
	e.git = harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: filepath.Dir(e.repo.Bare)})
	return e
}

const fluxCRD = `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"kustomizations.kustomize.toolkit.fluxcd.io"},
"spec":{"group":"kustomize.toolkit.fluxcd.io","scope":"Namespaced","names":{"kind":"Kustomization","plural":"kustomizations","singular":"kustomization"},
"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`

func TestThePageForFluxUsersWorks(t *testing.T) {
	t.Parallel()
	sops := harness.Oracle(t, "sops")
	e := openEnv(t)
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(e.home, "age.agekey")
	if err := os.WriteFile(key, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.repo.Write(".sops.yaml", "creation_rules:\n  - path_regex: .*.sops.yaml\n    encrypted_regex: ^(data|stringData)$\n    age: "+id.Recipient().String()+"\n")
	e.repo.Write("clusters/prod/apps/kustomization.yaml", "resources: [db.sops.yaml]\n")
	e.repo.Write("clusters/prod/apps/db.sops.yaml", manifestOf(e.app, "db", map[string]string{"password": "from flux", "revoked": "x"}))
	if _, errOut, code := e.run("", sops, "encrypt", "--in-place", "clusters/prod/apps/db.sops.yaml"); code != 0 {
		t.Fatal(errOut)
	}
	e.repo.Commit("as Flux reads it")
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "flux-system"}}
	if _, err := e.client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	kubectl := filepath.Join(e.cp.BinDir, "kubectl")
	for _, manifest := range []string{fluxCRD, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"sops-age","namespace":"flux-system"},"stringData":{"age.agekey":"` + id.String() + `"}}`} {
		if _, errOut, code := e.run(manifest, kubectl, "apply", "-f", "-"); code != 0 {
			t.Fatal(errOut)
		}
	}
	if _, errOut, code := e.run("", kubectl, "wait", "--for=condition=Established", "crd/kustomizations.kustomize.toolkit.fluxcd.io"); code != 0 {
		t.Fatal(errOut)
	}
	if _, errOut, code := e.run(`{"apiVersion":"kustomize.toolkit.fluxcd.io/v1","kind":"Kustomization","metadata":{"name":"apps","namespace":"flux-system"},"spec":{"prune":true}}`, kubectl, "apply", "-f", "-"); code != 0 {
		t.Fatal(errOut)
	}
	// Flux applied it, in its own way.
	if _, errOut, code := e.run(manifestOf(e.app, "db", map[string]string{"password": "from flux", "revoked": "x"}), kubectl, "apply", "--server-side", "--field-manager=kustomize-controller", "-f", "-"); code != 0 {
		t.Fatal(errOut)
	}
	p := newPage(t, e, "moving-from-flux-sops.md", 6, "URL="+e.git.RepoURL("shop"), "DIR=clusters/prod/apps", "NAME=apps", "SOPS_AGE_KEY_FILE="+key)
	before := p.uid(e.app, "db")
	p.step() // the key
	p.step() // seal build
	p.step() // suspend
	if out := p.step(); !strings.Contains(out, "1 objects") {
		t.Errorf("the agent prints\n%s", out)
	}
	p.step() // Flux goes
	if after := p.uid(e.app, "db"); after != before {
		t.Errorf("the Secret was %s and is %s", before, after)
	}
	p.step() // the cluster's own key
	e.repo.Commit("seal to the cluster")
	if _, errOut, code := e.run("", filepath.Join(e.bin, "agent"), "sync", "--url", e.git.RepoURL("shop"), "--path", "clusters/prod/apps", "--once"); code != 0 {
		t.Errorf("without Flux's key: %s", errOut)
	}
	t.Log("what leaves git leaves the Secret, though Flux wrote it too")
	if _, errOut, code := e.run("", "env", "SOPS_AGE_KEY_FILE="+key, sops, "unset", "clusters/prod/apps/db.sops.yaml", `["stringData"]["revoked"]`); code != 0 {
		t.Fatal(errOut)
	}
	p.goneAfterCommit("--path", "clusters/prod/apps")
}

// goneAfterCommit commits, applies and looks for the value that left git.
func (p *page) goneAfterCommit(args ...string) {
	p.t.Helper()
	p.repo.Commit("revoke")
	if _, errOut, code := p.run("", filepath.Join(p.bin, "agent"), append([]string{"sync", "--url", p.git.RepoURL("shop"), "--once"}, args...)...); code != 0 {
		p.t.Error(errOut)
	}
	s, err := p.client.CoreV1().Secrets(p.app).Get(p.t.Context(), "db", metav1.GetOptions{})
	if err != nil || s.Data["revoked"] != nil || s.Data["password"] == nil {
		p.t.Errorf("the Secret has %d values, %v", len(s.Data), err)
	}
}

func TestThePageForSealedSecretsUsersWorks(t *testing.T) {
	t.Parallel()
	kubeseal := harness.Oracle(t, "kubeseal")
	e := openEnv(t)
	controller := harness.NewSealedSecrets(t, e.cp, harness.SealedSecretsConfig{})
	cert := filepath.Join(e.home, "cert.pem")
	if err := os.WriteFile(cert, controller.CertPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	sealed, errOut, code := e.run(manifestOf(e.app, "db", map[string]string{"password": "old", "revoked": "x"}), kubeseal, "--cert", cert, "-o", "yaml")
	if code != 0 {
		t.Fatal(errOut)
	}
	e.repo.Write("apps/db.yaml", sealed)
	e.repo.Commit("as the controller reads it")
	// The controller of the test is a process; this stands for its Deployment.
	labels := map[string]string{"app": "x"}
	if _, err := e.client.AppsV1().Deployments(controller.Namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "sealed-secrets-controller"},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "c"}}},
		}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := newPage(t, e, "moving-from-sealed-secrets.md", 5, "URL="+e.git.RepoURL("shop"), "DIR=apps", "CONTROLLER="+controller.Namespace)
	p.step() // pass through
	before := p.uid(e.app, "db")
	p.step() // scale
	d, err := e.client.AppsV1().Deployments(controller.Namespace).Get(t.Context(), "sealed-secrets-controller", metav1.GetOptions{})
	if err != nil || *d.Spec.Replicas != 0 {
		t.Fatalf("the controller still runs: %v", err)
	}
	controller.Stop()
	p.step() // unseal
	p.step() // the CRD goes
	if after := p.uid(e.app, "db"); after != before || !strings.HasSuffix(after, " old") {
		t.Errorf("the Secret was %s and is %s", before, after)
	}
	e.repo.Write("secret.yaml", manifestOf(e.app, "new", map[string]string{"password": "new"}))
	p.step() // seal to the agent's key
	e.repo.Remove("secret.yaml")
	e.repo.Commit("a new one")
	if _, errOut, code := e.run("", filepath.Join(e.bin, "agent"), "sync", "--url", e.git.RepoURL("shop"), "--path", "apps", "--once", "--sealed-secrets-keys-from", controller.Namespace); code != 0 {
		t.Fatal(errOut)
	}
	if got := p.uid(e.app, "new"); !strings.HasSuffix(got, " new") {
		t.Errorf("the new Secret is %s", got)
	}
	if after := p.uid(e.app, "db"); after != before {
		t.Errorf("the Secret was %s and is %s", before, after)
	}
	t.Log("what leaves git leaves the Secret, though the controller wrote it too")
	lines := strings.SplitAfter(sealed, "\n")
	e.repo.Write("apps/db.yaml", strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(strings.TrimSpace(l), "revoked:") }), ""))
	p.goneAfterCommit("--path", "apps", "--sealed-secrets-keys-from", controller.Namespace)
}
