package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// says runs seal and compares the exit code; all texts must be on stdout, or on stderr
// where they begin with "!".
func (e *env) says(code int, args []string, texts ...string) (stdout, stderr string) {
	e.t.Helper()
	out, errOut, got := e.run("", filepath.Join(e.bin, "seal"), args...)
	if testing.Verbose() {
		e.t.Logf("$ seal %s\n%s%s[%d]", strings.Join(args, " "), out, errOut, got)
	}
	bad := got != code
	for _, text := range texts {
		where := out
		if after, ok := strings.CutPrefix(text, "!"); ok {
			where, text = errOut, after
		}
		if !strings.Contains(where, text) {
			e.t.Errorf("seal %s: no %q", strings.Join(args, " "), text)
			bad = true
		}
	}
	if bad {
		e.t.Errorf("seal %s: exit code %d, want %d\nstdout:\n%sstderr:\n%s", strings.Join(args, " "), got, code, out, errOut)
	}
	return out, errOut
}

func words(s string) []string { return strings.Fields(s) }

func TestASyncIsSeenAndSteered(t *testing.T) {
	t.Parallel()
	e := newPublicEnv(t)
	agent := e.controller()
	sys := func(s string, more ...string) []string { return append(append(words(s), "-n", e.system), more...) }
	e.says(0, sys("get"), "!No Syncs found in "+e.system+" namespace.\n")
	e.says(0, sys("status"), "!No Syncs found in "+e.system+" namespace.\n")

	for _, name := range []string{"a", "b"} {
		e.repo.Write("apps/"+name+".yaml", configMap(e.app, name, "k", "v"))
	}
	first := e.repo.Commit("first \x1b[31mred")
	e.makeSync(e.system, "shop", hourly)
	e.says(0, sys("reconcile shop"), "sync/shop ready: applied main@sha1:"+first[:8]+` "first`)

	t.Log("get")
	out, _ := e.says(0, sys("get"))
	row := regexp.MustCompile(`(?m)^NAME +READY +STATUS +COMMIT +OBJECTS +AGE\nshop +True +applied main@sha1:` + first[:8] + ` +main@sha1:` + first[:8] + ` +2 +\d+s\n$`)
	if !row.MatchString(out) {
		t.Errorf("get:\n%s", out)
	}
	e.says(0, sys("get syncs shop -o wide"), "SUSPENDED   PATH   SOURCE", "false       apps   "+e.git.RepoURL("shop"), "1h\n")
	if out, _ := e.says(0, sys("get sync/shop -o name")); out != "sync.gitseal.io/shop\n" {
		t.Errorf("get -o name: %q", out)
	}
	var one struct {
		Kind     string
		Metadata map[string]any
		Items    []any
	}
	for args, kind := range map[string]string{"get shop -o json": "Sync", "get -o json": "List"} {
		one.Metadata = nil
		if out, _ := e.says(0, sys(args)); json.Unmarshal([]byte(out), &one) != nil || one.Kind != kind || one.Metadata["managedFields"] != nil {
			t.Errorf("%s: %s", args, out)
		}
	}
	e.says(0, sys("get shop -o yaml"), "kind: Sync\n", "handledReconcileAt: ")
	e.says(0, []string{"get", "-A", "-l", "made=by-test", "--no-headers"}, e.system+"   shop   True")
	e.says(0, sys("get -l made=by-nobody"), "!No Syncs found")
	e.says(0, []string{"get", "--kubeconfig", e.cp.ImpersonatingKubeconfig(t, "", e.system)}, "shop   True")

	t.Log("status, and where this clone stands")
	e.kubectl(strings.Replace(configMap(e.app, "copy", "k", "v"), "{name", "{labels: {gitseal.io/sync: "+e.system+".shop}, name", 1), "create", "-f", "-") // as controllers do
	out, _ = e.says(0, sys("status"), "sync/shop in namespace "+e.system, "True ReconciliationSucceeded: applied main@sha1:"+first[:8], ", branch main, path apps, every 1h",
		`"first  [31mred" by Gitseal Test`, "History", "2 created", "Objects: 2 in git\n", "Synced   ConfigMap/"+e.app+"/a\n    Synced   ConfigMap/"+e.app+"/b\n",
		"Local HEAD   "+first[:8]+` "first`, "the applied commit\n")
	if strings.Contains(out, "/copy") || strings.Contains(out, "not among") || strings.Contains(out, "\x1b") {
		t.Errorf("status:\n%s", out)
	}
	e.repo.Git("commit", "-q", "--allow-empty", "-m", "mine")
	e.says(0, sys("status"), `"mine": ahead of the applied commit`)
	e.repo.Git("checkout", "-q", "--orphan", "other")
	e.repo.Git("commit", "-q", "-m", "apart")
	e.says(0, sys("status"), `"apart": neither before nor after`)
	e.repo.Git("checkout", "-q", "-f", harness.MainBranch)
	e.repo.Git("reset", "-q", "--hard", first)
	elsewhere := *e
	elsewhere.repo = harness.NewRepo(t, t.TempDir(), "elsewhere")
	elsewhere.repo.Commit("not this one")
	if out, _ := elsewhere.says(0, sys("status")); strings.Contains(out, "Local") {
		t.Errorf("status in another repository:\n%s", out)
	}
	elsewhere.repo.Git("remote", "set-url", "origin", e.git.RepoURL("shop"))
	elsewhere.says(0, sys("status"), `"not this one": this clone does not have the applied commit; git fetch`)

	t.Log("a commit with failures, at an interval of an hour")
	e.repo.Write("apps/plain.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: plain, namespace: "+e.app+"}\nstringData: {password: status-canary}\n")
	e.repo.Write("apps/b.yaml", configMap(e.app, "b", "bad key", "v"))
	second := e.repo.Commit("second")
	e.says(1, sys("reconcile sync/shop"), "sync/shop not ready: PlaintextSecretDenied: 2 failures\n", "gate  PlaintextSecret  Secret/"+e.app+"/plain\n    data.password: PlaintextSecret: ",
		"apply  ApplyFailed  ConfigMap/"+e.app+"/b\n    the API server refused it: Invalid (422)", "!error: sync/shop is not ready\n")
	e.says(0, sys("get"), "shop   False   Secret/"+e.app+"/plain", "…   main@sha1:"+first[:8])
	e.says(1, sys("status shop"), "Attempted    main@sha1:"+second[:8]+` "second"`, "Applied      main@sha1:"+first[:8], "Reconciling  True ProgressingWithRetry: it is tried again", "3 in git, 2 failed",
		"Synced    ConfigMap/"+e.app+"/a\n", "Failed    ConfigMap/"+e.app+"/b    ApplyFailed\n", "Missing   Secret/"+e.app+"/plain   PlaintextSecret\n", "Local HEAD   "+second[:8], "ahead of the applied")
	out, _ = e.says(1, sys("status -o json"))
	var reports []struct {
		Name, Ready, Reason string
		Objects             []struct{ Object, State, Reason string }
		Failures            []any
		Local               struct{ Relation string }
	}
	if err := json.Unmarshal([]byte(out), &reports); err != nil || len(reports) != 1 || reports[0].Ready != "False" || len(reports[0].Objects) != 3 || reports[0].Objects[2].State != "Missing" ||
		len(reports[0].Failures) != 2 || reports[0].Local.Relation != "ahead" {
		t.Errorf("%v: %s", err, out)
	}
	out, _ = e.says(1, sys("reconcile shop -o json"))
	var outcomes []struct {
		Sync, Ready, Revision string
		Failures              []any
	}
	if err := json.Unmarshal([]byte(out), &outcomes); err != nil || len(outcomes) != 1 || outcomes[0].Sync != e.system+"/shop" || outcomes[0].Ready != "False" || len(outcomes[0].Failures) != 2 {
		t.Errorf("%v: %s", err, out)
	}
	if strings.Contains(agent.log()+out, "status-canary") {
		t.Error("a value was printed")
	}

	t.Log("an object that a finalizer holds, and one behind")
	if _, err := e.client.CoreV1().ConfigMaps(e.app).Patch(t.Context(), "b", types.MergePatchType, []byte(`{"metadata":{"finalizers":["test/hold"]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	e.repo.Remove("apps/plain.yaml")
	e.repo.Remove("apps/b.yaml")
	third := e.repo.Commit("third")
	mark := e.cp.Mark()
	e.says(0, sys("reconcile shop"), "ready: applied main@sha1:"+third[:8])
	requests := e.requestsForSyncs(mark)
	if slices.Sort(requests); fmt.Sprint(requests) != "[get list patch watch]" {
		t.Errorf("reconcile asked %v, want one of each: it must watch, not poll", requests)
	}
	e.repo.Git("reset", "-q", "--hard", first)
	e.says(0, sys("status"), "behind the applied commit; git pull", "1 in git, 1 pruned and held by a finalizer", "Terminating   ConfigMap/"+e.app+"/b\n")
	e.repo.Git("reset", "-q", "--hard", third)
	e.kubectl("", "patch", "configmap", "b", "-n", e.app, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)

	t.Log("suspend and resume")
	e.says(0, sys("suspend shop"), "sync/shop suspended\n")
	e.says(0, sys("suspend shop"), "sync/shop already suspended\n")
	e.says(0, sys("suspend --all -o json"), `"sync": "`+e.system+`/shop",`, `"suspended": true,`, `"changed": false`)
	e.says(2, sys("reconcile shop"), "!error: sync/shop is suspended\nhint: seal resume shop -n "+e.system+"\n")
	e.says(0, sys("reconcile --all"), "!sync/shop is suspended and left alone\n")
	e.says(0, sys("get"), "suspended; applied main@sha1:")
	e.says(0, sys("status"), "nothing is looked at, changed or corrected; seal resume shop")
	e.repo.Write("apps/a.yaml", configMap(e.app, "a", "k", "new"))
	fourth := e.repo.Commit("fourth")
	e.says(0, sys("resume shop --wait"), "sync/shop resumed\nsync/shop ready: applied main@sha1:"+fourth[:8])
	e.says(0, sys("resume shop"), "sync/shop not suspended\n")
	e.says(0, sys("resume --all --wait -o json"), `"ready": "True"`, `"revision": "main@sha1:`+fourth)
	if err := e.configMapValue(t.Context(), "a", "k", "new"); err != nil {
		t.Error(err)
	}

	t.Log("watch")
	stop, seen := e.watching("get", "shop", "-w", "-n", e.system)
	e.eventually("the first row", func(context.Context) error { return contains(seen(), "NAME   READY", fourth[:8]) })
	e.says(0, sys("suspend shop"))
	e.eventually("a row for the change", func(context.Context) error { return contains(seen(), "suspended; applied") })
	if code := stop(); code != 0 || strings.Count(seen(), "NAME") != 1 {
		t.Errorf("exit code %d:\n%s", code, seen())
	}

	t.Log("deleted while somebody waits")
	e.says(0, sys("resume shop --wait"))
	agent.stop()
	stop, seen = e.watching("reconcile", "shop", "-n", e.system)
	e.eventually("it is asked for", func(context.Context) error {
		return contains(e.kubectl("", "get", "sync", "shop", "-n", e.system, "-o", "jsonpath={.metadata.annotations}"), time.Now().UTC().Format("2006-01-02T"))
	})
	e.kubectl("", "delete", "sync", "shop", "-n", e.system, "--wait=false")
	e.eventually("it ends", func(context.Context) error { return contains(seen(), "error: sync/shop is deleted") })
	if code := stop(); code != 2 {
		t.Errorf("exit code %d", code)
	}
}

func contains(s string, texts ...string) error {
	for _, text := range texts {
		if !strings.Contains(s, text) {
			return fmt.Errorf("no %q in\n%s", text, s)
		}
	}
	return nil
}

// watching runs seal until it is stopped, which gives its exit code.
func (e *env) watching(args ...string) (stop func() int, seen func() string) {
	e.t.Helper()
	var log harness.Log
	cmd := exec.Command(filepath.Join(e.bin, "seal"), args...)
	cmd.Env = append(harness.GitEnv(), "HOME="+e.home, "KUBECONFIG="+e.cp.Kubeconfig)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	stop = func() int {
		_ = cmd.Process.Signal(os.Interrupt) // it may have ended
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return -1
		}
		return cmd.ProcessState.ExitCode()
	}
	e.t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended, as a rule
	return stop, log.String
}

// requestsForSyncs are the verbs by which seal asked for Syncs.
func (e *env) requestsForSyncs(since harness.Mark) []string {
	e.t.Helper()
	ev, err := e.cp.Requests(e.t.Context(), since, func(ev harness.AuditEvent) bool {
		return strings.HasPrefix(ev.UserAgent, "gitseal-seal/") && strings.Contains(ev.RequestURI, "/namespaces/"+e.system+"/syncs")
	})
	if err != nil {
		e.t.Fatal(err)
	}
	var out []string
	for _, r := range ev {
		if !slices.Contains(out, r.Verb) || r.Verb != "watch" { // a watch is logged at its begin and end
			out = append(out, r.Verb)
		}
	}
	return out
}

const watcherRole = `apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: watcher, namespace: NS}
rules:
- {apiGroups: [gitseal.io], resources: [syncs], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [configmaps], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: watcher, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: watcher}
subjects: [{kind: User, name: NS-watcher}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: deployer, namespace: NS}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: deployer, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: deployer, namespace: NS}]
`

func TestATenantSeesWhatHeMayOfHisSync(t *testing.T) {
	t.Parallel()
	e := newPublicEnv(t)
	e.controller()
	e.kubectl(strings.ReplaceAll(watcherRole, "NS", e.app), "create", "-f", "-")
	e.repo.Write("apps/a.yaml", configMap(e.app, "a", "k", "v"))
	e.repo.Write("apps/account.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: robot}\n")
	e.repo.Commit("first")
	e.makeSync(e.app, "shop", hourly+"  serviceAccountName: deployer\n  wait: true\n")
	e.says(0, words("reconcile shop -n "+e.app), "sync/shop ready: applied main@sha1:")
	his := e.cp.ImpersonatingKubeconfig(t, e.app+"-watcher", e.app)
	out, _ := e.says(0, []string{"status", "--kubeconfig", his}, "Synced   ConfigMap/"+e.app+"/a", "(you may not list ", "ServiceAccount", "(1 of 2 objects of git are not among them)", "those of other namespaces were not looked for")
	if strings.Contains(out, "robot") {
		t.Errorf("status:\n%s", out)
	}
	e.says(0, []string{"status", "--kubeconfig", his, "-o", "json"}, `"notListed": [`, `"ServiceAccount"`)
	e.says(3, []string{"reconcile", "shop", "--kubeconfig", his}, "!forbidden")
	e.says(3, []string{"suspend", "shop", "--kubeconfig", his}, "!forbidden")
	e.says(3, []string{"get", "-A", "--kubeconfig", his}, "!forbidden")
	e.says(0, []string{"get", "--kubeconfig", his}, "shop   True")
}

func TestSyncCommandsWithWrongInput(t *testing.T) {
	t.Parallel()
	e := newPublicEnv(t)
	e.repo.Write("apps/a.yaml", configMap(e.app, "a", "k", "v"))
	e.repo.Commit("first")
	e.makeSync(e.system, "shop", hourly)
	e.makeSync(e.system, "blog", hourly+"  drift: Report\n")
	bare, nobody := e.cp.ImpersonatingKubeconfig(t, "", "nothing-here"), e.cp.ImpersonatingKubeconfig(t, "nobody", "")
	for name, c := range map[string]struct {
		args  string
		code  int
		texts []string
	}{
		"no agent, and it waits":       {"reconcile shop --timeout 300ms", 4, []string{"!no result of sync/shop within 300ms: Ready is Unknown: no agent has looked at it yet", "!hint: is an agent running that keeps the Syncs of namespace " + e.system}},
		"no agent, and it does not":    {"reconcile shop --no-wait", 0, []string{"sync/shop asked to reconcile\n"}},
		"no agent, as JSON":            {"reconcile blog --no-wait -o json", 0, []string{`"ready": "Unknown"`}},
		"no agent, resume":             {"resume blog --wait --timeout 300ms", 4, []string{"sync/blog not suspended\n", "!no result of sync/blog"}},
		"no agent, status":             {"status shop", 1, []string{"Ready        Unknown: no agent has looked at it yet\n", "Applied      nothing yet", "!error: sync/shop is not ready"}},
		"no agent, status of all":      {"status", 1, []string{"sync/blog in", "\n  Drift        is not corrected", "\n\nsync/shop in", "!error: 2 of 2 Syncs are not ready"}},
		"no agent, get":                {"get", 0, []string{"blog   Unknown   no agent has looked at it yet", "\nshop   Unknown"}},
		"a name with a typing error":   {"reconcile shpo", 2, []string{"!error: sync/shpo not found in namespace " + e.system, "!hint: did you mean shop?"}},
		"a name like no other":         {"status frontend", 2, []string{"!hint: in namespace " + e.system + " there are: blog, shop"}},
		"a name in an empty namespace": {"get shop --kubeconfig " + bare + " -n nothing-here", 2, []string{"!hint: namespace nothing-here has no Syncs; `seal get -A`"}},
		"one of two is missing":        {"get shop nope", 2, []string{"shop   Unknown", "!sync/nope not found"}},
		"nothing done if one misses":   {"suspend shop nope", 2, []string{"!sync/nope not found"}},
		"another kind":                 {"get pods/web", 2, []string{`!"pods/web" is no Sync: say NAME or sync/NAME`}},
		"no name at all":               {"suspend", 2, []string{"!say the NAME of a Sync, or --all"}},
		"names and all":                {"resume shop --all", 2, []string{"!--all goes without names"}},
		"a name in all namespaces":     {"get shop -A", 2, []string{"!leave out --all-namespaces"}},
		"not a name":                   {"status Shop", 2, []string{`!"Shop" can not be the name of a Sync`}},
		"an unknown output":            {"get -o table", 2, []string{`!output "table" is none of json, yaml, wide, name`}},
		"an output of another command": {"reconcile shop -o wide", 2, []string{`!output "wide" is none of json, yaml`}},
		"a context that is not there":  {"get --context nowhere", 2, []string{`!context "nowhere" does not exist`}},
		"watch with a timeout":         {"get -w --timeout 500ms", 4, []string{"shop   Unknown", "!error: the 500ms of --timeout are over"}},
	} {
		t.Run(name, func(t *testing.T) {
			inner := *e
			inner.t = t
			args := words(c.args)
			if !slices.Contains(args, "-n") {
				args = append(args, "-n", e.system)
			}
			inner.says(c.code, args, c.texts...)
		})
	}
	if out := e.kubectl("", "get", "syncs", "-n", e.system, "-o", "jsonpath={.items[*].spec.suspend}"); strings.Contains(out, "true") {
		t.Error("a Sync was suspended although another one was not found")
	}
	e.says(3, []string{"get", "-n", e.system, "--kubeconfig", nobody}, "!forbidden")
	e.says(3, []string{"status", "shop", "-n", e.system, "--kubeconfig", nobody}, "!forbidden")

	t.Log("shell completion")
	for _, verb := range []string{"get", "status", "reconcile", "suspend", "resume"} {
		if out, _ := e.says(0, []string{"__complete", verb, "-n", e.system, ""}); !strings.HasPrefix(out, "blog\nshop\n:4\n") {
			t.Errorf("%s completes %q", verb, out)
		}
		if out, _ := e.says(0, []string{"__complete", verb, "-n", e.system, "shop", ""}); !strings.HasPrefix(out, "blog\n:4\n") {
			t.Errorf("%s completes %q after shop", verb, out)
		}
		if out, _ := e.says(0, []string{"__complete", verb, "--kubeconfig", "/no/such/file", ""}); out != ":4\n" {
			t.Errorf("%s completes %q without a cluster", verb, out)
		}
	}
	e.says(0, []string{"__complete", "get", "-n", e.app[:4]}, e.app+"\n")

	t.Log("a cluster without the CRD")
	other := harness.NewControlPlane(t)
	for _, verb := range []string{"get", "status", "reconcile shop", "get -w"} {
		e.says(2, append(words(verb), "--kubeconfig", other.Kubeconfig), "!error: the cluster knows no Syncs (gitseal.io/v1alpha1)\nhint: gitseal's CRD is missing")
	}

	t.Log("an outage of the API server, while somebody watches")
	other.InstallSyncs(t)
	there := *e
	there.cp, there.system = other, "default"
	there.makeSync("default", "before", hourly)
	stop, seen := there.watching("get", "-w")
	e.eventually("the first row", func(context.Context) error { return contains(seen(), "before") })
	if err := errors.Join(other.StopAPIServer(t.Context()), other.StartAPIServer(t.Context())); err != nil {
		t.Fatal(err)
	}
	there.makeSync("default", "after", hourly)
	e.eventually("a row after it", func(context.Context) error { return contains(seen(), "after") })
	if code := stop(); code != 0 || strings.Count(seen(), "before") != 1 || strings.Contains(seen(), "error") {
		t.Errorf("exit code %d:\n%s", code, seen())
	}
	other.Stop()
	e.says(2, []string{"get", "--kubeconfig", other.Kubeconfig}, "!error: ")
	gone := filepath.Join(e.home, "gone")
	cfg := bytes.ReplaceAll(must(os.ReadFile(e.cp.Kubeconfig)), []byte(e.cp.Server), []byte("https://127.0.0.1:1"))
	if err := os.WriteFile(gone, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"get", "get -w", "status", "reconcile shop"} {
		e.says(2, append(words(verb), "--kubeconfig", gone), "!connection refused")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
