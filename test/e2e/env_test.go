// Package e2e runs the programs as a user does: seal and agent as processes, a
// real control plane, real git servers.
package e2e

import (
	"bytes"
	"cmp"
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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/gitseal/gitseal/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const gitUser, gitPassword = "reader", "git-password-canary"

// env is one team's world: a namespace for the agent's state, one for its
// objects, a repository on a server with a password.
type env struct {
	t      *testing.T
	cp     *harness.ControlPlane
	client kubernetes.Interface
	bin    string
	home   string // for kubectl-like programs, and for files of the test
	system string // namespace of the agent
	app    string // namespace of the objects
	repo   *harness.Repo
	git    *harness.GitHTTP
	files  string // git password file

	kubeconfig string // of the programs that run; "" for the control plane's

	secretRef string // of Syncs; "" where anyone may read the repository
}

func newEnv(t *testing.T) *env {
	t.Helper()
	return newEnvOn(t, harness.Shared(t))
}

func newEnvOn(t *testing.T, cp *harness.ControlPlane) *env {
	t.Helper()
	bin := harness.Programs(t)
	cfg, err := cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	e := &env{
		t: t, cp: cp, client: client, bin: bin, home: t.TempDir(),
		system: cp.Namespace(t, "system"), app: cp.Namespace(t, "app"),
		repo: harness.NewRepo(t, root, "shop"),
		git:  harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: root, Username: gitUser, Password: gitPassword}),
	}
	e.files = filepath.Join(e.home, "git-password")
	if err := os.WriteFile(e.files, []byte(gitPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return e
}

// syncArgs are the flags of an agent for this env.
func (e *env) syncArgs(more ...string) []string {
	return append([]string{"sync", "--kubeconfig", e.cp.Kubeconfig, "--url", e.git.RepoURL("shop"), "--ref", harness.MainBranch,
		"--path", "apps", "--namespace", e.system, "-n", e.app, "--interval", "1s",
		"--git-username", gitUser, "--git-password-file", e.files}, more...)
}

// run runs a program to its end and returns its streams and exit code.
func (e *env) run(stdin, name string, args ...string) (stdout, stderr string, code int) {
	e.t.Helper()
	cmd := exec.CommandContext(e.t.Context(), name, args...)
	cmd.Dir = e.repo.Work
	cmd.Env = append(harness.GitEnv(), "HOME="+e.home, "KUBECONFIG="+cmp.Or(e.kubeconfig, e.cp.Kubeconfig))
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		e.t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

// seal runs seal and fails the test if seal fails.
func (e *env) seal(stdin string, args ...string) string {
	e.t.Helper()
	out, errOut, code := e.run(stdin, filepath.Join(e.bin, "seal"), args...)
	if code != 0 {
		e.t.Fatalf("seal %s: exit code %d\n%s", strings.Join(args, " "), code, errOut)
	}
	return out
}

// once runs `agent sync --once`.
func (e *env) once(more ...string) (stdout, stderr string, code int) {
	e.t.Helper()
	return e.run("", filepath.Join(e.bin, "agent"), e.syncArgs(append([]string{"--once"}, more...)...)...)
}

// mustOnce runs it and fails the test if it fails.
func (e *env) mustOnce(more ...string) string {
	e.t.Helper()
	out, errOut, code := e.once(more...)
	if code != 0 {
		e.t.Fatalf("agent sync --once: exit code %d\n%s\n%s", code, out, errOut)
	}
	return out
}

// withKeys makes the agent's keys and writes their public halves into the
// repository.
func (e *env) withKeys() *env {
	e.t.Helper()
	e.repo.Write("apps/begin.yaml", configMap(e.app, "begin", "a", "b"))
	e.repo.Commit("begin")
	e.mustOnce()
	e.seal("", "keys", "fetch", "--namespace", e.system)
	return e
}

// agent is a running `agent sync`.
type agent struct {
	t    *testing.T
	tmp  string // its TMPDIR
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer
}

func (a *agent) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.Write(p)
}

func (a *agent) log() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.out.String()
}

func (e *env) start(more ...string) *agent {
	e.t.Helper()
	return e.startArgs(e.syncArgs(more...)...)
}

func (e *env) startArgs(args ...string) *agent {
	e.t.Helper()
	a := &agent{t: e.t, tmp: e.t.TempDir(), done: make(chan struct{}), cmd: exec.Command(filepath.Join(e.bin, "agent"), args...)}
	a.cmd.Env = append(harness.GitEnv(), "HOME="+a.tmp, "TMPDIR="+a.tmp)
	a.cmd.Stdout, a.cmd.Stderr = a, a
	if err := a.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	go func() { _ = a.cmd.Wait(); close(a.done) }() // how it ended shows in the log
	e.t.Cleanup(func() {
		a.stop()
		if e.t.Failed() {
			e.t.Logf("log of the agent:\n%s", tail(a.log(), 60))
		}
	})
	return a
}

// stop ends the agent as Kubernetes does and waits for it.
func (a *agent) stop() {
	_ = a.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-a.done:
	case <-time.After(20 * time.Second):
		_ = a.cmd.Process.Kill()
		<-a.done
		a.t.Error("the agent did not end within 20 s of SIGTERM")
	}
}

func (a *agent) kill() {
	_ = a.cmd.Process.Kill()
	<-a.done
}

func tail(s string, lines int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-lines):], "\n")
}

func (e *env) eventually(what string, check func(ctx context.Context) error) {
	e.t.Helper()
	harness.Eventually(e.t, what, check)
}

// logSays waits until the agent's log holds all of the texts.
func (e *env) logSays(a *agent, texts ...string) {
	e.t.Helper()
	e.eventually("the log says "+strings.Join(texts, ", "), func(context.Context) error {
		for _, text := range texts {
			if !strings.Contains(a.log(), text) {
				return fmt.Errorf("no %q in it", text)
			}
		}
		return nil
	})
}

func (e *env) secret(ctx context.Context, name, key, want string) error {
	s, err := e.client.CoreV1().Secrets(e.app).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if got := string(s.Data[key]); got != want {
		return fmt.Errorf("Secret %s: %s is %q, want %q", name, key, got, want)
	}
	return nil
}

func (e *env) configMapValue(ctx context.Context, name, key, want string) error {
	c, err := e.client.CoreV1().ConfigMaps(e.app).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if got := c.Data[key]; got != want {
		return fmt.Errorf("ConfigMap %s: %s is %q, want %q", name, key, got, want)
	}
	return nil
}

func configMap(ns, name, key, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\ndata: {%s: %q}\n", name, ns, key, value)
}

// sealSecret writes a SOPS-sealed Secret into the repository.
func (e *env) sealSecret(file, name, key, value string) {
	e.t.Helper()
	e.seal(value, "secret", "generic", name, "-n", e.app, "--from-file", key+"=-", "-w", file)
}

func secretObject(name string, data map[string][]byte) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
}
