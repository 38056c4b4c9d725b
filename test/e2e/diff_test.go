package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

const diffWeb = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {a: web}}
  template:
    metadata: {labels: {a: web}}
    spec: {containers: [{name: c, image: "web:1", envFrom: [{secretRef: {name: conf}}]}]}
`

const diffKustomization = `namespace: APP
resources: [a.yaml, b.yaml, gone.yaml, db.yaml, api.yaml, web.yaml]
secretGenerator: [{name: conf, envs: [conf.env]}, {name: same, envs: [same.env]}]
`

func TestDiffShowsWhatACommitWouldChange(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	var said strings.Builder
	diff := func(args ...string) (out, errOut string, code int) {
		t.Helper()
		out, errOut, code = e.run("", filepath.Join(e.bin, "seal"), append([]string{"diff", "apps", "--namespace", e.system, "-n", e.app}, args...)...)
		said.WriteString(out + errOut)
		return out, errOut, code
	}
	dotenv := func(name, value string) {
		e.repo.Write("apps/"+name, e.seal("KEY="+value+"\n", "encrypt", "--for", e.app+"/"+strings.TrimSuffix(name, ".env"), "--filename", name, "-"))
	}
	api := func(value string) {
		e.repo.Write("apps/api.yaml", e.seal("apiVersion: v1\nkind: Secret\nmetadata: {name: api, namespace: "+e.app+"}\nstringData: {token: "+value+"}\n", "sealedsecret"))
	}
	e.repo.Write("apps/kustomization.yaml", strings.ReplaceAll(diffKustomization, "APP", e.app))
	for _, name := range []string{"a", "b", "gone"} {
		e.repo.Write("apps/"+name+".yaml", configMap(e.app, name, "k", "v"))
	}
	e.repo.Write("apps/web.yaml", diffWeb)
	e.sealSecret("apps/db.yaml", "db", "password", "diff-canary-1")
	api("diff-canary-2")
	dotenv("conf.env", "diff-canary-3")
	dotenv("same.env", "diff-canary-4")
	e.repo.Remove("apps/begin.yaml")
	if out, errOut, code := diff(); code != 1 || !strings.Contains(out, "create Deployment/"+e.app+"/web (new in git)") || !strings.Contains(out, "+kind: ConfigMap") {
		t.Fatalf("before the first commit: exit code %d\n%s%s", code, out, errOut)
	}
	e.repo.Commit("first")
	e.mustOnce()
	mark := e.cp.Mark()
	if out, errOut, code := diff(); code != 0 || out != "" {
		t.Fatalf("right after the apply: exit code %d\n%s%s", code, out, errOut)
	}
	if n := e.sealRequests(mark, "patch", "get"); len(n) > 0 {
		t.Errorf("nothing changed, and it asked about objects: %v", n)
	}

	t.Log("a commit that is not made yet, and drift")
	e.repo.Write("apps/a.yaml", configMap(e.app, "a", "k", "new"))
	e.repo.Write("apps/b.yaml", strings.Replace(configMap(e.app, "b", "k", "v"), "metadata:", "# a comment\nmetadata:", 1))
	e.sealSecret("apps/db.yaml", "db", "password", "diff-canary-5")
	api("diff-canary-6")
	dotenv("conf.env", "diff-canary-7")
	e.repo.Write("apps/kustomization.yaml", strings.ReplaceAll(strings.Replace(diffKustomization, " gone.yaml,", "", 1), "APP", e.app))
	if _, err := e.client.CoreV1().ConfigMaps(e.app).Patch(t.Context(), "b", types.MergePatchType, []byte(`{"data":{"k":"drifted"}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	mark = e.cp.Mark()
	out, errOut, code := diff()
	if code != 1 || !strings.Contains(errOut, "8 objects differ") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	for _, want := range []string{
		"change ConfigMap/" + e.app + "/a (changed in git)\n  --- cluster\n  +++ git\n", "  -  k: v\n  +  k: new\n",
		"change ConfigMap/" + e.app + "/b (it was changed in the cluster, last by \"somebody\")\n", "  -  k: drifted\n  +  k: v\n",
		"change Secret/" + e.app + "/db (changed in git)\n  ~ data.password (sealed anew, or changed)\n",
		"change Secret/" + e.app + "/api (changed in git)\n  ~ data.token (sealed anew, or changed)\n",
		"create Secret/" + e.app + "/conf-", "  + data.KEY\n", "prune Secret/" + e.app + "/conf-",
		"change Deployment/" + e.app + "/web (changed in git)\n", "  -            name: conf-", "  +            name: conf-",
		"prune ConfigMap/" + e.app + "/gone (not in git any more)\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	for _, r := range e.sealRequests(mark, "patch", "get", "list", "watch") {
		if strings.Contains(r, "secrets/") || strings.HasPrefix(r, "patch") && !strings.Contains(r, "dryRun=All") {
			t.Errorf("it sent %s", r)
		}
	}
	var listed []struct{ Object, Action, Diff string }
	out, _, code = diff("-o", "json")
	if err := json.Unmarshal([]byte(out), &listed); err != nil || code != 1 || len(listed) != 8 {
		t.Errorf("as JSON: exit code %d, %v\n%s", code, err, out)
	}

	t.Log("what the API server would not take")
	e.repo.Write("apps/web.yaml", strings.Replace(diffWeb, "a: web}}\n  template", "a: other}}\n  template", 1))
	if out, _, code := diff(); code != 1 || !strings.Contains(out, "  ! the API server refused it: Invalid (422)") {
		t.Errorf("exit code %d:\n%s", code, out)
	}

	t.Log("wrong input")
	foreign := t.TempDir()
	if err := os.CopyFS(foreign+"/apps", os.DirFS(filepath.Join(e.repo.Work, "apps"))); err != nil {
		t.Fatal(err)
	}
	e.repo.Git("init", "-q", foreign)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"a clone without the commit": {[]string{"diff", foreign + "/apps", "--namespace", e.system}, 2, "git fetch"},
		"another folder":             {[]string{"diff", ".", "--namespace", e.system}, 2, "the agent applies the folder apps of its repository"},
		"nobody":                     {[]string{"diff", "apps", "--namespace", e.system, "--kubeconfig", e.cp.ImpersonatingKubeconfig(t, "nobody", "")}, 3, "forbidden"},
		"a wrong policy":             {[]string{"diff", "apps", "--sealed-secrets", "Perhaps"}, 2, "Perhaps"},
	} {
		if out, errOut, code := e.run("", filepath.Join(e.bin, "seal"), c.args...); code != c.code || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: exit code %d, want %d\n%s%s", name, code, c.code, out, errOut)
		}
	}
	if strings.Contains(said.String(), "diff-canary") {
		t.Error("a value was printed")
	}
}

// sealRequests lists what seal asked the API server.
func (e *env) sealRequests(since harness.Mark, verbs ...string) []string {
	e.t.Helper()
	ev, err := e.cp.Requests(e.t.Context(), since, func(ev harness.AuditEvent) bool {
		return strings.HasPrefix(ev.UserAgent, "gitseal-seal/") && slices.Contains(verbs, ev.Verb) && strings.Contains(ev.RequestURI, "/namespaces/"+e.app+"/")
	})
	if err != nil {
		e.t.Fatal(err)
	}
	var out []string
	for _, r := range ev {
		out = append(out, r.Verb+" "+r.RequestURI)
	}
	return out
}
