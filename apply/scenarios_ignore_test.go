package apply

import (
	"cmp"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/decrypt"
)

func ignoring(pointers string) string {
	return strings.Replace(scaled, "name: d, namespace: NS", "name: d, namespace: NS, annotations: {gitseal.io/ignore-fields: '"+pointers+"'}", 1)
}

const autoscaler = `apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: h, namespace: NS}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}
  minReplicas: 3
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
`

// scaleAs sets the replicas by the subresource, as an autoscaler of that name does.
func scaleAs(manager string, n int) act {
	return func(p *player) error {
		r, name, err := p.at("Deployment/d")
		if err != nil {
			return err
		}
		_, err = r.Patch(p.t.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n), metav1.PatchOptions{FieldManager: manager}, "scale")
		return err
	}
}

func rule(text string) act {
	return func(p *player) error {
		rule, err := ParseIgnoreRule(text)
		p.ignore = append(p.ignore, rule)
		return err
	}
}

func imageOf(image string) string {
	return `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"` + image + `"}]}}}}`
}

func isImage(want string) act {
	return func(p *player) error {
		u, err := p.read("Deployment/d")
		if err != nil {
			return err
		}
		containers, _, err := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
		if err == nil && containers[0].(map[string]any)["image"] != want {
			err = fmt.Errorf("the image is %v, want %s", containers[0].(map[string]any)["image"], want)
		}
		return err
	}
}

// certificate looks like one, in base64.
const certificate = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCkFBQUEKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="

// hookWith is the webhook configuration with annotations and a caBundle.
func hookWith(annotations, caBundle string) string {
	return strings.NewReplacer("metadata: {", "metadata: {annotations: "+cmp.Or(annotations, "{}")+", ", "clientConfig: {", "clientConfig: {caBundle: "+caBundle+", ").Replace(webhook)
}

func injectCA(caBundle string) act {
	return patchAs("injector", "ValidatingWebhookConfiguration/NS-hook", types.JSONPatchType, `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"`+caBundle+`"}]`)
}

func bundle(want string) act {
	return mentions("ValidatingWebhookConfiguration/NS-hook", `"caBundle":"`+want+`"`)
}

// Fields that others own by right, or because git says so. Watched.
var ignoreStories = map[string]story{
	// 32
	"replicas are the autoscaler's once it has set them": {
		{git: strings.Replace(scaled, "replicas: 0", "replicas: 1", 1) + "---\n" + autoscaler, done: "create Deployment/d, create HorizontalPodAutoscaler/h"},
		{meanwhile: eventually(holds("Deployment/d", "spec.replicas=3")), requests: "none"}, // it is real
		{git: strings.NewReplacer("replicas: 0", "replicas: 1", "name: d, namespace: NS", "name: d, namespace: NS, labels: {l: new}").Replace(scaled) + "---\n" + autoscaler,
			done: "change Deployment/d", then: all(holds("Deployment/d", "spec.replicas=3"), holds("Deployment/d", "metadata.labels.l=new")), requests: "get deployments/d, patch deployments/d"},
		idle,
		{meanwhile: patch("Deployment/d", `{"metadata":{"labels":{"l":"theirs"}}}`), drift: []string{"Deployment/NS/d: "}, done: "change Deployment/d",
			then: all(holds("Deployment/d", "spec.replicas=3"), holds("Deployment/d", "metadata.labels.l=new"))},
		idle,
	},
	"replicas that an autoscaler has set before are its own at the first apply": {
		{meanwhile: all(create(strings.Replace(scaled, "replicas: 0", "replicas: 1", 1)), scaleAs("kube-controller-manager", 4)), git: scaled, done: "adopt Deployment/d", then: holds("Deployment/d", "spec.replicas=4")},
		{meanwhile: scaleAs("kube-controller-manager", 5), requests: "none", then: holds("Deployment/d", "spec.replicas=5")},
	},
	"replicas of an autoscaler that is not in git are its own, too, until somebody else scales": {
		{git: scaled, done: "create Deployment/d"},
		{meanwhile: scaleAs("kube-controller-manager", 4), requests: "none", then: holds("Deployment/d", "spec.replicas=4")},
		{git: strings.Replace(scaled, "name: d, namespace: NS", "name: d, namespace: NS, labels: {l: new}", 1), done: "change Deployment/d", then: holds("Deployment/d", "spec.replicas=4")},
		{meanwhile: patch("Deployment/d", `{"metadata":{"labels":{"l":null}}}`), drift: []string{"Deployment/NS/d: "}, done: "change Deployment/d", then: holds("Deployment/d", "spec.replicas=4")},
		{meanwhile: scaleAs("kube-controller-manager", 5), requests: "none", then: holds("Deployment/d", "spec.replicas=5")},
	},
	"a scale to zero, after which nobody owns the replicas, stays where git has an autoscaler": {
		{git: strings.Replace(scaled, "replicas: 0", "replicas: 1", 1) + "---\n" + strings.Replace(autoscaler, "minReplicas: 3", "minReplicas: 1", 1), done: "create Deployment/d, create HorizontalPodAutoscaler/h"},
		{meanwhile: scaleAs("keda-operator", 0), requests: "none"},
		{meanwhile: patch("Deployment/d", `{"metadata":{"labels":{"gitseal.io/sync":null}}}`), drift: []string{"Deployment/NS/d: "}, done: "change Deployment/d", then: holds("Deployment/d", "spec.replicas=0")},
		{git: strings.Replace(scaled, "replicas: 0", "replicas: 1", 1), done: "change Deployment/d, prune HorizontalPodAutoscaler/h", then: holds("Deployment/d", "spec.replicas=1")}, // the autoscaler left git
	},
	"a field that git leaves to others is theirs once they have written it": {
		{git: ignoring("/spec/replicas"), done: "create Deployment/d", then: holds("Deployment/d", "spec.replicas=0")},
		{meanwhile: scale(3), requests: "none", then: holds("Deployment/d", "spec.replicas=3")},
		{meanwhile: patch("Deployment/d", `{"spec":{"paused":true}}`), requests: "none"},
		{git: strings.Replace(ignoring("/spec/replicas"), "replicas: 0", "replicas: 1", 1), done: "change Deployment/d", then: holds("Deployment/d", "spec.replicas=3")},
		{git: scaled, done: "change Deployment/d", then: holds("Deployment/d", "spec.replicas=0")}, // it is git's again
	},
	"until somebody else writes it, an ignored field is git's": {
		{git: ignoring("/spec/replicas"), done: "create Deployment/d"},
		{git: strings.Replace(ignoring("/spec/replicas"), "replicas: 0", "replicas: 2", 1), done: "change Deployment/d", then: holds("Deployment/d", "spec.replicas=2"), requests: "get deployments/d, patch deployments/d"},
	},
	"an ignored field of a list item": {
		{git: ignoring("/spec/template/spec/containers/0/image"), done: "create Deployment/d", then: isImage("x")},
		{meanwhile: patchAs("updater", "Deployment/d", types.StrategicMergePatchType, imageOf("theirs")), requests: "none", then: isImage("theirs")},
		{meanwhile: patch("Deployment/d", `{"spec":{"replicas":1}}`), drift: []string{"Deployment/NS/d: "}, done: "change Deployment/d", then: all(isImage("theirs"), holds("Deployment/d", "spec.replicas=0"))},
		{git: strings.Replace(ignoring("/spec/template/spec/containers/0/image"), "replicas: 0", "replicas: 1", 1), done: "change Deployment/d", then: all(isImage("theirs"), holds("Deployment/d", "spec.replicas=1"))},
		idle,
	},
	"a part of a list that the API server keeps as a whole stands for the list": {
		{git: ignoring("/spec/template/spec/tolerations/0/key"), done: "create Deployment/d"},
		{meanwhile: patchAs("somebody", "Deployment/d", types.JSONPatchType, `[{"op":"replace","path":"/spec/template/spec/tolerations/0/key","value":"theirs"}]`), requests: "none"},
		{git: strings.Replace(ignoring("/spec/template/spec/tolerations/0/key"), "replicas: 0", "replicas: 1", 1), done: "change Deployment/d", then: holds("Deployment/d", "spec.template.spec.tolerations=[map[key:theirs operator:Exists]]")},
	},
	"a rule of the Sync, and others are not let in by it": {
		{meanwhile: rule("ConfigMap/a:/data/v"), git: scaled + "---\n" + configMaps("a=1", "b=1"), done: "create Deployment/d, create ConfigMap/a, create ConfigMap/b"},
		{meanwhile: all(patch("ConfigMap/a", `{"data":{"v":"theirs"}}`), patch("ConfigMap/b", `{"data":{"v":"theirs"}}`)), drift: []string{"ConfigMap/NS/b: "}, done: "change ConfigMap/b", then: all(holds("ConfigMap/a", "data.v=theirs"), holds("ConfigMap/b", "data.v=1"))},
		{git: scaled + "---\n" + configMaps("a=2", "b=2"), done: "change ConfigMap/a, change ConfigMap/b", then: all(holds("ConfigMap/a", "data.v=theirs"), holds("ConfigMap/b", "data.v=2"))},
	},
	"what makes an object ours is not left to others": {
		{git: ignoring("/metadata/labels"), failed: []string{"Deployment/NS/d: the annotation gitseal.io/ignore-fields: /metadata/labels can not be left to others"}, inventory: "Deployment/d intended"},
		{git: ignoring("spec.replicas"), failed: []string{`"spec.replicas" is not a JSON pointer`}, inventory: "Deployment/d intended"},
		{git: ignoring("/metadata/name"), failed: []string{"/metadata/name can not be left"}, inventory: "Deployment/d intended"},
	},
	"a caBundle is the injector's, where git asks for one or holds a stand-in": {
		{git: hookWith("", "Cg=="), done: "create ValidatingWebhookConfiguration/NS-hook"},
		{meanwhile: injectCA("Y2E="), requests: "none"},
		{git: hookWith("{cert-manager.io/inject-ca-from: a/b}", certificate), done: "change ValidatingWebhookConfiguration/NS-hook", then: bundle("Y2E=")},
		{meanwhile: injectCA("Y2I="), requests: "none"},
		{git: hookWith("", certificate), done: "change ValidatingWebhookConfiguration/NS-hook", then: bundle(certificate)},
		{meanwhile: injectCA("Y2E="), drift: []string{"ValidatingWebhookConfiguration/NS-hook: "}, done: "change ValidatingWebhookConfiguration/NS-hook", then: bundle(certificate)},
	},
	// SSA manager_apply_test.go:1303
	"with ssa: Merge nothing that others set is taken out": {
		{meanwhile: patchAs("kubectl", "ConfigMap/a", types.ApplyPatchType, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {v: '0', more: theirs}"), git: strings.ReplaceAll(configMaps("a=1"), "namespace: NS", "namespace: NS, annotations: {gitseal.io/ssa: Merge}"), done: "adopt ConfigMap/a", reasons: []string{"it was there already"},
			then: all(holds("ConfigMap/a", "data.v=1"), holds("ConfigMap/a", "data.more=theirs"))},
		idle,
	},
}

func TestOnlyTheVeryFieldIsRegained(t *testing.T) {
	t.Parallel()
	u := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"replicas": int64(1)}}}
	m := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{
		Manager: "kube-controller-manager", Subresource: "scale", Operation: metav1.ManagedFieldsOperationUpdate, FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`),
	}}}}
	for name, c := range map[string]struct {
		was, is string
		taken   bool
	}{
		"an autoscaler of git stays": {"/spec/replicas", "/spec/replicas", true},
		"it leaves git":              {"/spec/replicas", "", false},
		"it leaves git, and another field of such a name is left":  {"/spec/replicas", "/template/spec/replicas", false},
		"another field of such a name was left, and is no more so": {"/template/spec/replicas", "", true},
	} {
		ignored, err := parsePointers(c.is)
		if err != nil {
			t.Fatal(err)
		}
		d := Desired{Object: decrypt.Object{Masked: u}, ignored: ignored}
		if got := takenOver(m, "us", d, Entry{Evidence: Evidence{UID: "u"}, Leaving: c.was}); len(got) > 0 != c.taken {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
