package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/harness"
)

// read returns a file of the work tree.
func (e *env) read(file string) string {
	e.t.Helper()
	b, err := os.ReadFile(filepath.Join(e.repo.Work, file))
	if err != nil {
		e.t.Fatal(err)
	}
	return string(b)
}

var recipientPattern = regexp.MustCompile(`age1[a-z0-9]{58}`)

// TestBadInputIsNamedAndNothingIsLost breaks the repository in one way after
// another under a running agent. Each time the message must say what is wrong
// and where, everything applied before must stay, and the agent must recover by
// itself once it is put right.
func TestBadInputIsNamedAndNothingIsLost(t *testing.T) {
	t.Parallel()
	other, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t).withKeys()
	e.writeMainJob("bad-input-canary")
	e.repo.Commit("good")
	a := e.start("--log-level", "debug", "-v", "10")
	good := func(ctx context.Context) error {
		return errors.Join(e.secret(ctx, "db", "password", "bad-input-canary"), e.secret(ctx, "api", "token", "token-value"), e.configMapValue(ctx, "extra", "a", "b"))
	}
	e.eventually("all is there", good)
	held := recipientPattern.FindString(e.read(".gitseal/recipients.txt"))

	for i, c := range []struct {
		name    string
		breakIt func()
		says    []string
	}{
		{"no key for a file", func() {
			e.repo.Write("apps/db.yaml", e.seal("apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: "+e.app+"}\nstringData: {password: bad-input-canary}\n",
				"encrypt", "--age", other.Recipient().String(), "--filename", "db.yaml", "-"))
		}, []string{"apps/db.yaml: NoKey: no key: sealed to " + other.Recipient().String(), "keys held: " + held, "Secret/" + e.app + "/db"}},
		{"a tampered value", func() {
			e.replace("apps/db.yaml", "password: ENC[AES256_GCM,data:", "password: ENC[AES256_GCM,data:AAAA")
		},
			[]string{"apps/db.yaml: ValueAltered: the sealed value at stringData.password was changed or moved"}},
		{"a changed plain field", func() { e.replace("apps/db.yaml", "kind: Secret", "kind: Secret\ntype: Opaque") },
			[]string{"apps/db.yaml: MACMismatch: MAC mismatch", "Secret/" + e.app + "/db"}},
		{"a missing MAC", func() {
			e.repo.Write("apps/db.yaml", regexp.MustCompile(`(?m)^    mac: .*$`).ReplaceAllString(e.read("apps/db.yaml"), `    mac: ""`))
		}, []string{"apps/db.yaml: MACMissing: the file has no MAC"}},
		{"a wrong scope", func() {
			e.replace("apps/api.yaml", "  name: api", "  annotations: {sealedsecrets.bitnami.com/cluster-wide: \"true\"}\n  name: api")
		},
			[]string{"Secret/" + e.app + "/api: ScopeMismatch: encryptedData.token: sealed with scope strict, but the object's annotations say cluster-wide"}},
		{"a value sealed for another object", func() {
			e.repo.Write("apps/db.yaml", e.seal("apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {password: bad-input-canary}\n",
				"encrypt", "--for", "elsewhere/db", "--filename", "db.yaml", "-"))
			e.replace("apps/kustomization.yaml", "resources:", "namespace: "+e.app+"\nresources:")
		}, []string{"BindingMismatch: apps/db.yaml was sealed for elsewhere/db, not for " + e.app + "/db", "--for " + e.app + "/db"}},
		{"broken YAML", func() { e.repo.Write("apps/settings.yaml", "kind: [\n") }, []string{"build: kustomize build of apps", "settings.yaml"}},
		{"a kustomization that names a missing file", func() { e.repo.Remove("apps/extra.yaml") },
			[]string{`build: apps/kustomization.yaml: resources[1]: "extra.yaml" does not exist`}},
		{"a missing path", func() { e.repo.Git("mv", "apps", "elsewhere") }, []string{"build: path apps is not a folder of the repository"}},
		{"an object that the API server refuses", func() {
			e.repo.Write("apps/settings.yaml", configMap(e.app, "settings", "not a key", "x"))
			e.repo.Remove("apps/extra.yaml")
			e.replace("apps/kustomization.yaml", " extra.yaml,", "")
		}, []string{"apply: ConfigMap/" + e.app + "/settings: the API server refused it: Invalid (422)", "not a key"}},
		{"a plaintext Secret", func() {
			e.repo.Write("apps/extra.yaml", e.read("apps/extra.yaml")+"---\napiVersion: v1\nkind: Secret\nmetadata: {name: plain, namespace: "+e.app+"}\nstringData: {k: v}\n")
		}, []string{"Secret/" + e.app + "/plain data.k: PlaintextSecret"}},
		{"a sealed value in a ConfigMap", func() {
			e.replace("apps/kustomization.yaml", "secretGenerator:", "configMapGenerator: [{name: leak, namespace: "+e.app+", envs: [app.env]}]\nsecretGenerator:")
		}, []string{"ConfigMap/" + e.app + "/leak-", "PlaceholderOutsideSecret: a sealed value of apps/app.env"}},
		{"everything removed", func() {
			e.repo.Git("rm", "-q", "-r", "apps")
			e.repo.Write("apps/README.md", "empty")
		}, []string{"build: path apps renders no objects"}},
	} {
		t.Logf("%d: %s", i, c.name)
		before := len(a.log())
		base := e.repo.Head()
		c.breakIt()
		e.repo.Commit(c.name)
		e.eventually("the log names it", func(context.Context) error {
			// slog quotes the message: undo that before comparing.
			log := strings.NewReplacer(`\"`, `"`).Replace(a.log()[before:])
			for _, text := range c.says {
				if !strings.Contains(log, text) {
					return fmt.Errorf("%s: no %q in the log:\n%s", c.name, text, tail(log, 12))
				}
			}
			return nil
		})
		if err := good(t.Context()); err != nil {
			t.Fatalf("%s: something was lost: %v", c.name, err)
		}
		e.repo.Git("reset", "-q", "--hard", base)
		e.repo.Git("commit", "-q", "--allow-empty", "-m", "put right "+c.name)
		e.repo.Git("push", "-q", "-f", "origin", harness.MainBranch)
		before = len(a.log())
		e.eventually("the agent recovers", func(context.Context) error {
			if log := a.log()[before:]; !strings.Contains(log, "idle=true") {
				return errors.New("no pass without a failure")
			}
			return nil
		})
	}

	t.Log("the repository can not be reached")
	before := len(a.log())
	e.git.SetDown(true)
	e.eventually("the log names it", func(context.Context) error {
		if !strings.Contains(a.log()[before:], "fetch: ") || !strings.Contains(a.log()[before:], e.git.RepoURL("shop")) {
			return errors.New("not yet")
		}
		return nil
	})
	t.Log("drift is repaired all the same")
	if err := e.client.CoreV1().ConfigMaps(e.app).Delete(t.Context(), "extra", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("the deleted object is back", good)
	e.git.SetDown(false)
	e.repo.Write("apps/settings.yaml", configMap(e.app, "settings", "greeting", "welcome back"))
	e.repo.Commit("after the outage")
	e.eventually("the agent follows again", func(ctx context.Context) error {
		return e.configMapValue(ctx, "settings", "greeting", "welcome back")
	})
	for _, canary := range []string{"bad-input-canary", gitPassword, "token-value"} {
		if strings.Contains(a.log(), canary) {
			t.Errorf("the log holds %q", canary)
		}
	}
}

func TestOnceSaysWhyItCouldNot(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	wrong := filepath.Join(e.home, "wrong")
	if err := os.WriteFile(wrong, []byte("wrong-password-canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(e.bin, "agent")
	base := []string{"sync", "--once", "--kubeconfig", e.cp.Kubeconfig, "--namespace", e.system}
	for name, c := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"no credentials":      {[]string{"--url", e.git.RepoURL("shop")}, 1, []string{"fetch: ", e.git.RepoURL("shop"), "sent no credentials"}},
		"wrong password":      {[]string{"--url", e.git.RepoURL("shop"), "--git-username", gitUser, "--git-password-file", wrong}, 1, []string{"fetch: ", "sent a user name and password"}},
		"no such repository":  {[]string{"--url", e.git.RepoURL("gone"), "--git-username", gitUser, "--git-password-file", e.files}, 1, []string{"fetch: ", "not found"}},
		"unreachable":         {[]string{"--url", "http://127.0.0.1:1/x.git"}, 1, []string{"fetch: ", "http://127.0.0.1:1/x.git"}},
		"no such branch":      {[]string{"--url", e.git.RepoURL("shop"), "--git-username", gitUser, "--git-password-file", e.files, "--ref", "gone"}, 1, []string{"fetch: ", "gone"}},
		"no URL":              {nil, 2, []string{"--url is required"}},
		"password in the URL": {[]string{"--url", "https://u:wrong-password-canary@127.0.0.1/x"}, 2, []string{"Secret"}},
		"bad policy":          {[]string{"--url", "http://127.0.0.1:1/x", "--binding", "Maybe"}, 2, []string{`"Maybe" is not Required or IfPresent`}},
		"bad prune limit":     {[]string{"--url", "http://127.0.0.1:1/x", "--prune-limit", "lots"}, 2, []string{"--prune-limit", `"lots"`}},
		"no cluster":          {[]string{"--url", "http://127.0.0.1:1/x", "--kubeconfig", "/nonexistent"}, 2, []string{"/nonexistent"}},
		"no git Secret":       {[]string{"--url", "http://127.0.0.1:1/x", "--git-secret", "gone"}, 2, []string{"read the repository's credentials", "gone"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(append([]string{}, base...), c.args...)
			_, errOut, code := e.run("", agent, args...)
			if code != c.code {
				t.Errorf("got exit code %d, want %d\n%s", code, c.code, errOut)
			}
			for _, text := range c.says {
				if !strings.Contains(errOut, text) {
					t.Errorf("no %q in %s", text, errOut)
				}
			}
			if strings.Contains(errOut, "password-canary") {
				t.Errorf("the message holds a password: %s", errOut)
			}
		})
	}
}

func TestForcePushAndVanishedBranch(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	a := e.start("--log-level", "debug")
	e.eventually("the first commit is applied", func(ctx context.Context) error { return e.configMapValue(ctx, "begin", "a", "b") })
	e.repo.ForcePushOrphan("other history", map[string]string{"apps/begin.yaml": configMap(e.app, "begin", "a", "forced")})
	e.eventually("the forced history is followed", func(ctx context.Context) error { return e.configMapValue(ctx, "begin", "a", "forced") })
	e.repo.Git("--git-dir", e.repo.Bare, "config", "receive.denyDeleteCurrent", "ignore")
	e.repo.Git("push", "-q", "origin", ":"+harness.MainBranch)
	e.logSays(a, "fetch: ", harness.MainBranch)
	if err := e.client.CoreV1().ConfigMaps(e.app).Delete(t.Context(), "begin", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("the last good commit keeps running", func(ctx context.Context) error { return e.configMapValue(ctx, "begin", "a", "forced") })
}

func TestSSHWithCredentialsFromASecret(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	ssh := harness.NewGitSSH(t, filepath.Dir(e.repo.Bare))
	e.repo.Write("apps/x.yaml", configMap(e.app, "over-ssh", "a", "b"))
	e.repo.Commit("one")
	for name, data := range map[string]map[string][]byte{
		"good":     {"identity": ssh.PrivateKey, "known_hosts": []byte(ssh.KnownHosts)},
		"no-hosts": {"identity": ssh.PrivateKey},
	} {
		if _, err := e.client.CoreV1().Secrets(e.system).Create(t.Context(), secretObject(name, data), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	args := func(secret string) []string {
		return []string{"sync", "--once", "--kubeconfig", e.cp.Kubeconfig, "--namespace", e.system, "--url", ssh.RepoURL("shop"), "--path", "apps", "--git-secret", secret}
	}
	agent := filepath.Join(e.bin, "agent")
	if _, errOut, code := e.run("", agent, args("no-hosts")...); code == 0 || !strings.Contains(errOut, "known_hosts") {
		t.Errorf("without known_hosts: exit code %d, %s", code, errOut)
	}
	if _, errOut, code := e.run("", agent, args("good")...); code != 0 {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	if err := e.configMapValue(t.Context(), "over-ssh", "a", "b"); err != nil {
		t.Error(err)
	}
}
