package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// canary is a value that must be found nowhere but in Secrets.
func canary(t *testing.T) string {
	t.Helper()
	b := make([]byte, 15)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return "canary/" + base64.RawStdEncoding.EncodeToString(b) + "&?"
}

// disguises are the forms in which a value could show.
func disguises(value string) map[string]string {
	out := map[string]string{
		"raw": value, "hex": hex.EncodeToString([]byte(value)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(value))),
		"url query": url.QueryEscape(value), "url path": url.PathEscape(value),
		"bytes": strings.Trim(fmt.Sprint([]byte(value)), "[]"),
	}
	quoted, _ := json.Marshal(value) // a string always encodes
	out["json"] = strings.Trim(string(quoted), `"`)
	twice, _ := json.Marshal(out["json"]) // and so does this one
	out["json in json"] = strings.Trim(string(twice), `"`)
	for shift := range 3 {
		once := inBase64(value, shift)
		out[fmt.Sprintf("base64 at %d", shift)] = once
		for again := range 3 { // the body of a Secret, encoded
			out[fmt.Sprintf("base64 at %d, again at %d", shift, again)] = inBase64(once, again)
		}
	}
	return out
}

// inBase64 is what a text looks like inside base64 of something longer, less what
// its neighbours change.
func inBase64(text string, shift int) string {
	b := strings.TrimRight(base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...)), "=")
	return b[[]int{0, 2, 3}[shift] : len(b)-2]
}

type haystack struct {
	name string
	text []byte
}

// search says which of the values show, in any disguise, in what was left
// somewhere. allowed may be nil; it says where a value is at home.
func search(values map[string]string, where []haystack, allowed func(value, place string) bool) []string {
	forms := map[string]map[string]string{}
	for name, value := range values {
		forms[name] = disguises(value)
		forms[name]["upper case"] = strings.ToUpper(value)
	}
	var found []string
	for _, h := range where {
		for _, text := range []string{string(h.text), harness.Undump(string(h.text))} {
			for name, needles := range forms {
				if text == "" || allowed != nil && allowed(name, h.name) {
					continue
				}
				for form, needle := range needles {
					if strings.Contains(text, needle) {
						found = append(found, fmt.Sprintf("%s (%.40q) shows, as %s, in: %s", name, values[name], form, h.name))
					}
				}
			}
		}
	}
	return found
}

// etcd returns everything that the API server stores, but Secrets.
func (e *env) etcd() []haystack {
	e.t.Helper()
	body := strings.NewReader(`{"key":"AA==","range_end":"AA=="}`) // all keys
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, e.cp.Etcd+"/v3/kv/range", body)
	if err != nil {
		e.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Kvs []struct{ Key, Value []byte }
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		e.t.Fatal(err)
	}
	var out []haystack
	for _, kv := range got.Kvs {
		if !strings.HasPrefix(string(kv.Key), "/registry/secrets/") {
			out = append(out, haystack{"etcd " + string(kv.Key), kv.Value})
		}
	}
	if len(out) < 100 {
		e.t.Fatalf("etcd holds only %d entries: the search is not looking at the right place", len(out))
	}
	return out
}

// inventory returns the agent's own state, unpacked.
func (e *env) inventory() []haystack {
	e.t.Helper()
	l, err := e.client.CoreV1().Secrets(e.system).List(e.t.Context(), metav1.ListOptions{LabelSelector: "gitseal.io/inventory"})
	if err != nil || len(l.Items) == 0 {
		e.t.Fatalf("no inventory: %v", err)
	}
	var out []haystack
	for _, s := range l.Items {
		zr, err := gzip.NewReader(bytes.NewReader(s.Data["inventory.json.gz"]))
		if err != nil {
			e.t.Fatal(err)
		}
		b, err := io.ReadAll(zr)
		if err != nil {
			e.t.Fatal(err)
		}
		out = append(out, haystack{"inventory " + s.Name, b})
	}
	return out
}

// filesBelow returns every file of a folder.
func (e *env) filesBelow(dir string) []haystack {
	e.t.Helper()
	var out []haystack
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		out = append(out, haystack{p, b})
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return out
}

// repository is what lies in git, and ever did.
func (e *env) repository() []haystack {
	e.t.Helper()
	return append(e.filesBelow(e.repo.Work), haystack{"history", []byte(e.repo.Git("log", "-p", "--all", "--text"))})
}

// echoPolicy makes the API server refuse a Secret, or warn of it, with a text
// that shows its values, as webhooks and policies in the field do.
func (e *env) echoPolicy(ctx context.Context, name, expression string, action admissionv1.ValidationAction) {
	e.t.Helper()
	name += "-" + e.app
	fail := admissionv1.Fail
	policies, bindings := e.client.AdmissionregistrationV1().ValidatingAdmissionPolicies(), e.client.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err := policies.Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			FailurePolicy: &fail,
			MatchConstraints: &admissionv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": e.app}},
				ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				}}},
			},
			Validations: []admissionv1.Validation{{
				Expression:        expression,
				MessageExpression: "'I do not like ' + string(object.data['password'])",
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		ctx := context.Background() // the test's own has ended
		_ = policies.Delete(ctx, name, metav1.DeleteOptions{})
		_ = bindings.Delete(ctx, name, metav1.DeleteOptions{})
	})
	if _, err := bindings.Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: name, ValidationActions: []admissionv1.ValidationAction{action}},
	}, metav1.CreateOptions{}); err != nil {
		e.t.Fatal(err)
	}
}

// TestNoValueIsAnywhereButInSecrets plants random values, takes the agent at its
// most talkative through the main job and through failures, and searches
// everything that it could have left them in.
func TestNoValueIsAnywhereButInSecrets(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	values := map[string]string{}
	for _, name := range []string{"sops", "dotenv", "sealedsecret", "changed", "refused", "tampered", "leaking"} {
		values[name] = canary(t)
	}
	e.echoPolicy(t.Context(), "deny", "object.metadata.name != 'refused'", admissionv1.Deny)
	e.echoPolicy(t.Context(), "warn", "object.metadata.name != 'db'", admissionv1.Warn)
	e.writeMainJob(values["sops"])
	e.repo.Write("apps/app.env", e.seal("DSN="+values["dotenv"]+"\n", "encrypt", "--for", e.app+"/app-env", "--filename", "apps/app.env", "-"))
	e.seal(values["sealedsecret"], "secret", "generic", "api", "-n", e.app, "--from-file", "token=-", "--format", "sealedsecret", "-w", "apps/api.yaml")
	e.repo.Commit("everything")
	// The repository's password from a Secret: it too goes through the client.
	git := secretObject("git-credentials", map[string][]byte{"username": []byte(gitUser), "password": []byte(gitPassword)})
	if _, err := e.client.CoreV1().Secrets(e.system).Create(t.Context(), git, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	a := e.startArgs("sync", "--kubeconfig", e.cp.Kubeconfig, "--url", e.git.RepoURL("shop"), "--path", "apps", "--namespace", e.system, "-n", e.app,
		"--interval", "1s", "--git-secret", "git-credentials", "--log-level", "debug", "-v", "10")
	e.eventually("everything is there", func(ctx context.Context) error {
		return errors.Join(e.secret(ctx, "db", "password", values["sops"]), e.secret(ctx, "api", "token", values["sealedsecret"]))
	})
	if !strings.Contains(a.log(), "curl -v -XGET") {
		t.Fatal("the log does not show requests: it is not as verbose as this test needs")
	}

	t.Log("a change, a prune, a hand edit")
	e.sealSecret("apps/db.yaml", "db", "password", values["changed"])
	e.repo.Remove("apps/extra.yaml")
	e.replace("apps/kustomization.yaml", " extra.yaml,", "")
	e.repo.Commit("change")
	e.eventually("the change is there", func(ctx context.Context) error { return e.secret(ctx, "db", "password", values["changed"]) })
	if err := e.client.CoreV1().Secrets(e.app).Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("the Secret is back", func(ctx context.Context) error { return e.secret(ctx, "db", "password", values["changed"]) })

	fail := func(name, says string, change func()) {
		t.Helper()
		t.Log(name)
		before := len(a.log())
		base := e.repo.Head()
		change()
		e.repo.Commit(name)
		e.eventually("the log names it", func(context.Context) error {
			if !strings.Contains(a.log()[before:], says) {
				return fmt.Errorf("no %q in it", says)
			}
			return nil
		})
		e.repo.Git("reset", "-q", "--hard", base)
		e.repo.Git("commit", "-q", "--allow-empty", "-m", "put right")
		e.repo.Git("push", "-q", "-f", "origin", "HEAD")
	}
	fail("the API server refuses a Secret, and shows its value", "Secret/"+e.app+"/refused: the API server refused it", func() {
		e.sealSecret("apps/refused.yaml", "refused", "password", values["refused"])
		e.replace("apps/kustomization.yaml", " db.yaml,", " db.yaml, refused.yaml,")
	})
	fail("a value is tampered with", "was changed or moved", func() {
		e.sealSecret("apps/db.yaml", "db", "password", values["tampered"])
		e.replace("apps/db.yaml", "password: ENC[AES256_GCM,data:", "password: ENC[AES256_GCM,data:AAAA")
	})
	fail("a sealed value would go into a ConfigMap", "PlaceholderOutsideSecret", func() {
		e.replace("apps/kustomization.yaml", "secretGenerator:", "configMapGenerator: [{name: leak, namespace: "+e.app+", files: [app.env]}]\nsecretGenerator:")
	})
	fail("a sealed value would go into a Deployment", "PlaceholderOutsideSecret", func() {
		e.repo.Write("apps/kustomization.yaml", e.read("apps/kustomization.yaml")+`replacements:
  - source: {kind: Secret, name: db, fieldPath: stringData.password}
    targets: [{select: {kind: Deployment}, fieldPaths: [spec.template.spec.containers.0.image]}]
`)
	})
	fail("a sealed value is not base64 where it must be", "is not base64 once", func() {
		e.repo.Write("apps/db.yaml", e.seal("apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: "+e.app+"}\ndata: {password: '"+values["leaking"]+"'}\n", "encrypt", "--filename", "apps/db.yaml", "-"))
	})
	fail("the wrong scope", "sealed with scope strict", func() {
		e.replace("apps/api.yaml", "  name: api", "  annotations: {sealedsecrets.bitnami.com/cluster-wide: \"true\"}\n  name: api")
	})

	where := append(e.etcd(), e.inventory()...)
	if !strings.Contains(harness.Undump(a.log()), "PartialObjectMetadata") {
		t.Error("the log holds no hexdump of a body: the search for values in them proves nothing")
	}
	where = append(where, haystack{"log of the agent", []byte(a.log())})
	where = append(append(where, e.repository()...), e.filesBelow(a.tmp)...)
	// The audit log is left out: it is the API server's own, and holds the text
	// with which the policy refused.
	values["git password"] = gitPassword
	for _, s := range search(values, where, nil) {
		t.Error(s)
	}
	t.Logf("searched %d places for %d values", len(where), len(values))
}

// The search itself must be able to find something.
func TestTheSearchFindsWhatIsHidden(t *testing.T) {
	t.Parallel()
	value := canary(t)
	for name, text := range map[string]string{
		"raw": "x" + value, "base64": base64.StdEncoding.EncodeToString([]byte("ab" + value + "c")), "base64 of base64": base64.StdEncoding.EncodeToString([]byte(`{"a":"` + base64.StdEncoding.EncodeToString([]byte("x"+value+"y")) + `"}`)), "base64 file": base64.StdEncoding.EncodeToString([]byte("A=" + value + "\n")),
		"hex": hex.EncodeToString([]byte(value)), "url": "http://x/?q=" + url.QueryEscape(value), "json": fmt.Sprintf("%q", map[string]string{"a": value}), "printed bytes": fmt.Sprint([]byte("x" + value)),
	} {
		found := false
		for _, d := range disguises(value) {
			found = found || strings.Contains(text, d)
		}
		if !found {
			t.Errorf("%s: not found in %s", name, text)
		}
	}
}
