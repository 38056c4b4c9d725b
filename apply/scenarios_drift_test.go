package apply

import (
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var (
	scaled   = strings.NewReplacer("containers:", "tolerations: [{key: k, operator: Exists}], containers:", ", annotations: {}", "").Replace(deploymentOf("a", "x", ""))
	tolerant = strings.Replace(scaled, "  replicas: 0\n", "", 1)
)

// onlyCreated is a ConfigMap that is not written once it is there.
func onlyCreated(value string) string {
	return strings.ReplaceAll(configMaps("a="+value), "namespace: NS", "namespace: NS, annotations: {gitseal.io/ssa: IfNotPresent}")
}

// idle sends nothing, and says nothing.
var idle = step{requests: "none"}

// The stories of drift are watched, and each step without a commit is a repair.
var driftStories = map[string]story{
	// 31, 34
	"what somebody deletes or makes anew is put back": {
		{git: configMaps("a=1", "b=1"), done: "create ConfigMap/a, create ConfigMap/b"},
		{meanwhile: remove("ConfigMap/a"), drift: []string{"ConfigMap/NS/a: it is not in the cluster"}, done: "change ConfigMap/a", reasons: []string{"it was deleted in the cluster"}, requests: "patch configmaps/a", cluster: "ConfigMap/a made, ConfigMap/b same"},
		{meanwhile: all(remove("ConfigMap/a"), create(configMaps("a=theirs"))),
			drift: []string{"ConfigMap/NS/a: it is not in the cluster any more, or lost the label"}, done: "change ConfigMap/a", reasons: []string{"it was deleted and made anew in the cluster"}},
		{meanwhile: all(remove("ConfigMap/a"), create(strings.ReplaceAll(configMaps("a=theirs"), "namespace: NS", "namespace: NS, labels: {gitseal.io/sync: NS.test}"))),
			drift: []string{"ConfigMap/NS/a: it was deleted and made anew in the cluster"}, done: "change ConfigMap/a", cluster: "ConfigMap/a changed, ConfigMap/b same", then: holds("ConfigMap/a", "data.v=1")},
		idle,
	},
	// 31, 34, 25
	"a label, a tracking label and an annotation of ours are put back": {
		{git: strings.ReplaceAll(configMaps("a=1"), "namespace: NS", "namespace: NS, labels: {l: ours}, annotations: {note: ours}"), done: "create ConfigMap/a"},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"labels":{"l":"theirs"}}}`), drift: []string{`ConfigMap/NS/a: it was changed in the cluster, last by "somebody"`}, done: "change ConfigMap/a", then: holds("ConfigMap/a", "metadata.labels.l=ours")},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"annotations":{"note":null}}}`), drift: []string{"ConfigMap/NS/a: its fields were changed in the cluster"}, done: "change ConfigMap/a", then: holds("ConfigMap/a", "metadata.annotations.note=ours")},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"labels":{"gitseal.io/sync":"other.sync"}}}`), drift: []string{"lost the label gitseal.io/sync"}, done: "change ConfigMap/a", reasons: []string{`its label gitseal.io/sync was changed by "somebody"`},
			then: mentions("ConfigMap/a", `"gitseal.io/sync":"NS.test"`), cluster: "ConfigMap/a changed"},
		idle,
	},
	// 33, 35
	"what others add to an object stays, and costs nothing": {
		{git: configMaps("a=1") + "---\n" + tolerant, done: "create ConfigMap/a, create Deployment/d"},
		{meanwhile: all(patch("ConfigMap/a", `{"metadata":{"labels":{"l":"theirs"},"annotations":{"note":"theirs"},"finalizers":["example.com/hold"]},"data":{"more":"theirs"}}`),
			patch("Deployment/d", `{"spec":{"replicas":2},"metadata":{"annotations":{"note":"theirs"}}}`)), requests: "none"},
		{git: configMaps("a=2") + "---\n" + tolerant, done: "change ConfigMap/a", then: all(holds("ConfigMap/a", "data.more=theirs"), holds("ConfigMap/a", "metadata.labels.l=theirs"),
			holds("ConfigMap/a", "metadata.finalizers=[example.com/hold]"), holds("Deployment/d", "spec.replicas=2"), patch("ConfigMap/a", `{"metadata":{"finalizers":null}}`))},
		idle,
	},
	// 35
	"an object that only carries our label is not looked at": {
		{git: configMaps("a=1"), done: "create ConfigMap/a"},
		{meanwhile: all(create(copied), patch("ConfigMap/copy", `{"data":{"v":"2"}}`), remove("ConfigMap/copy")), requests: "none"},
		{meanwhile: patch("ConfigMap/a", `{"data":{"v":"2"}}`), drift: []string{"ConfigMap/NS/a: "}, done: "change ConfigMap/a"},
	},
	// 33, 35
	"a value that another tool applies as well stays when that one lets it go": {
		{git: configMaps("a=1"), done: "create ConfigMap/a"},
		{meanwhile: applied("ConfigMap/a", `{v: "1", more: theirs}`), requests: "none"},
		{meanwhile: applied("ConfigMap/a", `{more: theirs}`), requests: "none", then: holds("ConfigMap/a", "data.v=1")},
		{meanwhile: applied("ConfigMap/a", `{v: theirs}`), drift: []string{`ConfigMap/NS/a: it was changed in the cluster, last by "tool"`}, done: "change ConfigMap/a", then: holds("ConfigMap/a", "data.v=1")},
		{meanwhile: applied("ConfigMap/a", `{}`), requests: "none", then: holds("ConfigMap/a", "data.v=1")},
	},
	// 32: what git sets is git's, also against a HorizontalPodAutoscaler
	"replicas that git sets are put back after a scale, and replicas that it does not set stay": {
		{git: scaled, done: "create Deployment/d"},
		{meanwhile: scale(3), drift: []string{"Deployment/NS/d: "}, done: "change Deployment/d", then: holds("Deployment/d", "spec.replicas=0")},
		{git: tolerant, done: "change Deployment/d"},
		{meanwhile: scale(2), requests: "none", then: holds("Deployment/d", "spec.replicas=2")},
	},
	// pitfall: lists that belong to one owner as a whole
	"an entry that somebody appends to a list without keys is taken out": {
		{git: tolerant, done: "create Deployment/d"},
		{meanwhile: patchAs("somebody", "Deployment/d", "application/json-patch+json", `[{"op":"add","path":"/spec/template/spec/tolerations/-","value":{"key":"theirs","operator":"Exists"}}]`),
			drift: []string{`Deployment/NS/d: it was changed in the cluster, last by "somebody"`}, done: "change Deployment/d", then: holds("Deployment/d", "spec.template.spec.tolerations=[map[key:k operator:Exists]]")},
	},
	// pitfall: applies without a change that the API server writes all the same
	"an empty list that the API server drops is sent once": {
		{git: emptyLists + roleBinding("b", ""), done: "create NetworkPolicy/p, create RoleBinding/b"},
		idle,
		{meanwhile: patch("NetworkPolicy/p", `{"metadata":{"labels":{"gitseal.io/sync":null}}}`), drift: []string{"NetworkPolicy/NS/p: it is not in the cluster any more, or lost the label"}, done: "change NetworkPolicy/p", reasons: []string{"its label gitseal.io/sync was removed"}, requests: "patch networkpolicies/p"},
		idle,
	},
	// hazard: managedFields that somebody cleared
	"an object whose field ownership was cleared is sent again": {
		{git: configMaps("a=1"), done: "create ConfigMap/a"},
		{meanwhile: patchAs("somebody", "ConfigMap/a", "application/json-patch+json", `[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]`), drift: []string{"ConfigMap/NS/a: its fields were changed"}, done: "change ConfigMap/a"},
		idle,
	},
	// 31
	"an object that asks in the cluster to be left alone is neither repaired nor changed nor pruned": {
		{git: configMaps("a=1", "keep=1"), done: "create ConfigMap/a, create ConfigMap/keep"},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"annotations":{"gitseal.io/reconcile":"disabled"}},"data":{"v":"theirs"}}`), requests: "none"},
		{git: configMaps("a=2", "keep=1"), requests: "none", then: holds("ConfigMap/a", "data.v=theirs")},
		{meanwhile: remove("ConfigMap/a"), drift: []string{"ConfigMap/NS/a: it is not in the cluster"}, done: "change ConfigMap/a", then: holds("ConfigMap/a", "data.v=2")},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"annotations":{"gitseal.io/reconcile":"disabled"}}}`), git: configMaps("keep=1"), requests: "get configmaps/a, patch configmaps/a", then: mentions("ConfigMap/a", `"v":"2"`)},
		idle,
	},
	// 6
	"what others change of an object that is only created is no drift, and it is made again": {
		{git: onlyCreated("1"), done: "create ConfigMap/a"},
		{meanwhile: patch("ConfigMap/a", `{"data":{"v":"theirs"}}`), requests: "none"},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"labels":{"l":"theirs"}},"data":{"v":null}}`), requests: "none"},
		{meanwhile: remove("ConfigMap/a"), drift: []string{"ConfigMap/NS/a: it is not in the cluster"}, done: "change ConfigMap/a", reasons: []string{"it was deleted in the cluster"}, then: holds("ConfigMap/a", "data.v=1")},
		{meanwhile: patch("ConfigMap/a", `{"data":{"v":"theirs"}}`), requests: "none"},
		{git: configMaps("a=2"), done: "change ConfigMap/a", then: holds("ConfigMap/a", "data.v=2")},
		{meanwhile: patch("ConfigMap/a", `{"data":{"v":"theirs"}}`), drift: []string{`ConfigMap/NS/a: it was changed in the cluster, last by "somebody"`}, done: "change ConfigMap/a", then: holds("ConfigMap/a", "data.v=2")},
		{git: onlyCreated("3"), requests: "get configmaps/a", inventory: "ConfigMap/a applied"},
		{meanwhile: patch("ConfigMap/a", `{"data":{"v":"theirs"}}`), requests: "none"},
	},
	// 4
	"what is made anew by force is no drift": {
		{git: roleBinding("one", ""), done: "create RoleBinding/b"},
		{git: roleBinding("two", "gitseal.io/force: enabled"), done: "change RoleBinding/b", cluster: "RoleBinding/b anew"},
		idle,
		{meanwhile: remove("RoleBinding/b"), drift: []string{"RoleBinding/NS/b: it is not in the cluster"}, done: "change RoleBinding/b", requests: "patch rolebindings/b"},
	},
	// 27, 35
	"a kind that comes with a later commit is watched from then on": {
		{git: configMaps("a=1"), done: "create ConfigMap/a"},
		{git: configMaps("a=1") + "---\n" + versions("true", "false") + newVersion + widget("v1"), done: "create CustomResourceDefinition/widgets.GROUP, create Widget/one"},
		{meanwhile: patch("Widget.GROUP/one", `{"spec":{"size":5}}`), drift: []string{`Widget/NS/one: it was changed in the cluster, last by "somebody"`}, done: "change Widget/one", then: holds("Widget.GROUP/one", "spec.size=3")},
		idle,
	},
	// hazard: Terminating namespaces
	"a namespace that somebody deletes comes back with all that is in it": {
		{git: namespace("NS-in", "") + inside("NS-in", configMaps("a=1", "b=1")), done: "create Namespace/NS-in, create ConfigMap/a, create ConfigMap/b"},
		{meanwhile: all(remove("Namespace/NS-in"), gone("Namespace/NS-in")), drift: []string{"ConfigMap/NS-in/a: it is not in the cluster", "ConfigMap/NS-in/b: it is not in the cluster", "Namespace/NS-in: it is not in the cluster"},
			done: "change Namespace/NS-in, change ConfigMap/a, change ConfigMap/b", cluster: "ConfigMap/a made, ConfigMap/b made, Namespace/NS-in made"},
		idle,
	},
	// hazard: Terminating namespaces
	"while a namespace is on its way out what is in it fails by name, and comes back later": {
		{git: namespace("NS-in", "") + inside("NS-in", configMaps("a=1", "held=1")), done: "create Namespace/NS-in, create ConfigMap/a, create ConfigMap/held"},
		{meanwhile: all(patch("ConfigMap/NS-in/held", `{"metadata":{"finalizers":["example.com/hold"]}}`), remove("Namespace/NS-in"), gone("ConfigMap/NS-in/a")),
			drift: []string{"ConfigMap/NS-in/a: it is not in the cluster"}, failed: []string{`ConfigMap/NS-in/a: the API server refused it: Forbidden (403): configmaps "a" is forbidden: unable to create new content in namespace NS-in because it is being terminated`},
			inventory: "ConfigMap/a intended, ConfigMap/held applied, Namespace/NS-in applied"},
		{meanwhile: all(patch("ConfigMap/NS-in/held", `{"metadata":{"finalizers":null}}`), gone("Namespace/NS-in")), plan: func(*PlanInput) {}, drift: []string{"ConfigMap/NS-in/held: it is not in the cluster", "Namespace/NS-in: it is not in the cluster"},
			done: "change Namespace/NS-in, change ConfigMap/a, change ConfigMap/held", cluster: "ConfigMap/a made, ConfigMap/held made, Namespace/NS-in made"},
	},
	// 36
	"a kind that somebody uninstalled is not asked for again and again": {
		{meanwhile: create(strings.TrimSuffix(versions("true", "false")+newVersion, "---\n")), git: configMaps("a=1"), done: "create ConfigMap/a"},
		{meanwhile: eventually(served), git: configMaps("a=1") + "---\n" + widget("v1"), done: "create Widget/one"},
		{meanwhile: all(remove("CustomResourceDefinition/widgets.GROUP"), gone("CustomResourceDefinition/widgets.GROUP"), eventually(notServed)), drift: []string{"Widget/NS/one: it "},
			failed: []string{"Widget/NS/one: the API server refused it: NotFound (404)"}, inventory: "ConfigMap/a applied, Widget/one intended"},
		{git: configMaps("a=1"), requests: "get widgets/one", then: func(p *player) error {
			if bad := p.run.Drift.Unhealthy(); len(bad) > 0 {
				return errors.New("a kind that is gone counts as one that can not be watched")
			}
			return nil
		}},
	},
}

// applied is a server-side apply by another tool.
func applied(ref, data string) act {
	return patchAs("tool", ref, types.ApplyPatchType, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: "+data)
}

func scale(replicas int) act {
	return func(p *player) error {
		_, err := p.client.AppsV1().Deployments(p.ns).Patch(p.t.Context(), "d", types.MergePatchType, fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas), metav1.PatchOptions{FieldManager: "hpa"}, "scale")
		return err
	}
}

const emptyLists = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: NS, annotations: {}}
spec: {podSelector: {}, ingress: [], egress: [], policyTypes: [Ingress]}
---
`
