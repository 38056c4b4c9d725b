package deploy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/deploy"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/test/harness"
)

// binDir is where agentProgram builds to.
var binDir string

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	var err error
	if binDir, err = os.MkdirTemp("", "gitseal-deploy-bin-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(binDir)
	harness.Main(m)
}

var agentProgram = sync.OnceValues(func() (string, error) {
	root, err := harness.Root()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", binDir+"/", "./cmd/agent")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	return filepath.Join(binDir, "agent"), nil
})

// world is an installation on a real API server, whose agent is the real program with
// the arguments of the Deployment and the identity of its service account.
type world struct {
	t       *testing.T
	cp      *harness.ControlPlane
	rest    *rest.Config
	client  kubernetes.Interface
	admin   client.Client
	system  string
	objects []*unstructured.Unstructured
	repo    *harness.Repo
	git     *harness.GitHTTP
}

// install renders and applies an installation, and removes it at the end of the test.
func install(t *testing.T, o deploy.Options) *world {
	t.Helper()
	w := &world{t: t, cp: harness.Shared(t), system: o.Namespace}
	if w.system == "" {
		w.system = deploy.Namespace
	}
	w.connect()
	var err error
	if w.objects, err = deploy.Render(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if err := deploy.Install(t.Context(), w.rest, w.objects, deploy.Force, ignore); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		for _, o := range w.objects {
			if k := o.GetKind(); k == "Namespace" || strings.HasPrefix(k, "ClusterRole") {
				_ = w.admin.Delete(ctx, o) // the test may have done so
			}
		}
	})
	repos := t.TempDir()
	w.repo = harness.NewRepo(t, repos, "fleet")
	w.git = harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: repos})
	return w
}

// connect makes the clients of an administrator.
func (w *world) connect() {
	w.t.Helper()
	var err error
	if w.rest, err = w.cp.RESTConfig(); err != nil {
		w.t.Fatal(err)
	}
	if w.client, err = kubernetes.NewForConfig(w.rest); err != nil {
		w.t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		w.t.Fatal(err)
	}
	if w.admin, err = client.New(w.rest, client.Options{Scheme: scheme}); err != nil {
		w.t.Fatal(err)
	}
}

// agentUser is the agent as the API server knows it.
func (w *world) agentUser() string { return "system:serviceaccount:" + w.system + ":gitseal-agent" }

// start runs the agent and returns how to end it.
func (w *world) start(env ...string) (stop func()) {
	w.t.Helper()
	program, err := agentProgram()
	if err != nil {
		w.t.Fatal(err)
	}
	args := []string{"--kubeconfig", w.kubeconfig("gitseal-agent")}
	for _, a := range w.deployment().Args {
		args = append(args, strings.ReplaceAll(a, "$(POD_NAMESPACE)", w.system))
	}
	// Where the tests' git servers are, ports that others do not have, and Syncs of this test.
	args = append(args, "--watch-label-selector=world="+w.system, "--allow-git-cidr=127.0.0.0/8", "--metrics-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0", "--log-level=debug")
	cmd := exec.Command(program, args...)
	home := w.t.TempDir()
	cmd.Env = append(append(harness.GitEnv(), "HOME="+home, "TMPDIR="+home), env...)
	log := &harness.Log{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("the agent ended with %v", err)
		}
		if w.t.Failed() {
			text := log.String()
			w.t.Log(text[max(0, len(text)-5000):])
		}
	})
	w.t.Cleanup(func() {
		stop()
		w.unfinalize()
	})
	return stop
}

// unfinalize lets namespaces go when no agent is left.
func (w *world) unfinalize() {
	ctx, l := context.Background(), &v1alpha1.SyncList{}
	if err := w.admin.List(ctx, l); err != nil {
		return // the CRD may be gone
	}
	for i := range l.Items {
		if l.Items[i].Labels["world"] == w.system {
			_ = w.admin.Patch(ctx, &l.Items[i], client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))) // it may be gone
		}
	}
}

// deployment is the agent's container, as it is in the cluster.
func (w *world) deployment() corev1.Container {
	w.t.Helper()
	d, err := w.client.AppsV1().Deployments(w.system).Get(w.t.Context(), "gitseal-agent", metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Spec.Template.Spec.Containers[0]
}

// kubeconfig is that of a service account, with a token that the API server gave for it.
func (w *world) kubeconfig(account string) string {
	w.t.Helper()
	tr, err := w.client.CoreV1().ServiceAccounts(w.system).CreateToken(w.t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["c"] = &clientcmdapi.Cluster{Server: w.rest.Host, CertificateAuthority: w.rest.CAFile, CertificateAuthorityData: w.rest.CAData}
	cfg.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: tr.Status.Token}
	cfg.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	cfg.CurrentContext = "x"
	file := filepath.Join(w.t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		w.t.Fatal(err)
	}
	return file
}

func (w *world) create(o client.Object) {
	w.t.Helper()
	if err := w.admin.Create(w.t.Context(), o); err != nil {
		w.t.Fatal(err)
	}
}

// account makes a service account that has a ClusterRole: in its namespace, or
// everywhere.
func (w *world) account(namespace, account, role string, everywhere bool) {
	w.t.Helper()
	w.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}})
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
	subjects := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}}
	if !everywhere {
		w.create(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}, RoleRef: ref, Subjects: subjects})
		return
	}
	b := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace + "-" + account}, RoleRef: ref, Subjects: subjects}
	w.create(b)
	w.t.Cleanup(func() { _ = w.admin.Delete(context.Background(), b) })
}

func (w *world) sync(namespace, name, account, path string, edit func(*v1alpha1.Sync)) *v1alpha1.Sync {
	w.t.Helper()
	s := &v1alpha1.Sync{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"world": w.system}},
		Spec: v1alpha1.SyncSpec{Source: v1alpha1.Source{URL: w.git.RepoURL("fleet")}, Path: path, ServiceAccountName: account, Interval: metav1.Duration{Duration: time.Second}}}
	if edit != nil {
		edit(s)
	}
	w.create(s)
	return s
}

// ready waits until a Sync has applied the repository's head.
func (w *world) ready(s *v1alpha1.Sync) *v1alpha1.Sync {
	w.t.Helper()
	head, out := w.repo.Head(), &v1alpha1.Sync{}
	harness.Eventually(w.t, "Sync "+s.Name+" has applied "+head, func(ctx context.Context) error {
		out = &v1alpha1.Sync{}
		if err := w.admin.Get(ctx, client.ObjectKeyFromObject(s), out); err != nil {
			return err
		}
		if out.Status.Applied == nil || out.Status.Applied.Hash != head || !meta.IsStatusConditionTrue(out.Status.Conditions, v1alpha1.Ready) || out.Status.ObservedGeneration != out.Generation {
			return fmt.Errorf("status: %+v", out.Status)
		}
		return nil
	})
	return out
}

// gone waits until an object is no more.
func (w *world) gone(o client.Object) {
	w.t.Helper()
	harness.Eventually(w.t, o.GetName()+" is gone", func(ctx context.Context) error {
		err := w.admin.Get(ctx, client.ObjectKeyFromObject(o), o)
		if err == nil {
			return errors.New("it is there")
		}
		return client.IgnoreNotFound(err)
	})
}

// public waits for the agent's public keys, and reads them as any user would.
func (w *world) public() keys.Public {
	w.t.Helper()
	anybody := rest.CopyConfig(w.rest)
	anybody.Impersonate = rest.ImpersonationConfig{UserName: "somebody"}
	c, err := kubernetes.NewForConfig(anybody)
	if err != nil {
		w.t.Fatal(err)
	}
	var p keys.Public
	harness.Eventually(w.t, "the public keys are published", func(ctx context.Context) error {
		var err error
		p, err = keys.FetchPublic(ctx, c, w.system)
		return err
	})
	return p
}

func sealedSecret(t *testing.T, to []crypto.Recipient, namespace, name, value string) string {
	t.Helper()
	plain, err := crypto.NewManifest{Name: name, Namespace: namespace, Values: map[string]crypto.Secret{"password": crypto.NewSecretString(value)}}.YAML()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := crypto.SealSOPS(crypto.SealRequest{Plain: plain, Format: crypto.YAML, Now: time.Now(), Binding: crypto.Binding(namespace + "/" + name),
		Rule: crypto.Rule{Recipients: to, EncryptedRegex: `^(data|stringData|gitseal\.io/sealed-for)$`}})
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(sealed)) + "\n"
}

func configMap(namespace, name, value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n  namespace: " + namespace + "\ndata:\n  key: \"" + value + "\"\n"
}

func ignore(*unstructured.Unstructured, deploy.Outcome) {}
