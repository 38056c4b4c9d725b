package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// sealedCase is a row with what became of it.
type sealedCase struct {
	sealedRow
	name    string // of the objects
	cr      map[string]any
	message string       // of the controller, or of the API server
	made    *plainSecret // that the controller made
}

func (c *sealedCase) bad() bool { return c.fails != "" || c.refused != "" }

// TestTheAgentMakesOfASealedSecretWhatItsControllerMakes gives each row to the
// real controller, then to the agent, and compares.
func TestTheAgentMakesOfASealedSecretWhatItsControllerMakes(t *testing.T) {
	t.Parallel()
	e := newSealedEnv(t)
	secret := canary(t)
	olderKey := e.controller.KeyPEM
	older := e.file("older.pem", string(e.controller.CertPEM))
	if err := e.controller.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	newer := e.file("newer.pem", string(e.controller.CertPEM))
	foreign := e.foreignCert()
	cases := map[string]*sealedCase{}
	var values []string
	for name, row := range sealedRows(e, newer, e.cp.Namespace(t, "other"), secret) {
		if row.namespace == "" {
			row.namespace = e.app
		}
		cert := newer
		switch {
		case row.older:
			cert = older
		case row.foreign:
			cert = foreign
		}
		c := &sealedCase{sealedRow: row, name: slug(name)}
		c.cr = e.sealRow(c, cert)
		cases[name] = c
		values = slices.AppendSeq(values, maps.Values(row.values))
		values = slices.AppendSeq(values, maps.Values(row.binary))
	}
	names := slices.Sorted(maps.Keys(cases))

	t.Log("the controller")
	for _, name := range names {
		c := cases[name]
		e.createExisting(c)
		_, err := e.sealedSecrets(c.namespace).Create(t.Context(), &unstructured.Unstructured{Object: c.cr}, metav1.CreateOptions{})
		if err != nil {
			c.message = err.Error()
		}
		if (err != nil) != (c.refused != "") || !strings.Contains(c.message, c.refused) {
			t.Errorf("%s: the API server says %v, want %q", name, err, c.refused)
			c.refused = "by accident" // there is nothing to compare with
		}
	}
	for _, name := range names {
		if c := cases[name]; c.refused == "" {
			e.recordController(name, c)
		}
	}
	for _, name := range names {
		if c := cases[name]; c.bad() {
			e.assertNoSecret("the controller", name, c)
		}
	}
	e.clear(slices.Collect(maps.Values(cases)))
	e.controller.Stop()

	t.Log("the agent")
	for _, name := range names {
		e.createExisting(cases[name])
		e.repo.Write("apps/"+cases[name].name+".yaml", manifest(t, cases[name].cr))
	}
	e.repo.Commit("all of them")
	flags := []string{"--sealed-secrets-keys-from", e.controller.Namespace, "-o", "json", "--log-level", "debug", "-v", "10"}
	report := e.sealedReport(append(flags, "--accept-deprecated-v1-data")...)
	for _, name := range names {
		t.Run(name, func(t *testing.T) { e.compare(t, cases[name], report) })
	}
	if !strings.Contains(report.log, "curl -v -XGET") {
		t.Error("the log does not show requests: it is not as verbose as this test needs")
	}
	where := append(e.inventory(), haystack{"report", []byte(report.text)}, haystack{"log of the agent", []byte(report.log)})
	hidden := needles(secret, values, e.controller.KeyPEM, olderKey)
	for _, found := range shown(hidden, where...) {
		t.Error(found)
	}
	// The search finds what the controller says, so it could find it here.
	var said []byte
	for _, c := range cases {
		said = append(said, c.message...)
	}
	for _, form := range []string{"raw", "base64 at 0", "upper case"} {
		if !slices.ContainsFunc(shown(hidden, haystack{"messages", said}), func(s string) bool { return strings.Contains(s, "as "+form) }) {
			t.Errorf("the controller shows no value as %s: the search proves nothing", form)
		}
	}

	t.Log("a second pass changes nothing")
	if again := e.sealedReport(append(flags, "--accept-deprecated-v1-data")...); again.Created+again.Changed+again.Pruned > 0 {
		t.Errorf("got %v, want no actions", again.Actions)
	}
	t.Log("spec.data needs its flag")
	without := e.sealedReport(flags...)
	for _, name := range names {
		if c := cases[name]; c.deprecated && !strings.Contains(without.about(c.namespace, c.name), "data") {
			t.Errorf("%s: got %q, want a failure that names the field", name, without.about(c.namespace, c.name))
		}
	}
}

// sealRow makes the SealedSecret of a row.
func (e *sealedEnv) sealRow(c *sealedCase, cert string) map[string]any {
	e.t.Helper()
	name, namespace := c.name, c.namespace
	if c.sealedAs != "" {
		name = c.sealedAs
	}
	if c.sealedIn != "" {
		namespace = c.sealedIn
	}
	meta := map[string]any{"name": name, "namespace": namespace}
	maps.Copy(meta, c.meta)
	plain := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": c.values}
	if c.binary != nil {
		data := map[string]string{}
		for k, v := range c.binary {
			data[k] = base64.StdEncoding.EncodeToString([]byte(v))
		}
		plain["data"] = data
	}
	maps.Copy(plain, c.secret)
	cr := e.sealWith(cert, plain, c.args...)
	put(cr, c.name, "metadata", "name")
	put(cr, c.namespace, "metadata", "namespace")
	if c.templates != nil {
		put(cr, anyMap(c.templates), "spec", "template", "data")
	}
	if c.edit != nil {
		c.edit(cr)
	}
	return cr
}

// createExisting makes the Secret that a row finds in its place.
func (e *sealedEnv) createExisting(c *sealedCase) {
	e.t.Helper()
	if c.existing == nil {
		return
	}
	s := c.existing.DeepCopy()
	s.Name = c.name
	if _, err := e.client.CoreV1().Secrets(c.namespace).Create(e.t.Context(), s, metav1.CreateOptions{FieldManager: "another-program"}); err != nil {
		e.t.Fatal(err)
	}
}

func anyMap(m map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// recordController keeps what the controller says and makes, and checks that it
// is what the row is about.
func (e *sealedEnv) recordController(name string, c *sealedCase) {
	e.t.Helper()
	ok, message := e.synced(c.namespace, c.name)
	c.message = message
	wantMessage := c.fails + c.complains
	if ok != (wantMessage == "") || !strings.Contains(message, wantMessage) {
		e.t.Errorf("%s: the controller says %q, want %q", name, message, wantMessage)
	}
	if c.bad() {
		return
	}
	s, err := e.client.CoreV1().Secrets(c.namespace).Get(e.t.Context(), c.name, metav1.GetOptions{})
	if err != nil {
		e.t.Errorf("%s: the controller has made no Secret: %v", name, err)
		return
	}
	c.made = plainOf(s)
	want := c.want
	if want == nil && c.templates == nil {
		want = with(map[string]string{})
		maps.Copy(want, c.values)
		maps.Copy(want, c.binary)
	}
	if want == nil {
		return
	}
	if diff := cmp.Diff(want, c.made.Data); diff != "" {
		e.t.Errorf("%s: the controller made (-want +got):\n%s", name, diff)
	}
}

func (e *sealedEnv) assertNoSecret(who, name string, c *sealedCase) {
	e.t.Helper()
	_, err := e.client.CoreV1().Secrets(c.namespace).Get(e.t.Context(), c.name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		e.t.Errorf("%s: %s: got %v, want no Secret", name, who, err)
	}
}

// clear deletes the SealedSecrets and their Secrets, and waits until they are gone.
func (e *sealedEnv) clear(cases []*sealedCase) {
	e.t.Helper()
	ctx := e.t.Context()
	for _, c := range cases {
		if err := e.sealedSecrets(c.namespace).Delete(ctx, c.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			e.t.Fatal(err)
		}
	}
	for _, c := range cases {
		if err := e.client.CoreV1().Secrets(c.namespace).Delete(ctx, c.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			e.t.Fatal(err)
		}
	}
	e.eventually("all is gone", func(ctx context.Context) error {
		var left []error
		for _, c := range cases {
			_, err := e.sealedSecrets(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
			_, errSecret := e.client.CoreV1().Secrets(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
			if !apierrors.IsNotFound(err) || !apierrors.IsNotFound(errSecret) {
				left = append(left, fmt.Errorf("%s: %v, %v", c.name, err, errSecret))
			}
		}
		return errors.Join(left...)
	})
}

// sealedReport is what `agent sync --once -o json` says.
type sealedReport struct {
	Created, Adopted, Changed, Pruned, Released int
	Actions                                     []struct{ Object, Action, Reason string }
	Failures                                    []string
	text, log                                   string
}

func (e *env) sealedReport(more ...string) sealedReport {
	e.t.Helper()
	var r sealedReport
	out, errOut, code := e.once(more...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		e.t.Fatalf("agent sync --once: exit code %d, %v\n%s\n%s", code, err, out, tail(errOut, 60))
	}
	if (code == 0) != (len(r.Failures) == 0) {
		e.t.Errorf("agent sync --once: exit code %d with %d failures", code, len(r.Failures))
	}
	r.text, r.log = out, errOut
	return r
}

// about returns the failures that name an object, whatever its kind.
func (r sealedReport) about(namespace, name string) string {
	var found []string
	for _, f := range r.Failures {
		for _, word := range strings.FieldsFunc(f, func(r rune) bool { return strings.ContainsRune(" :,;\n", r) }) {
			if strings.HasSuffix(word, "/"+namespace+"/"+name) {
				found = append(found, f)
				break
			}
		}
	}
	return strings.Join(found, "\n")
}

func (e *sealedEnv) compare(t *testing.T, c *sealedCase, report sealedReport) {
	said := report.about(c.namespace, c.name)
	if c.message != "" || said != "" {
		t.Logf("sealed-secrets: %s\nagent: %s", c.message, said)
	}
	s, err := e.client.CoreV1().Secrets(c.namespace).Get(t.Context(), c.name, metav1.GetOptions{})
	bad := c.bad() && c.instead == nil
	switch {
	case bad && err == nil:
		t.Error("the agent made a Secret, the controller did not")
	case bad && !apierrors.IsNotFound(err), !bad && err != nil:
		t.Errorf("Secret of the agent: %v", err)
	}
	if bad != (said != "") {
		t.Errorf("the agent says %q; must it fail: %v", said, bad)
	}
	if bad || err != nil {
		return
	}
	got := plainOf(s)
	if c.made == nil {
		c.made = &plainSecret{Type: got.Type, Immutable: got.Immutable, Labels: got.Labels, Annotations: got.Annotations}
	}
	if s.OwnerReferences != nil {
		t.Errorf("got the owners %v, want none", s.OwnerReferences)
	}
	if c.instead != nil {
		c.made.Data = c.instead
	}
	if c.existing != nil {
		// The controller takes away labels and annotations of others; the agent
		// leaves them.
		got.Labels = less(got.Labels, c.existing.Labels, c.made.Labels)
		got.Annotations = less(got.Annotations, c.existing.Annotations, c.made.Annotations)
	}
	for key := range c.random {
		if len(got.Data[key]) == len(c.made.Data[key]) {
			got.Data[key] = c.made.Data[key]
		}
	}
	if diff := cmp.Diff(c.made, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("Secret (-controller +agent):\n%s", diff)
	}
}

// less returns m without what it has from others and is not wanted.
func less(m, others, wanted map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		if _, ok := wanted[k]; ok || others[k] != v {
			out[k] = v
		}
	}
	return out
}
