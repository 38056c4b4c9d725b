package apply

import (
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func annotated(kind, entry string) string {
	return strings.ReplaceAll(configMaps("x=1"), "namespace: NS", "namespace: NS, "+kind+": {"+entry+"}") + "---\n" + configMaps("keep=1")
}

// keeps is the story of an object that asks to be kept in some way.
func keeps(kind, entry, fate string) story {
	return story{
		{git: annotated(kind, entry), done: "create ConfigMap/x, create ConfigMap/keep"},
		{git: configMaps("keep=1"), cluster: "ConfigMap/keep same, ConfigMap/x " + fate},
	}
}

func handedOverInGit(annotation string) story {
	return story{
		{git: configMaps("x=1", "keep=1"), done: "create ConfigMap/x, create ConfigMap/keep"},
		{git: annotated("annotations", annotation), requests: "none"},
		{meanwhile: patch("ConfigMap/x", `{"data":{"v":"theirs"}}`), drift: []string{"ConfigMap/NS/x: "}, requests: "none", then: holds("ConfigMap/x", "data.v=theirs")},
		{git: configMaps("keep=1"), drift: []string{"ConfigMap/NS/x: "}, then: holds("ConfigMap/x", "data.v=theirs")},
	}
}

func freeze(p *player) error {
	return all(refuse("UPDATE", "storage.k8s.io", "storageclasses", "request.name == 'NS-class'", "changes are frozen this week"), eventually(refuses(changeable)))(p)
}

func changeable(p *player) error {
	_, err := p.client.StorageV1().StorageClasses().Patch(p.t.Context(), p.text("NS-class"), types.MergePatchType, []byte(`{"metadata":{"labels":{"try":"it"}}}`), metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// event writes one in either of its two groups, the same in both.
func event(apiVersion, about, by, text string) string {
	return "apiVersion: " + apiVersion + "\nkind: Event\nmetadata: {name: e, namespace: NS}\neventTime: \"2026-01-01T00:00:00.000000Z\"\nreason: r\naction: a\ntype: Normal\nreportingInstance: i\n" +
		about + ": {kind: Pod, name: p, namespace: NS, apiVersion: v1}\n" + by + ": c\n" + text + ": m\n"
}

// moreStories are those of corners where an engine easily goes wrong.
var moreStories = map[string]story{
	// 28, hazard: namespace in prune set
	"a namespace that leaves git while its objects stay is kept": {
		{git: namespace("NS-in", "") + inside("NS-in", configMaps("a=1")), done: "create Namespace/NS-in, create ConfigMap/a"},
		{git: inside("NS-in", configMaps("a=1")), kept: []string{"Namespace/NS-in: holds ConfigMap/a"}, inventory: "ConfigMap/a applied, Namespace/NS-in applied",
			cluster: "ConfigMap/a same, Namespace/NS-in same"},
	},
	// 17, hazard: namespace in prune set
	"a namespace with an object whose delete was refused is kept": {
		{git: namespace("NS-in", "") + inside("NS-in", configMaps("x=1")) + "---\n" + configMaps("keep=1", "x=1"), done: "create Namespace/NS-in, create ConfigMap/x, create ConfigMap/keep, create ConfigMap/x"},
		{meanwhile: keepX, git: configMaps("keep=1", "x=1"),
			kept: []string{"ConfigMap/NS-in/x: the API server refused it", "Namespace/NS-in: holds ConfigMap/x"}, inventory: "ConfigMap/keep applied, ConfigMap/x applied, ConfigMap/x applied, Namespace/NS-in applied"},
	},
	// 28, hazard: one UID under two groups
	"an object that git moves to another API group is not deleted under its old one": {
		{git: event("v1", "involvedObject", "reportingComponent", "message"), done: "create Event/e"},
		{git: event("events.k8s.io/v1", "regarding", "reportingController", "note"), done: "adopt Event/e", cluster: "Event/e changed, Event/e changed"},
	},
	// 24, hazard: retain annotation
	"an object that asks Config Sync to keep it stays": keeps("annotations", "client.lifecycle.config.k8s.io/deletion: detach", "changed"),
	"an object with the label of Flux stays":           keeps("labels", "kustomize.toolkit.fluxcd.io/prune: disabled", "changed"),
	"an object that Argo CD would ask about stays":     keeps("annotations", "argocd.argoproj.io/sync-options: Prune=confirm", "changed"),
	// 20, 31, hazard: retain annotation. Git asks for it, so it is not written to the cluster.
	"an object that was handed over with ssa Ignore is not pruned":         handedOverInGit("gitseal.io/ssa: Ignore"),
	"an object that was handed over with reconcile disabled is not pruned": handedOverInGit("gitseal.io/reconcile: disabled"),
	// 4
	"force does not get around a policy that forbids changes": {
		{git: storageClass("one", force), done: "create StorageClass/NS-class"},
		{meanwhile: freeze, git: storageClass("one", force+", a: b"), failed: []string{"StorageClass/NS-class: the API server refused it"}, cluster: "StorageClass/NS-class same",
			inventory: "StorageClass/NS-class intended", then: allowAgain},
	},
	// 25
	"an object that was moved as the manual says is pruned by its new Sync": {
		{meanwhile: all(otherSync(annotated("annotations", "gitseal.io/prune: disabled"), ""), otherSync(configMaps("keep=1"), "")), git: configMaps("x=2", "mine=1"), done: "adopt ConfigMap/x, create ConfigMap/mine", reasons: []string{"", "new in git"},
			cluster: "ConfigMap/mine made, ConfigMap/x changed"},
		{git: configMaps("mine=1"), done: "prune ConfigMap/x"},
	},
	// 26
	"a webhook of a higher wave waits for what failed before it": {
		{git: strings.Replace(webhook, "{name: NS-hook}", `{name: NS-hook, annotations: {gitseal.io/wave: "1"}}`, 1) + "---\n" + refusedMap, failed: []string{"ConfigMap/NS/bad: "},
			waiting: []string{"ValidatingWebhookConfiguration/NS-hook: waits for ConfigMap/NS/bad"}, inventory: "ConfigMap/bad intended, ValidatingWebhookConfiguration/NS-hook intended"},
	},
	// 26
	"an unknown kind holds up the waves after it": {
		{git: "apiVersion: nowhere.example.com/v1\nkind: Thing\nmetadata: {name: x, namespace: NS}\n---\n" + wave("late", "1", "{}"), failed: []string{"Thing/NS/x: the cluster does not know"},
			waiting: []string{"ConfigMap/NS/late: waits for Thing/NS/x"}, inventory: "ConfigMap/late intended"},
	},
	// 5, 11
	"what is wrong in a new namespace is said without talk of making it anew": {
		{git: namespace("NS-in", `a: "no label!"`), failed: []string{"Namespace/NS-in: "}, inventory: "Namespace/NS-in intended", then: func(p *player) error {
			res := p.apply(p.input(p.git))
			if got := fmt.Sprint(res.Failed); strings.Contains(got, "anew") {
				return errors.New(got)
			}
			return nil
		}},
	},
	// 33, 35, pitfall: empty maps
	"what others add to a map that is empty in git stays, and costs nothing": {
		{git: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NS, annotations: {}}\ndata: {}\n", done: "create ConfigMap/a"},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"annotations":{"leader":"1"}}}`), requests: "none"},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"annotations":{"leader":"2"}}}`), requests: "none"},
		{meanwhile: patch("ConfigMap/a", `{"data":{"v":"theirs"}}`), requests: "none", then: holds("ConfigMap/a", "data.v=theirs")},
	},
	// 32, 36
	"a report of drift names the autoscaler": {
		{git: scaled, done: "create Deployment/d"},
		{meanwhile: scale(3), drift: []string{`Deployment/NS/d: it was changed in the cluster, last by "hpa"`}, done: "change Deployment/d"},
	},
	// 15
	"a claim goes after the Pod that uses it": {
		{git: users + used + namespace("NS-in", ""), done: "create Pod/app, create RoleBinding/app, create PersistentVolumeClaim/app, create Role/app, create ConfigMap/app, create Secret/app, create ServiceAccount/app, create Namespace/NS-in"},
		{git: namespace("NS-in", ""), done: "prune Pod/app, prune RoleBinding/app, prune ConfigMap/app, prune PersistentVolumeClaim/app, prune Secret/app, prune ServiceAccount/app, prune Role/app",
			inventory: "Namespace/NS-in applied, PersistentVolumeClaim/app terminating"},
	},
}
