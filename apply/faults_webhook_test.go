package apply

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	registration "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"

	"github.com/gitseal/gitseal/test/harness"
)

// hook is an admission webhook in this process. It is asked about what carries the
// label of the world's Sync: neither about other tests nor about the inventory.
type hook struct {
	*world
	name string
	stop func() // takes it out of the cluster
}

// verdict answers the API server; nil lets the object through as it is. ctx ends
// when the API server does not wait any more.
type verdict func(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse

// probe is what the API server is asked about to see whether a hook is in force: it
// is always refused, and never made.
const probe = "probe-of-the-hook"

func (v verdict) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	answer := deny("it is there")
	if review.Request.Name != probe {
		answer = v(r.Context(), review.Request)
	}
	if answer == nil {
		answer = &admissionv1.AdmissionResponse{Allowed: true}
	}
	answer.UID = review.Request.UID
	review.Request, review.Response = nil, answer
	_ = json.NewEncoder(rw).Encode(review) // the API server may have gone away
}

func deny(message string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Message: message, Code: http.StatusForbidden}}
}

// serve starts the hook's server and returns how the API server finds it.
func (v verdict) serve(t testing.TB) registration.WebhookClientConfig {
	t.Helper()
	s := httptest.NewUnstartedServer(v)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that the API server drops
	s.StartTLS()
	t.Cleanup(s.Close)
	return registration.WebhookClientConfig{URL: &s.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
}

// asked are all objects of the world's Sync.
func (w *world) asked() (rules []registration.RuleWithOperations, namespaces, objects *metav1.LabelSelector) {
	return []registration.RuleWithOperations{{
			Operations: []registration.OperationType{registration.OperationAll},
			Rule:       registration.Rule{APIGroups: []string{"", "apps"}, APIVersions: []string{"v1"}, Resources: []string{"configmaps", "secrets", "deployments"}},
		}},
		&metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.ns}},
		&metav1.LabelSelector{MatchLabels: w.owner.labels()}
}

// validating puts a webhook into the cluster that may refuse; edit may be nil.
func (w *world) validating(v verdict, edit func(*registration.ValidatingWebhook)) *hook {
	w.t.Helper()
	h := &hook{world: w, name: "refusing." + w.ns + ".example.com"}
	rules, namespaces, objects := w.asked()
	webhook := registration.ValidatingWebhook{
		Name: h.name, ClientConfig: v.serve(w.t), Rules: rules, NamespaceSelector: namespaces, ObjectSelector: objects,
		AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr.To(registration.SideEffectClassNone), TimeoutSeconds: ptr.To[int32](30),
	}
	if edit != nil {
		edit(&webhook)
	}
	configs := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := configs.Create(w.t.Context(), &registration.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: h.name}, Webhooks: []registration.ValidatingWebhook{webhook}}, metav1.CreateOptions{})
	h.installed(err, configs.Delete)
	return h
}

// mutating puts a webhook into the cluster that changes every object that is written.
func (w *world) mutating(change func(*unstructured.Unstructured)) *hook {
	w.t.Helper()
	h := &hook{world: w, name: "changing." + w.ns + ".example.com"}
	rules, namespaces, objects := w.asked()
	v := verdict(func(_ context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		return rewrite(r, change)
	})
	webhook := registration.MutatingWebhook{
		Name: h.name, ClientConfig: v.serve(w.t), Rules: rules, NamespaceSelector: namespaces, ObjectSelector: objects,
		AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr.To(registration.SideEffectClassNone), TimeoutSeconds: ptr.To[int32](30),
	}
	configs := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := configs.Create(w.t.Context(), &registration.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: h.name}, Webhooks: []registration.MutatingWebhook{webhook}}, metav1.CreateOptions{})
	h.installed(err, configs.Delete)
	return h
}

// installed waits until the API server asks the hook, and sees to its end.
func (h *hook) installed(err error, remove func(context.Context, string, metav1.DeleteOptions) error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(h.t.Context()), 10*time.Second)
		defer cancel()
		if err := remove(ctx, h.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			h.t.Error(err)
		}
	})
	h.await(true)
	h.stop = func() {
		h.t.Helper()
		if err := remove(h.t.Context(), h.name, metav1.DeleteOptions{}); err != nil {
			h.t.Fatal(err)
		}
		h.await(false)
	}
}

func (h *hook) await(inForce bool) {
	h.t.Helper()
	o := configMapObject(probe)
	o.Labels = h.owner.labels()
	harness.Eventually(h.t, "the API server knows of the webhook", func(ctx context.Context) error {
		_, err := h.client.CoreV1().ConfigMaps(h.ns).Create(ctx, o, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if asked := err != nil && strings.Contains(err.Error(), h.name); asked != inForce {
			return fmt.Errorf("asked: %v (%w)", asked, err)
		}
		return nil
	})
}

// rewrite answers with what change makes of the object.
func rewrite(r *admissionv1.AdmissionRequest, change func(*unstructured.Unstructured)) *admissionv1.AdmissionResponse {
	if r.Operation == admissionv1.Delete {
		return nil
	}
	var before unstructured.Unstructured
	if err := json.Unmarshal(r.Object.Raw, &before.Object); err != nil {
		return deny(err.Error())
	}
	after := before.DeepCopy()
	change(after)
	patch := []map[string]any{}
	for _, key := range slices.Sorted(maps.Keys(after.Object)) {
		if !reflect.DeepEqual(before.Object[key], after.Object[key]) {
			patch = append(patch, map[string]any{"op": "add", "path": "/" + key, "value": after.Object[key]})
		}
	}
	b, err := json.Marshal(patch)
	if err != nil {
		return deny(err.Error())
	}
	return &admissionv1.AdmissionResponse{Allowed: true, Patch: b, PatchType: ptr.To(admissionv1.PatchTypeJSONPatch)}
}

func TestAnObjectThatAWebhookRefusesStopsNothingElse(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	var lenient atomic.Bool
	h := p.validating(func(_ context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Name == "bad" && !lenient.Load() {
			return deny("not on a Friday")
		}
		return nil
	}, nil)
	p.play(story{
		{git: configMaps("old=1"), done: "create ConfigMap/old"},
		{git: configMaps("bad=1", "fine=1"), done: "create ConfigMap/fine",
			failed:    []string{`ConfigMap/NS/bad: the API server refused it: Forbidden (403): admission webhook "` + h.name + `" denied the request: not on a Friday`},
			inventory: "ConfigMap/bad intended, ConfigMap/fine applied, ConfigMap/old applied", cluster: "ConfigMap/bad absent, ConfigMap/fine made, ConfigMap/old same"},
		{failed: []string{"not on a Friday"}, requests: "patch configmaps/bad",
			inventory: "ConfigMap/bad intended, ConfigMap/fine applied, ConfigMap/old applied", cluster: "ConfigMap/bad absent, ConfigMap/fine same, ConfigMap/old same"},
		{meanwhile: func(*player) error { lenient.Store(true); return nil }, done: "change ConfigMap/bad, prune ConfigMap/old",
			requests: "delete configmaps/old, get configmaps/old, patch configmaps/bad", cluster: "ConfigMap/bad made, ConfigMap/fine same, ConfigMap/old gone"},
		{requests: "none"},
	})
}

func TestAWebhookThatQuotesASecretIsNotRepeated(t *testing.T) {
	t.Parallel()
	const value = "hunter2-canary"
	quote := "the value " + value + ", " + base64.StdEncoding.EncodeToString([]byte(value)) + ", is too short"
	for name, result := range map[string]metav1.Status{
		"in its message":        {Message: quote, Code: http.StatusForbidden},
		"as its reason":         {Reason: metav1.StatusReason(quote), Code: http.StatusForbidden},
		"as the name of fields": {Message: quote, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Details: &metav1.StatusDetails{Name: quote, Causes: []metav1.StatusCause{{Field: quote, Type: metav1.CauseType(quote), Message: quote}}}},
		"without a word else":   {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			const git = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: NS}\nstringData: {v: " + value + "}\n---\n"
			w.mustApply(git + configMaps("keep=1"))
			h := w.validating(func(_ context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
				if r.Kind.Kind == "Secret" {
					return &admissionv1.AdmissionResponse{Result: result.DeepCopy(), Warnings: []string{quote}}
				}
				return nil
			}, nil)
			check := func(what string, failures []Failure) {
				t.Helper()
				if len(failures) != 1 {
					t.Fatalf("%s: got %v, want one failure", what, failures)
				}
				text := fmt.Sprintf("%v %+v %#v %q", failures[0], failures[0].Err, failures[0].Err, errors.Unwrap(failures[0].Err))
				if strings.Contains(text, value) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(value))) {
					t.Errorf("%s: the value is in %s", what, text)
				}
				if msg := failures[0].Error(); !strings.HasPrefix(msg, "Secret/"+w.ns+"/s: the API server refused it: ") || !strings.Contains(msg, h.name) || strings.Contains(msg, "  ") {
					t.Errorf("%s: got %s, want the object and the webhook", what, msg)
				}
			}
			in := w.input(git + configMaps("keep=1"))
			everything(&in)
			check("a change", w.apply(in).Failed)
			check("a prune", w.apply(w.input(configMaps("keep=1"))).Kept)
		})
	}
}

func TestASlowWebhookHoldsUpOnlyItsObject(t *testing.T) {
	t.Parallel()
	const others = 3 * Concurrency
	w := newWorld(t)
	git := []string{"slow=1"}
	for i := range others {
		git = append(git, fmt.Sprintf("quick-%d=1", i))
	}
	var mu sync.Mutex
	var arrived, left []string
	rest := make(chan struct{}) // closed once all others were let through
	w.validating(func(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		mu.Lock()
		arrived = append(arrived, r.Name)
		mu.Unlock()
		if r.Name == "slow" {
			select {
			case <-rest:
			case <-ctx.Done(): // the API server gave up first: the others waited
				return deny("too slow")
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if left = append(left, r.Name); len(left) == others {
			close(rest)
		}
		return nil
	}, nil)
	res := w.mustApply(configMaps(git...))
	mu.Lock()
	defer mu.Unlock()
	if len(res.Done) != others+1 || len(left) != others+1 || left[others] != "slow" || slices.Index(arrived, "slow") >= Concurrency {
		t.Errorf("done %d; arrived %v; let through %v", len(res.Done), arrived, left)
	}
}

func TestAWebhookThatNeverAnswers(t *testing.T) {
	t.Parallel()
	const git = "apiVersion: v1\nkind: Secret\nmetadata: {name: stuck, namespace: NS}\nstringData: {v: canary}\n---\n"
	start := func(t *testing.T, policy registration.FailurePolicyType) (*player, *hook) {
		t.Helper()
		p := newPlayer(t, false)
		h := p.validating(func(ctx context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			if r.Name == "stuck" {
				<-ctx.Done()
			}
			return nil
		}, func(w *registration.ValidatingWebhook) { w.TimeoutSeconds, w.FailurePolicy = ptr.To[int32](1), &policy })
		return p, h
	}
	t.Run("and is needed fails its objects until it is gone", func(t *testing.T) {
		t.Parallel()
		p, h := start(t, registration.Fail)
		p.play(story{
			{git: configMaps("old=1"), done: "create ConfigMap/old"},
			{git: git + configMaps("stuck=1", "fine=1"), done: "create ConfigMap/fine",
				failed: []string{
					`ConfigMap/NS/stuck: the API server refused it: InternalError (500): Internal error occurred: failed calling webhook "` + h.name + `": failed to call webhook: `,
					`Secret/NS/stuck: the API server refused it: Internal Server Error (500); it was the admission webhook ` + h.name,
				},
				inventory: "ConfigMap/fine applied, ConfigMap/old applied, ConfigMap/stuck intended, Secret/stuck intended",
				cluster:   "ConfigMap/fine made, ConfigMap/old same, ConfigMap/stuck absent, Secret/stuck absent"},
			{meanwhile: func(*player) error { h.stop(); return nil }, done: "change Secret/stuck, change ConfigMap/stuck, prune ConfigMap/old",
				cluster: "ConfigMap/fine same, ConfigMap/old gone, ConfigMap/stuck made, Secret/stuck made"},
			{requests: "none"},
		})
	})
	t.Run("and may be ignored is", func(t *testing.T) {
		t.Parallel()
		p, _ := start(t, registration.Ignore)
		p.play(story{
			{git: git + configMaps("stuck=1", "fine=1"), done: "create Secret/stuck, create ConfigMap/stuck, create ConfigMap/fine",
				cluster: "ConfigMap/fine made, ConfigMap/stuck made, Secret/stuck made"},
			{requests: "none"},
		})
	})
}
