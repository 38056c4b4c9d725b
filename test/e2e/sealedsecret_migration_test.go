package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/gitseal/gitseal/test/harness"
)

// kubectl applies manifests as a user does.
func (e *sealedEnv) kubectl(manifests string, args ...string) {
	e.t.Helper()
	_, errOut, code := e.run(manifests, filepath.Join(e.cp.BinDir, "kubectl"), args...)
	if code != 0 {
		e.t.Fatalf("kubectl %s: %s", strings.Join(args, " "), errOut)
	}
}

func (e *sealedEnv) kubectlApply(objects ...map[string]any) {
	e.t.Helper()
	var all []string
	for _, o := range objects {
		all = append(all, manifest(e.t, o))
	}
	e.kubectl(strings.Join(all, "---\n"), "apply", "--server-side", "-f", "-")
}

// commit writes the objects into the repository, a file each.
func (e *sealedEnv) commit(message string, objects map[string]map[string]any) {
	e.t.Helper()
	for name, o := range objects {
		e.repo.Write("apps/"+name+".yaml", manifest(e.t, o))
	}
	e.repo.Commit(message)
}

// pass runs one pass of the agent, which must succeed.
func (e *sealedEnv) pass(flags ...string) sealedReport {
	e.t.Helper()
	r := e.sealedReport(append(flags, "-o", "json")...)
	if len(r.Failures) > 0 {
		e.t.Fatalf("agent sync --once %s: %s", strings.Join(flags, " "), strings.Join(r.Failures, "\n"))
	}
	return r
}

// secretWatch sees what happens to the Secrets of a namespace.
type secretWatch struct {
	mu      sync.Mutex
	events  map[string][]watch.EventType // by name
	ended   bool
	stopped func()
}

func (e *sealedEnv) watchSecrets() *secretWatch {
	e.t.Helper()
	ctx, cancel := context.WithCancel(e.t.Context())
	w, err := e.client.CoreV1().Secrets(e.app).Watch(ctx, metav1.ListOptions{TimeoutSeconds: ptr.To[int64](3600)})
	if err != nil {
		cancel()
		e.t.Fatal(err)
	}
	s := &secretWatch{events: map[string][]watch.EventType{}}
	done := make(chan struct{})
	s.stopped = func() { cancel(); <-done }
	e.t.Cleanup(s.stopped)
	go func() {
		defer close(done)
		for event := range w.ResultChan() {
			s.mu.Lock()
			name := "" // of an error
			if secret, ok := event.Object.(*corev1.Secret); ok {
				name = secret.Name
			}
			s.events[name] = append(s.events[name], event.Type)
			s.mu.Unlock()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = ctx.Err() == nil
	}()
	return s
}

func (s *secretWatch) saw(name string, what watch.EventType) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.events[name], what)
}

// assertNoDelete makes and deletes one more Secret, waits until the watch has
// seen that, and then looks at what it saw of the others.
func (s *secretWatch) assertNoDelete(e *sealedEnv, names []string) {
	e.t.Helper()
	secrets := e.client.CoreV1().Secrets(e.app)
	if _, err := secrets.Create(e.t.Context(), secretObject("last", nil), metav1.CreateOptions{}); err != nil {
		e.t.Fatal(err)
	}
	if err := secrets.Delete(e.t.Context(), "last", metav1.DeleteOptions{}); err != nil {
		e.t.Fatal(err)
	}
	e.eventually("the watch has caught up", func(context.Context) error {
		if !s.saw("last", watch.Deleted) {
			return errors.New("the last delete was not seen")
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || s.events[""] != nil {
		e.t.Errorf("the watch did not last: ended %v, errors %v", s.ended, s.events[""])
	}
	for _, name := range names {
		events := s.events[name]
		if !slices.Contains(events, watch.Added) || slices.Contains(events, watch.Deleted) {
			e.t.Errorf("Secret %s: the watch saw %v, want ADDED and no DELETED", name, events)
		}
	}
}

// secrets returns the Secrets of these names.
func (e *sealedEnv) secrets(names []string) map[string]*corev1.Secret {
	e.t.Helper()
	out := map[string]*corev1.Secret{}
	for _, name := range names {
		s, err := e.client.CoreV1().Secrets(e.app).Get(e.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			e.t.Fatal(err)
		}
		out[name] = s
	}
	return out
}

// assertSame checks that nothing was made anew and that the values are there.
func (e *sealedEnv) assertSame(step string, before map[string]*corev1.Secret) map[string]*corev1.Secret {
	e.t.Helper()
	now := e.secrets(slices.Sorted(maps.Keys(before)))
	for name, s := range now {
		was := before[name]
		if s.UID != was.UID || s.DeletionTimestamp != nil {
			e.t.Errorf("%s: Secret %s: uid %s, being deleted: %v; want uid %s", step, name, s.UID, s.DeletionTimestamp != nil, was.UID)
		}
		if diff := cmp.Diff(plainOf(was), plainOf(s)); diff != "" {
			e.t.Errorf("%s: Secret %s (-before +after):\n%s", step, name, diff)
		}
	}
	return now
}

// assertOwned checks by whom the Secrets will be deleted.
func (e *sealedEnv) assertOwned(step string, now map[string]*corev1.Secret, byController bool) {
	e.t.Helper()
	for name, s := range now {
		owner := metav1.GetControllerOf(s)
		if isOwned := owner != nil && owner.Kind == "SealedSecret" && len(s.OwnerReferences) == 1; isOwned != byController || !byController && len(s.OwnerReferences) > 0 {
			e.t.Errorf("%s: Secret %s: got the owners %v; want a SealedSecret: %v", step, name, s.OwnerReferences, byController)
		}
		if _, labelled := s.Labels[syncLabel]; labelled == byController {
			e.t.Errorf("%s: Secret %s: has the label of the agent: %v, want the opposite", step, name, labelled)
		}
	}
}

// collected waits until the garbage collector has taken away something that
// hangs on an object which was deleted just now; what hung on objects that were
// deleted before it is gone by then, too.
func (e *sealedEnv) collected(owner metav1.OwnerReference, deleteOwner func(ctx context.Context) error) {
	e.t.Helper()
	maps := e.client.CoreV1().ConfigMaps(e.app)
	child := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "child-", OwnerReferences: []metav1.OwnerReference{owner}}}
	child, err := maps.Create(e.t.Context(), child, metav1.CreateOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	if err := deleteOwner(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
	e.eventually("the garbage collector has worked", func(ctx context.Context) error {
		_, err := maps.Get(ctx, child.Name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the child is still there (%v)", err)
		}
		return nil
	})
}

// collectedBySealedSecret is collected for a SealedSecret that nobody applies.
func (e *sealedEnv) collectedBySealedSecret() {
	e.t.Helper()
	canary := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
		"metadata": map[string]any{"name": "canary", "namespace": e.app}, "spec": map[string]any{"encryptedData": map[string]any{}},
	}}
	canary, err := e.sealedSecrets(e.app).Create(e.t.Context(), canary, metav1.CreateOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	owner := metav1.OwnerReference{APIVersion: "bitnami.com/v1alpha1", Kind: "SealedSecret", Name: "canary", UID: canary.GetUID(), Controller: ptr.To(true)}
	e.collected(owner, func(ctx context.Context) error {
		return e.sealedSecrets(e.app).Delete(ctx, "canary", metav1.DeleteOptions{})
	})
}

func (e *sealedEnv) collectedByConfigMap() {
	e.t.Helper()
	maps := e.client.CoreV1().ConfigMaps(e.app)
	parent, err := maps.Create(e.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "parent-"}}, metav1.CreateOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: parent.Name, UID: parent.UID}
	e.collected(owner, func(ctx context.Context) error { return maps.Delete(ctx, parent.Name, metav1.DeleteOptions{}) })
}

// uidOf returns the uid of a SealedSecret, "" where there is none.
func (e *sealedEnv) uidOf(name string) types.UID {
	e.t.Helper()
	u, err := e.sealedSecrets(e.app).Get(e.t.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return ""
	}
	if err != nil {
		e.t.Fatal(err)
	}
	return u.GetUID()
}

func (e *sealedEnv) plainManifest(name, value string, more map[string]any) map[string]any {
	m := map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": e.app, "labels": map[string]any{"app": "shop"}},
		"stringData": map[string]string{"password": value},
	}
	maps.Copy(m, more)
	return m
}

// TestMovingFromTheControllerAndBackDeletesNoSecret takes the same manifests from
// the controller of sealed-secrets to the agent, by way of PassThrough, and back.
func TestMovingFromTheControllerAndBackDeletesNoSecret(t *testing.T) {
	t.Parallel()
	e := newSealedEnv(t)
	t.Run("what the controller owns is refused", func(t *testing.T) { foreignSealedSecret(t, e) })
	cert := e.controller.URL + "/v1/cert.pem"
	passThrough := []string{"--sealed-secrets", "PassThrough"}
	unseal := []string{"--sealed-secrets", "Unseal", "--sealed-secrets-keys-from", e.controller.Namespace}
	seal := func(name, value string, more map[string]any, args ...string) map[string]any {
		return e.sealWith(cert, e.plainManifest(name, value, more), args...)
	}
	objects := map[string]map[string]any{
		"strict":    seal("strict", canary(t), nil),
		"wide":      seal("wide", canary(t), map[string]any{"type": "example.com/custom"}, namespaceWide...),
		"immutable": seal("immutable", canary(t), map[string]any{"immutable": true}),
		"templated": seal("templated", canary(t), nil),
	}
	put(objects["templated"], "[{{ .password }}]", "spec", "template", "data", "conf")
	names := slices.Sorted(maps.Keys(objects))
	seen := e.watchSecrets()

	t.Log("the controller")
	e.kubectlApply(slices.Collect(maps.Values(objects))...)
	for _, name := range names {
		if ok, message := e.synced(e.app, name); !ok {
			t.Fatalf("%s: the controller says %s", name, message)
		}
	}
	before := e.secrets(names)
	e.assertOwned("the controller", before, true)

	t.Log("PassThrough")
	e.commit("the same in git", objects)
	if r := e.pass(passThrough...); r.Adopted != len(names) || r.Created > 0 {
		t.Errorf("%d adopted, %d created, want all %d adopted: %v", r.Adopted, r.Created, len(names), r.Actions)
	}
	for _, name := range names {
		u, err := e.sealedSecrets(e.app).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if u.GetLabels()[syncLabel] == "" {
			t.Errorf("SealedSecret %s was not applied by the agent: labels %v", name, u.GetLabels())
		}
	}
	e.assertOwned("PassThrough", e.assertSame("PassThrough", before), true)

	t.Log("PassThrough of a change, while the controller is slow")
	changed := canary(t)
	objects["strict"] = seal("strict", changed, nil)
	e.commit("a change", objects)
	e.passWhileSlow(t, "strict", changed, passThrough)
	before["strict"].Data["password"] = []byte(changed)
	e.assertSame("PassThrough of a change", before)

	t.Log("PassThrough of what the controller can not open")
	e.passThroughBad(t, cert, passThrough)
	e.assertOwned("PassThrough after a failure", e.assertSame("PassThrough after a failure", before), true)

	t.Log("Unseal")
	e.controller.Stop()
	e.pass(unseal...)
	e.assertUnsealed(t, "Unseal", before, unseal)
	e.collectedBySealedSecret()
	e.assertUnsealed(t, "Unseal, after the garbage collector", before, unseal)

	t.Log("without the CRD")
	crds := e.dynamic.Resource(harness.CRDResource())
	if err := crds.Delete(t.Context(), harness.SealedSecretsCRD, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	e.eventually("the CRD is gone", func(ctx context.Context) error {
		_, err := crds.Get(ctx, harness.SealedSecretsCRD, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is still there (%v)", err)
		}
		return nil
	})
	e.collectedByConfigMap()
	e.assertUnsealed(t, "without the CRD", before, unseal)

	t.Log("back: the controller again, and PassThrough")
	e.controller = harness.NewSealedSecrets(t, e.cp, harness.SealedSecretsConfig{Namespace: e.controller.Namespace})
	if r := e.pass(passThrough...); r.Released != len(names) || r.Pruned > 0 {
		t.Errorf("%d released, %d pruned, want all %d released: %v", r.Released, r.Pruned, len(names), r.Actions)
	}
	for _, name := range names {
		if ok, message := e.synced(e.app, name); !ok {
			t.Errorf("%s: the controller says %s", name, message)
		}
	}
	e.collectedBySealedSecret()
	e.assertOwned("back", e.assertSame("back", before), true)

	t.Log("back: the controller follows a change")
	changed = canary(t)
	objects["wide"] = e.sealWith(e.controller.URL+"/v1/cert.pem", e.plainManifest("wide", changed, map[string]any{"type": "example.com/custom"}), namespaceWide...)
	e.commit("another change", objects)
	e.pass(passThrough...)
	if err := e.secret(t.Context(), "wide", "password", changed); err != nil {
		t.Errorf("after the pass: %v", err)
	}
	seen.assertNoDelete(e, names)
}

// passWhileSlow passes on a change that the controller takes its time for. The
// agent may wait, or fail, but not say that all is done.
func (e *sealedEnv) passWhileSlow(t *testing.T, name, value string, flags []string) {
	if err := e.controller.Pause(); err != nil {
		t.Fatal(err)
	}
	resumed := make(chan error, 1)
	time.AfterFunc(4*time.Second, func() { resumed <- e.controller.Resume() })
	r := e.sealedReport(append(flags, "-o", "json")...)
	if len(r.Failures) == 0 {
		if err := e.secret(t.Context(), name, "password", value); err != nil {
			t.Errorf("the agent says that all is done: %v", err)
		}
	} else if r.about(e.app, name) == "" {
		t.Errorf("got the failures %q, want one that names the object", r.Failures)
	}
	if err := <-resumed; err != nil {
		t.Fatal(err)
	}
	e.pass(flags...)
	if err := e.secret(t.Context(), name, "password", value); err != nil {
		t.Errorf("after the pass: %v", err)
	}
}

// passThroughBad passes on a SealedSecret whose error the controller fills with
// its value, and takes it back.
func (e *sealedEnv) passThroughBad(t *testing.T, cert string, flags []string) {
	value := canary(t)
	bad := e.sealWith(cert, e.plainManifest("bad", value, nil))
	put(bad, "{{ fail .password }}", "spec", "template", "data", "x")
	e.commit("a bad one", map[string]map[string]any{"bad": bad})
	r := e.sealedReport(append(flags, "-o", "json", "--log-level", "debug")...)
	_, message := e.synced(e.app, "bad")
	if !strings.Contains(message, value) {
		t.Errorf("the controller says %q, want the value in it: it does not show what must be hidden", message)
	}
	if said := r.about(e.app, "bad"); said == "" || len(r.Failures) != 1 {
		t.Errorf("got the failures %q, want one that names the object", r.Failures)
	} else {
		t.Logf("sealed-secrets: %s\nagent: %s", message, said)
	}
	for _, found := range shown(map[string]string{"value": value, "message of the controller": message}, haystack{"report", []byte(r.text)}, haystack{"log of the agent", []byte(r.log)}) {
		t.Error(found)
	}
	e.repo.Remove("apps/bad.yaml")
	e.repo.Commit("without it")
	e.pass(flags...)
	if uid := e.uidOf("bad"); uid != "" {
		t.Error("the bad SealedSecret left git and was not pruned")
	}
}

// assertUnsealed checks that the agent alone holds the Secrets, and has nothing
// more to do.
func (e *sealedEnv) assertUnsealed(t *testing.T, step string, before map[string]*corev1.Secret, flags []string) {
	t.Helper()
	e.assertOwned(step, e.assertSame(step, before), false)
	for name := range before {
		if _, err := e.sealedSecrets(e.app).Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: SealedSecret %s: got %v, want none", step, name, err)
		}
	}
	if r := e.pass(flags...); r.Created+r.Adopted+r.Changed+r.Pruned+r.Released > 0 {
		t.Errorf("%s: another pass: got %v, want no actions", step, r.Actions)
	}
	e.assertSame(step+", another pass", before)
}

// foreignSealedSecret opens what is in git while one of it lives in the cluster as
// a SealedSecret that the agent has not applied.
func foreignSealedSecret(t *testing.T, on *sealedEnv) {
	e := on.another(t)
	cert := e.controller.URL + "/v1/cert.pem"
	held, free := canary(t), canary(t)
	objects := map[string]map[string]any{"held": e.sealWith(cert, e.plainManifest("held", held, nil)), "free": e.sealWith(cert, e.plainManifest("free", free, nil))}
	e.kubectlApply(objects["held"])
	if ok, message := e.synced(e.app, "held"); !ok {
		t.Fatal(message)
	}
	before := e.secrets([]string{"held"})
	e.repo.Write("apps/map.yaml", configMap(e.app, "map", "a", "b"))
	e.commit("both", objects)
	r := e.sealedReport("--sealed-secrets", "Unseal", "--sealed-secrets-keys-from", e.controller.Namespace, "-o", "json")
	if said := r.about(e.app, "held"); !strings.Contains(said, "sealed-secrets controller") || len(r.Failures) != 1 {
		t.Errorf("got the failures %q, want one that says that the object belongs to the sealed-secrets controller", r.Failures)
	}
	if err := errors.Join(e.secret(t.Context(), "free", "password", free), e.configMapValue(t.Context(), "map", "a", "b")); err != nil {
		t.Errorf("the rest: %v", err)
	}
	now := e.assertSame("refused", before)
	e.assertOwned("refused", now, true)
	if now["held"].ResourceVersion != before["held"].ResourceVersion || e.uidOf("held") == "" {
		t.Error("what belongs to the controller was changed")
	}
}
