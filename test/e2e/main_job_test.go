package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

// deployment uses the three Secrets of the main job.
func deployment(ns string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: %s}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: nginx:1.29
          envFrom: [{secretRef: {name: app-env}}]
          env: [{name: P, valueFrom: {secretKeyRef: {name: db, key: password}}}]
`, ns)
}

// writeMainJob makes the tree of the main job with the given password.
func (e *env) writeMainJob(password string) {
	e.t.Helper()
	if _, err := os.Stat(filepath.Join(e.repo.Work, "apps/begin.yaml")); err == nil {
		e.repo.Remove("apps/begin.yaml")
	}
	e.repo.Write("apps/kustomization.yaml", fmt.Sprintf(`resources: [settings.yaml, extra.yaml, web.yaml, db.yaml, api.yaml]
secretGenerator:
  - name: app-env
    namespace: %s
    envs: [app.env]
`, e.app))
	e.repo.Write("apps/settings.yaml", configMap(e.app, "settings", "greeting", "hello"))
	e.repo.Write("apps/extra.yaml", configMap(e.app, "extra", "a", "b"))
	e.repo.Write("apps/web.yaml", deployment(e.app))
	e.sealSecret("apps/db.yaml", "db", "password", password)
	e.repo.Write("apps/app.env", e.seal("DSN=postgres://x\\ny\nQUOTED=\" a \"\n", "encrypt", "--for", e.app+"/app-env", "--filename", "apps/app.env", "-"))
	e.seal("token-value", "secret", "generic", "api", "-n", e.app, "--from-file", "token=-", "--format", "sealedsecret", "-w", "apps/api.yaml")
}

func TestTheMainJob(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	e.writeMainJob("first-password")
	e.repo.Commit("add everything")
	a := e.start()

	e.eventually("everything is there", func(ctx context.Context) error {
		if err := e.secret(ctx, "db", "password", "first-password"); err != nil {
			return err
		}
		if err := e.secret(ctx, "api", "token", "token-value"); err != nil {
			return err
		}
		d, err := e.client.AppsV1().Deployments(e.app).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		name := d.Spec.Template.Spec.Containers[0].EnvFrom[0].SecretRef.Name
		if !strings.HasPrefix(name, "app-env-") {
			return fmt.Errorf("the Deployment refers to %q", name)
		}
		// As stock sops and kustomize give it: \n stays two characters.
		return errors.Join(e.secret(ctx, name, "DSN", `postgres://x\ny`), e.secret(ctx, name, "QUOTED", `" a "`))
	})
	for _, what := range []string{"db", "api"} {
		s, err := e.client.CoreV1().Secrets(e.app).Get(t.Context(), what, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Annotations) != 0 {
			t.Errorf("Secret %s has annotations %v; the binding and last-applied must not be there", what, s.Annotations)
		}
	}

	t.Log("one value changes, one manifest goes")
	e.sealSecret("apps/db.yaml", "db", "password", "second-password")
	e.repo.Remove("apps/extra.yaml")
	e.replace("apps/kustomization.yaml", " extra.yaml,", "")
	e.repo.Commit("change and remove")
	e.eventually("the change is there", func(ctx context.Context) error {
		if err := e.secret(ctx, "db", "password", "second-password"); err != nil {
			return err
		}
		_, err := e.client.CoreV1().ConfigMaps(e.app).Get(ctx, "extra", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("ConfigMap extra: got %v, want not found", err)
		}
		return nil
	})

	t.Log("hand edits are put back")
	for name, edit := range map[string]func(ctx context.Context) error{
		"a changed value": func(ctx context.Context) error {
			_, err := e.client.CoreV1().ConfigMaps(e.app).Patch(ctx, "settings", types.MergePatchType, []byte(`{"data":{"greeting":"edited"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
			return err
		},
		"a changed Secret": func(ctx context.Context) error {
			_, err := e.client.CoreV1().Secrets(e.app).Patch(ctx, "db", types.MergePatchType, []byte(`{"stringData":{"password":"edited"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
			return err
		},
		"a deleted Secret": func(ctx context.Context) error {
			return e.client.CoreV1().Secrets(e.app).Delete(ctx, "api", metav1.DeleteOptions{})
		},
		"a removed label": func(ctx context.Context) error {
			_, err := e.client.CoreV1().ConfigMaps(e.app).Patch(ctx, "settings", types.MergePatchType, []byte(`{"metadata":{"labels":{"gitseal.io/sync":null}}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
			return err
		},
	} {
		if err := edit(t.Context()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e.eventually(name+" is put back", func(ctx context.Context) error {
			cm, err := e.client.CoreV1().ConfigMaps(e.app).Get(ctx, "settings", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if cm.Labels["gitseal.io/sync"] == "" {
				return errors.New("the label is missing")
			}
			return errors.Join(e.configMapValue(ctx, "settings", "greeting", "hello"), e.secret(ctx, "db", "password", "second-password"), e.secret(ctx, "api", "token", "token-value"))
		})
	}

	t.Log("an idle agent asks nothing about objects")
	e.quiet(a)
	mark := e.cp.Mark()
	time.Sleep(4 * time.Second) // four looks at git
	for _, r := range e.agentRequests(mark) {
		if r.Resource != "leases" {
			t.Errorf("an idle agent sent %s %s", r.Verb, r.RequestURI)
		}
	}

	t.Log("a restart changes nothing")
	a.stop()
	mark = e.cp.Mark()
	a = e.start("--log-level", "debug")
	e.logSays(a, "msg=pass")
	e.quiet(a)
	for _, r := range e.agentRequests(mark) {
		if r.Verb == "patch" || r.Verb == "delete" {
			t.Errorf("after a restart the agent sent %s %s", r.Verb, r.RequestURI)
		}
	}

	t.Log("drift that happened while no agent ran is repaired at the start")
	a.stop()
	if _, err := e.client.CoreV1().ConfigMaps(e.app).Patch(t.Context(), "settings", types.MergePatchType, []byte(`{"data":{"greeting":"edited"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"}); err != nil {
		t.Fatal(err)
	}
	e.start()
	e.eventually("the edit is put back", func(ctx context.Context) error {
		return e.configMapValue(ctx, "settings", "greeting", "hello")
	})

	t.Log("no value is in the history")
	for _, v := range []string{"first-password", "second-password", "token-value", "postgres://x"} {
		out, err := gitGrep(e, v)
		if err == nil || out != "" {
			t.Errorf("%q is in the history: %s", v, out)
		}
	}
}

func gitGrep(e *env, text string) (string, error) {
	cmd := exec.Command("git", append([]string{"grep", "-F", "-e", text}, strings.Fields(e.repo.Git("rev-list", "--all"))...)...)
	cmd.Dir, cmd.Env = e.repo.Work, harness.GitEnv()
	out, err := cmd.Output()
	return string(out), err
}

// replace edits a file of the work tree, which must hold old.
func (e *env) replace(file, old, new string) {
	e.t.Helper()
	b, err := os.ReadFile(filepath.Join(e.repo.Work, file))
	if err != nil {
		e.t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		e.t.Fatalf("%s does not hold %q:\n%s", file, old, b)
	}
	e.repo.Write(file, strings.Replace(string(b), old, new, 1))
}

// agentRequests lists what agents of this env asked of the API server. Other
// tests share the server: requests are ours by namespace, or by the selector
// that watches carry.
func (e *env) agentRequests(since harness.Mark) []harness.AuditEvent {
	e.t.Helper()
	events, err := e.cp.Requests(e.t.Context(), since, func(r harness.AuditEvent) bool {
		if !strings.HasPrefix(r.UserAgent, "gitseal-agent/") {
			return false
		}
		return r.Namespace == e.system || r.Namespace == e.app || strings.Contains(r.RequestURI, e.system)
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return events
}

// quiet waits until the agent has sent nothing but lease updates for a second.
func (e *env) quiet(*agent) {
	e.t.Helper()
	e.eventually("the agent is quiet", func(context.Context) error {
		mark := e.cp.Mark()
		time.Sleep(time.Second)
		for _, r := range e.agentRequests(mark) {
			if r.Resource != "leases" {
				return fmt.Errorf("%s %s", r.Verb, r.RequestURI)
			}
		}
		return nil
	})
}

func TestOnceReportsAndExits(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	e.writeMainJob("pw")
	e.repo.Commit("add everything")
	type report struct {
		Ready                                                  bool
		Objects, Created, Changed, Pruned, Unchanged, Requests int
	}
	get := func() report {
		t.Helper()
		var r report
		if err := json.Unmarshal([]byte(e.mustOnce("-o", "json")), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if got, want := get(), (report{Ready: true, Objects: 6, Created: 6, Pruned: 1, Requests: 8}); got != want {
		t.Errorf("first: got %+v, want %+v", got, want)
	}
	if got, want := get(), (report{Ready: true, Objects: 6, Unchanged: 6}); got != want {
		t.Errorf("nothing changed: got %+v, want %+v", got, want)
	}
	t.Log("sealing the same values again changes nothing in the cluster")
	before := e.resourceVersions()
	e.writeMainJob("pw")
	e.repo.Commit("seal again")
	if got, want := get(), (report{Ready: true, Objects: 6, Unchanged: 6}); got != want { // the SealedSecret is opened and found equal
		t.Errorf("sealed again: got %+v, want %+v", got, want)
	}
	if after := e.resourceVersions(); after != before {
		t.Errorf("objects were written: %s, before %s", after, before)
	}
}

func (e *env) resourceVersions() string {
	e.t.Helper()
	l, err := e.client.CoreV1().Secrets(e.app).List(e.t.Context(), metav1.ListOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	var out []string
	for _, s := range l.Items {
		out = append(out, s.Name+"="+s.ResourceVersion)
	}
	return strings.Join(out, " ")
}

func TestASecondAgentOfTheSameNameWaits(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	first := e.start("--log-level", "debug")
	e.logSays(first, "msg=pass")
	second := e.start()
	e.logSays(second, "waiting: another agent holds the lease")
	e.repo.Write("apps/two.yaml", configMap(e.app, "two", "a", "b"))
	e.repo.Commit("two")
	e.eventually("the first applies", func(ctx context.Context) error { return e.configMapValue(ctx, "two", "a", "b") })
	if strings.Contains(second.log(), "msg=applied") {
		t.Errorf("the second agent applied too:\n%s", second.log())
	}
	first.stop()
	e.repo.Write("apps/three.yaml", configMap(e.app, "three", "a", "b"))
	e.repo.Commit("three")
	e.eventually("the second takes over", func(ctx context.Context) error { return e.configMapValue(ctx, "three", "a", "b") })
}
