package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// A Sync says itself what `seal diff` needs to know. Who may not read the agent's
// inventory sees what differs in git, and is told that drift does not show.
func TestDiffOfASync(t *testing.T) {
	t.Parallel()
	e := newPublicEnv(t)
	e.controller()
	for _, name := range []string{"a", "b", "gone"} {
		e.repo.Write("apps/"+name+".yaml", configMap("", name, "k", "v"))
	}
	e.repo.Commit("first")
	e.kubectl("", "create", "serviceaccount", "deployer", "-n", e.app)
	e.kubectl("", "create", "rolebinding", "deployer", "-n", e.app, "--clusterrole", "edit", "--serviceaccount", e.app+":deployer")
	e.kubectl("", "create", "role", "syncs", "-n", e.app, "--verb", "get,list", "--resource", "syncs.gitseal.io")
	e.kubectl("", "create", "rolebinding", "syncs", "-n", e.app, "--role", "syncs", "--serviceaccount", e.app+":deployer")
	e.makeSync(e.app, "shop", "  path: apps\n  serviceAccountName: deployer\n  ignoreFields: [{kind: ConfigMap, name: b, jsonPointers: [/data/k]}]\n")
	e.kubectl("", "wait", "-n", e.app, "--for=condition=Ready", "sync/shop", "--timeout=60s")
	diff := func(args ...string) (out, errOut string, code int) {
		return e.run("", filepath.Join(e.bin, "seal"), append([]string{"diff", "--sync", "shop", "-n", e.app, "--namespace", e.system}, args...)...)
	}
	tenant := []string{"--kubeconfig", e.cp.AccountKubeconfig(t, e.app, "deployer")}
	for who, args := range map[string][]string{"an admin": nil, "a tenant": tenant} {
		if out, errOut, code := diff(args...); code != 0 || out != "" {
			t.Errorf("%s, nothing changed: exit code %d\n%s%s", who, code, out, errOut)
		}
	}

	e.kubectl("", "patch", "sync", "shop", "-n", e.app, "--type=merge", "-p", `{"spec":{"suspend":true}}`)
	e.repo.Write("apps/a.yaml", configMap("", "a", "k", "new"))
	e.repo.Write("apps/new.yaml", configMap("", "new", "k", "v"))
	e.repo.Remove("apps/gone.yaml")
	for _, drifted := range []string{"a", "b"} {
		if _, err := e.client.CoreV1().ConfigMaps(e.app).Patch(t.Context(), drifted, types.MergePatchType, []byte(`{"data":{"k":"drifted"}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
			t.Fatal(err)
		}
	}
	at := func(kind, name, why string) string { return kind + " ConfigMap/" + e.app + "/" + name + " (" + why }
	says := func(who, out string, want []string) {
		t.Helper()
		if n := strings.Count(out, "ConfigMap/"); n != len(want) {
			t.Errorf("%s sees %d differences, want %d:\n%s", who, n, len(want), out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s does not see %q:\n%s", who, w, out)
			}
		}
	}
	want := []string{at("change", "a", "it was changed in the cluster"), at("create", "new", "new in git"), at("prune", "gone", "not in git any more")}
	out, errOut, code := diff()
	if code != 1 || errOut != "error: 3 objects differ\n" {
		t.Errorf("an admin: exit code %d: %s", code, errOut)
	}
	says("an admin", out, want)
	out, errOut, code = diff(tenant...)
	if code != 1 || !strings.Contains(errOut, "you may not read the agent's inventory") {
		t.Errorf("a tenant: exit code %d: %s", code, errOut)
	}
	says("a tenant", out, []string{at("change", "a", "changed in git"), want[1], want[2]})

	out, _, code = diff("--commit", "HEAD")
	if code != 1 {
		t.Errorf("the commit that is applied: exit code %d", code)
	}
	says("one who asks for the applied commit", out, []string{want[0]})
	next := e.repo.Commit("second")
	e.repo.Remove("apps/a.yaml")
	for _, revision := range []string{"HEAD", next[:10], harness.MainBranch} {
		if out, _, _ = diff("--commit", revision); strings.Contains(out, "prune ConfigMap/"+e.app+"/a") {
			t.Errorf("%s: it looks at the work tree", revision)
		}
		says(revision, out, want)
	}

	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no such Sync":       {[]string{"diff", "--sync", "shopp", "-n", e.app}, 2, "did you mean shop?"},
		"no such commit":     {[]string{"diff", "--sync", "shop", "-n", e.app, "--namespace", e.system, "--commit", "v9"}, 2, `--commit: revision "v9"`},
		"another folder":     {[]string{"diff", ".", "--sync", "shop", "-n", e.app, "--namespace", e.system}, 2, "applies the folder apps"},
		"flags of the other": {[]string{"diff", "--sync", "shop", "--prune-limit", "3"}, 2, "[prune-limit sync]"},
	} {
		if out, errOut, code := e.run("", filepath.Join(e.bin, "seal"), c.args...); code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: exit code %d, want %d with %q\n%s%s", name, code, c.code, c.want, out, errOut)
		}
	}
}
