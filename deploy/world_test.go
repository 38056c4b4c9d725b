package deploy_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/deploy"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	harness.Main(m)
}

// world is an installation on a real API server, whose agent is the real program with
// the arguments of the Deployment and the identity of its service account.
type world struct {
	t       *testing.T
	cp      *harness.ControlPlane
	rest    *rest.Config
	client  kubernetes.Interface
	admin   *syncs.Admin
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
	w.admin = syncs.NewAdmin(w.t, w.rest)
}

// agentUser is the agent as the API server knows it.
func (w *world) agentUser() string { return "system:serviceaccount:" + w.system + ":gitseal-agent" }

// start runs the agent and returns how to end it.
func (w *world) start(env ...string) (stop func()) {
	w.t.Helper()
	args := []string{"--kubeconfig", w.cp.AccountKubeconfig(w.t, w.system, "gitseal-agent")}
	for _, a := range w.deployment().Args {
		args = append(args, strings.ReplaceAll(a, "$(POD_NAMESPACE)", w.system))
	}
	// Where the tests' git servers are, ports that others do not have, and Syncs of this test.
	args = append(args, "--watch-label-selector=world="+w.system, "--allow-git-cidr=127.0.0.0/8", "--metrics-bind-address=127.0.0.1:0", "--kubeseal-bind-address=127.0.0.1:0", "--health-probe-bind-address=127.0.0.1:0", "--log-level=debug")
	cmd := exec.Command(filepath.Join(harness.Programs(w.t), "agent"), args...)
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
		_ = w.admin.Unfinalize(client.MatchingLabels{"world": w.system}) // the CRD may be gone
	})
	return stop
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

func (w *world) sync(namespace, name, account, path string, edit func(*v1alpha1.Sync)) *v1alpha1.Sync {
	w.t.Helper()
	s := syncs.New(namespace, name, w.git.RepoURL("fleet"), path)
	s.Labels, s.Spec.ServiceAccountName = map[string]string{"world": w.system}, account
	if edit != nil {
		edit(s)
	}
	w.admin.Make(s)
	return s
}

// ready waits until a Sync has applied the repository's head.
func (w *world) ready(s *v1alpha1.Sync) *v1alpha1.Sync {
	w.t.Helper()
	return w.admin.Applied(s, w.repo.Head())
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

func ignore(*unstructured.Unstructured, deploy.Outcome) {}
