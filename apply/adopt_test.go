package apply

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// What another tool applied from files is taken over whole: else each field that
// it wrote would stay for ever once it leaves git.
func TestFieldsOfPredecessorsAreTakenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: NS}\nstringData: {kept: new}\n"
	secrets := w.c.client.CoreV1().Secrets(w.ns)
	patch := func(manager string, how types.PatchType, body string) {
		t.Helper()
		o := metav1.PatchOptions{FieldManager: manager}
		if how == types.ApplyPatchType {
			o.Force = ptr.To(true)
		}
		if _, err := secrets.Patch(t.Context(), "s", how, []byte(body), o); err != nil {
			t.Fatal(err)
		}
	}
	patch("kustomize-controller", types.ApplyPatchType, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s","labels":{"kustomize.toolkit.fluxcd.io/name":"apps"}},"data":{"kept":"b2xk","gone":"b2xk"}}`)
	patch("kubectl-client-side-apply", types.MergePatchType, `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"secret"}},"data":{"alsoGone":"b2xk"}}`)
	patch("helm", types.MergePatchType, `{"metadata":{"labels":{"app.kubernetes.io/managed-by":"Helm"}},"data":{"ofTheChart":"b2xk"}}`)
	patch("somebody", types.MergePatchType, `{"metadata":{"labels":{"team":"a"}},"data":{"theirs":"b2xk"}}`)
	res := w.mustApply(secret)
	if len(res.Done) != 1 || !strings.Contains(res.Done[0].Reason, "taken over from helm, kubectl-client-side-apply, kustomize-controller") || res.Requests != 4 { // a try without force tells whether another Sync has it
		t.Errorf("done %v with %d requests", res.Done, res.Requests)
	}
	got, err := secrets.Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var data []string
	for k, v := range got.Data {
		data = append(data, k+"="+string(v))
	}
	slices.Sort(data)
	if d := cmp.Diff([]string{"kept=new", "theirs=old"}, data); d != "" {
		t.Errorf("data (-want +got):\n%s", d)
	}
	if got.Labels["team"] != "a" || got.Labels["kustomize.toolkit.fluxcd.io/name"] != "" || got.Labels["app.kubernetes.io/managed-by"] != "" || len(got.Annotations) != 0 {
		t.Errorf("labels %v, annotations %v", got.Labels, got.Annotations)
	}
	t.Log("afterwards there is nothing to take over, and what leaves git goes")
	if res := w.mustApply(strings.Replace(secret, "kept", "other", 1)); res.Requests != 1 || res.Done[0].Reason != changedInput {
		t.Errorf("done %v with %d requests", res.Done, res.Requests)
	}
	if got, err = secrets.Get(t.Context(), "s", metav1.GetOptions{}); err != nil || got.Data["kept"] != nil || string(got.Data["other"]) != "new" {
		t.Errorf("data %v, %v", len(got.Data), err)
	}
}

// People who come from Flux have these annotations on objects that somebody
// else fills.
func TestObjectsThatAskForItAreLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	manifest := func(name, annotation string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + ", namespace: NS, annotations: {" + annotation + "}}\ndata: {a: git}\n---\n"
	}
	all := manifest("disabled", "kustomize.toolkit.fluxcd.io/reconcile: disabled") + manifest("ignored", "kustomize.toolkit.fluxcd.io/ssa: Ignore") +
		manifest("there", "kustomize.toolkit.fluxcd.io/ssa: IfNotPresent") + manifest("missing", "kustomize.toolkit.fluxcd.io/ssa: IfNotPresent")
	cms := w.client.CoreV1().ConfigMaps(w.ns)
	for _, name := range []string{"disabled", "there"} {
		if _, err := cms.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"a": "live"}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		w.mustApply(all)
		for name, want := range map[string]string{"disabled": "live", "ignored": "", "there": "live", "missing": "git"} {
			got, err := cms.Get(t.Context(), name, metav1.GetOptions{})
			if want == "" && !apierrors.IsNotFound(err) || want != "" && (err != nil || got.Data["a"] != want) {
				t.Errorf("%s: %v, %v; want %q", name, got.Data, err, want)
			}
		}
	}
	t.Log("and what is not ours is not pruned")
	w.mustApply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: else, namespace: NS}\n")
	for name, gone := range map[string]bool{"disabled": false, "there": false, "missing": true} {
		if _, err := cms.Get(t.Context(), name, metav1.GetOptions{}); apierrors.IsNotFound(err) != gone {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was made by this very request is created, whoever writes it at once; what was
// there is adopted.
func TestWhatIsAdoptedIsToldFromWhatIsCreated(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	p.mutating(func(u *unstructured.Unstructured) { set(u, "webhook", "metadata", "annotations", "written-by") })
	p.run.Cluster = p.through(func(rt http.RoundTripper) roundTrip {
		return func(r *http.Request) (*http.Response, error) {
			resp, err := rt.RoundTrip(r)
			if err == nil && r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/deployments/d") { // a controller is quicker than the answer
				err = errors.Join(patch("Deployment/d", `{"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}},"spec":{"progressDeadlineSeconds":9}}`)(p), p.status("Deployment/d", `{"status":{"replicas":1}}`))
			}
			return resp, err
		}
	})
	p.play(story{
		{meanwhile: all(create(configMaps("there=1", "old=1")), patchAs("kubectl", "ConfigMap/old", types.ApplyPatchType, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: old}\ndata: {v: '1'}")),
			git:     scaled + "---\n" + configMaps("there=1", "old=1", "new=1"),
			done:    "create Deployment/d, adopt ConfigMap/there, adopt ConfigMap/old, create ConfigMap/new",
			reasons: []string{"new in git", "new in git; it was there already", "new in git; taken over from kubectl", "new in git"}},
	})
}

func (p *player) status(ref, body string) error {
	r, name, err := p.at(ref)
	if err != nil {
		return err
	}
	_, err = r.Patch(p.t.Context(), name, types.MergePatchType, []byte(body), metav1.PatchOptions{FieldManager: "kube-controller-manager"}, "status")
	return err
}

func TestAPreviewSaysWhatIsAdopted(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	if err := all(create(configMaps("there=1")), patchAs("kubectl", "ConfigMap/old", types.ApplyPatchType, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: old}\ndata: {v: '1'}"))(p); err != nil {
		t.Fatal(err)
	}
	p.mustApply(configMaps("known=1"))
	if err := otherSync(configMaps("claimed=1"), "")(p); err != nil {
		t.Fatal(err)
	}
	previews, err := p.run.Previews(t.Context(), NewPlan(p.input(configMaps("known=2", "there=1", "old=2", "new=1", "claimed=1"))))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, v := range previews {
		got = append(got, string(v.Action)+" "+short(v.ID)+": "+v.Reason)
		var claimed *ClaimedError
		if (v.ID.Name == "claimed") != errors.As(v.Refused, &claimed) {
			t.Errorf("%s is refused: %v", v.ID, v.Refused)
		}
	}
	want := []string{"change ConfigMap/known: changed in git", "adopt ConfigMap/there: new in git; it was there already", "adopt ConfigMap/old: new in git; taken over from kubectl", "create ConfigMap/new: new in git", "create ConfigMap/claimed: new in git"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
