package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// withSyncs installs the CRD of Syncs, and makes the Secret by which those in the
// agent's namespace read the repository.
func (e *env) withSyncs() *env {
	e.t.Helper()
	e.cp.InstallSyncs(e.t)
	credentials := secretObject("git", map[string][]byte{"username": []byte(gitUser), "password": []byte(gitPassword)})
	if _, err := e.client.CoreV1().Secrets(e.system).Create(e.t.Context(), credentials, metav1.CreateOptions{}); err != nil {
		e.t.Fatal(err)
	}
	e.secretRef = ", secretRef: {name: git}"
	return e
}

// newPublicEnv is an env whose repository anyone may read, with the CRD of Syncs.
func newPublicEnv(t *testing.T) *env {
	t.Helper()
	e := newEnv(t)
	e.cp.InstallSyncs(t)
	e.git = harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: filepath.Dir(e.repo.Bare)})
	return e
}

// hourly is of Syncs that only a test makes look at git.
const hourly = "  path: apps\n  interval: 1h\n"

// makeSync makes a Sync of the env's repository; spec is what it says besides that.
func (e *env) makeSync(namespace, name, spec string) {
	e.t.Helper()
	e.kubectl(fmt.Sprintf("apiVersion: gitseal.io/v1alpha1\nkind: Sync\nmetadata: {name: %s, namespace: %s, labels: {made: by-test}}\n"+
		"spec:\n  source: {url: %q, ref: {branch: %s}%s}\n%s",
		name, namespace, e.git.RepoURL("shop"), harness.MainBranch, e.secretRef, spec), "create", "-f", "-")
}

func (e *env) kubectl(stdin string, args ...string) string {
	e.t.Helper()
	out, errOut, code := e.run(stdin, filepath.Join(e.cp.BinDir, "kubectl"), args...)
	if code != 0 {
		e.t.Fatalf("kubectl %s: %s", strings.Join(args, " "), errOut)
	}
	return out
}

// controllerArgs are the flags of an agent that keeps Syncs, on ports of its own.
func (e *env) controllerArgs(more ...string) []string {
	return append([]string{"--kubeconfig", e.cp.Kubeconfig, "--namespace", e.system, "--metrics-bind-address", "0", "--kubeseal-bind-address", "0", "--health-probe-bind-address", "0"}, more...)
}

// controller runs one for the Syncs of the env's namespaces.
func (e *env) controller() *agent {
	e.t.Helper()
	return e.startArgs(e.controllerArgs("--watch-namespaces", e.system+","+e.app, "--leader-elect=false", "--allow-git-cidr", "127.0.0.0/8")...)
}

// replica runs one of several for the Syncs of the agent's namespace, of which another
// soon leads when the leader has died.
func (e *env) replica(more ...string) *agent {
	e.t.Helper()
	return e.startArgs(e.controllerArgs(append([]string{"--watch-namespaces", e.system, "--leader-election-lease-duration", "3s",
		"--leader-election-renew-deadline", "2s", "--leader-election-retry-period", "500ms"}, more...)...)...)
}
