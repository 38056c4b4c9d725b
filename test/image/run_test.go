package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/test/harness"
)

const (
	// accountFolder is where a pod has its service account.
	accountFolder = "/var/run/secrets/kubernetes.io/serviceaccount"
	// gitFolder is where ours has what it needs of git.
	gitFolder = "/run/git"
	username  = "reader"
	password  = "git-password"
)

// pod is the agent in a jail, with the service account of a cluster and a repository
// that two servers have: one for everybody, one over https, with a password.
type pod struct {
	*jail
	t          *testing.T
	root       string // of our repository
	cp         *harness.ControlPlane
	client     kubernetes.Interface
	system     string // namespace of the agent
	app        string // namespace of the objects
	repo       *harness.Repo
	open, safe *harness.GitHTTP
}

func newPod(t *testing.T) *pod {
	t.Helper()
	root, image := makeImage(t)
	cp := harness.Shared(t)
	config, err := cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	if err := rest.LoadTLSFiles(config); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	p := &pod{
		jail: newJail(t, image), t: t, root: root, cp: cp, client: client,
		system: cp.Namespace(t, "system"), app: cp.Namespace(t, "app"),
		repo: harness.NewRepo(t, folder, "shop"),
		open: harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: folder}),
		safe: harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: folder, Username: username, Password: password, TLS: true}),
	}
	p.mount(t, accountFolder, map[string][]byte{"token": []byte(p.token()), "ca.crt": config.CAData, "namespace": []byte(p.system)})
	p.mount(t, gitFolder, map[string][]byte{"ca.crt": p.safe.CA, "password": []byte(password + "\n")})
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p.Env = []string{"KUBERNETES_SERVICE_HOST=" + server.Hostname(), "KUBERNETES_SERVICE_PORT=" + server.Port()}
	return p
}

// token makes a service account that may do everything, as in deploy/components/cluster-admin.
func (p *pod) token() string {
	p.t.Helper()
	ctx := p.t.Context()
	account, err := p.client.CoreV1().ServiceAccounts(p.system).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "agent"}}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "agent-" + p.system},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: p.system, Name: account.Name}},
	}, metav1.CreateOptions{}); err != nil {
		p.t.Fatal(err)
	}
	request, err := p.client.CoreV1().ServiceAccounts(p.system).CreateToken(ctx, account.Name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return request.Status.Token
}

// once runs `agent sync --once`.
func (p *pod) once(server *harness.GitHTTP, more ...string) (output string, code int) {
	p.t.Helper()
	stdout, stderr, code := p.run(p.t, append([]string{"sync", "--once", "--namespace", p.system, "-n", p.app,
		"--url", server.RepoURL("shop"), "--ref", harness.MainBranch, "--path", "apps"}, more...)...)
	return stdout + stderr, code
}

func (p *pod) mustOnce(server *harness.GitHTTP, more ...string) {
	p.t.Helper()
	if output, code := p.once(server, more...); code != 0 {
		p.t.Fatalf("agent sync --once: exit code %d\n%s", code, output)
	}
}

// commitConfigMap commits one with a value.
func (p *pod) commitConfigMap(value string) {
	p.t.Helper()
	p.repo.Write("apps/settings.yaml", fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, namespace: %s}\ndata: {value: %q}\n", p.app, value))
	p.repo.Commit("set " + value)
}

func (p *pod) wantConfigMap(ctx context.Context, value string) error {
	got, err := p.client.CoreV1().ConfigMaps(p.app).Get(ctx, "settings", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if got.Data["value"] != value {
		return fmt.Errorf("the ConfigMap has %q, want %q", got.Data["value"], value)
	}
	return nil
}

// seal runs bin/seal of the repository, as on a laptop.
func (p *pod) seal(stdin string, args ...string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.root, "bin/seal"), args...)
	cmd.Dir, cmd.Stdin = p.repo.Work, strings.NewReader(stdin)
	cmd.Env = append(harness.GitEnv(), "HOME="+p.t.TempDir(), "KUBECONFIG="+p.cp.Kubeconfig)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("seal %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestTheAgentRunsFromTheImageAlone(t *testing.T) {
	_, image := makeImage(t)
	_, entries := readImage(t, image)
	stdout, stderr, code := newJail(t, image).run(t, "version", "-o", "json")
	if code != 0 || stderr != "" {
		t.Fatalf("agent version: exit code %d\n%s", code, stderr)
	}
	if got, want := parseVersion(t, []byte(stdout)), versionOf(t, entries); got != want {
		t.Errorf("in the image %+v, outside of it %+v", got, want)
	}
}

// TestTheMainJobFromTheImage: keys, a sealed value, and both kinds of git server, with
// the API server found as in a pod.
func TestTheMainJobFromTheImage(t *testing.T) {
	p := newPod(t)
	p.commitConfigMap("over http")
	p.mustOnce(p.open)
	if err := p.wantConfigMap(t.Context(), "over http"); err != nil {
		t.Error(err)
	}

	p.seal("", "keys", "fetch", "--namespace", p.system)
	p.seal("from-a-laptop", "secret", "generic", "db", "-n", p.app, "--from-file", "password=-", "-w", "apps/db.yaml")
	p.commitConfigMap("over https")
	credentials := []string{"--git-username", username, "--git-password-file", gitFolder + "/password"}
	p.mustOnce(p.safe, append(credentials, "--git-ca-file", gitFolder+"/ca.crt")...)
	if err := p.wantConfigMap(t.Context(), "over https"); err != nil {
		t.Error(err)
	}
	secret, err := p.client.CoreV1().Secrets(p.app).Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := string(secret.Data["password"]); got != "from-a-laptop" {
		t.Errorf("the Secret has %q", got)
	}

	const refused = "x509: certificate signed by unknown authority"
	if output, code := p.once(p.safe, credentials...); code == 0 || !strings.Contains(output, refused) {
		t.Errorf("of an authority that nobody knows: exit code %d, want %q\n%s", code, refused, output)
	}
	p.Env = append(p.Env, "SSL_CERT_FILE="+gitFolder+"/ca.crt") // the system's certificates win
	p.commitConfigMap("over https, with the system's certificates")
	p.mustOnce(p.safe, credentials...)
	if err := p.wantConfigMap(t.Context(), "over https, with the system's certificates"); err != nil {
		t.Error(err)
	}
}

// TestTheControllerFromTheImage runs it with the flags of the deployment, and others
// where tests on one machine need it.
func TestTheControllerFromTheImage(t *testing.T) {
	p := newPod(t)
	p.cp.InstallSyncs(t)
	var args []string
	for _, arg := range deployment(t, p.root).Spec.Template.Spec.Containers[0].Args {
		args = append(args, strings.ReplaceAll(arg, "$(POD_NAMESPACE)", p.system))
	}
	if !slices.Contains(args, "--namespace="+p.system) {
		t.Fatalf("flags of the deployment: %q", args)
	}
	health := freeAddress(t)
	args = append(args, "--watch-namespaces="+p.system, "--metrics-bind-address=0", "--kubeseal-bind-address=0", "--health-probe-bind-address="+health)
	p.commitConfigMap("by the controller")
	p.createSync()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := p.command(ctx, t, args...)
	var log harness.Log
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		if t.Failed() {
			t.Logf("log of the agent:\n%s", log.String())
		}
	})
	harness.Eventually(t, "the ConfigMap is there, and the agent is ready", func(ctx context.Context) error {
		select {
		case err := <-ended:
			t.Fatalf("the agent ended: %v", err)
		default:
		}
		return errors.Join(p.wantConfigMap(ctx, "by the controller"), ready(ctx, "http://"+health+"/readyz"))
	})
	cancel() // SIGTERM, as a kubelet does
	if err := <-ended; cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("told to end: %v", err)
	}
}

func (p *pod) createSync() {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), filepath.Join(p.cp.BinDir, "kubectl"), "--kubeconfig", p.cp.Kubeconfig, "create", "-f", "-")
	cmd.Env = append(harness.GitEnv(), "HOME="+p.t.TempDir())
	cmd.Stdin = strings.NewReader(fmt.Sprintf("apiVersion: gitseal.io/v1alpha1\nkind: Sync\nmetadata: {name: shop, namespace: %s}\n"+
		"spec:\n  source: {url: %q, ref: {branch: %s}}\n  path: apps\n  serviceAccountName: agent\n  targetNamespace: %s\n",
		p.system, p.open.RepoURL("shop"), harness.MainBranch, p.app))
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("kubectl create: %v\n%s", err, out)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func ready(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}
