package apply

import "strings"

func namespace(name, labels string) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + ", labels: {" + labels + "}}\n---\n"
}

func inside(ns string, manifests ...string) string {
	return strings.ReplaceAll(strings.Join(manifests, "---\n"), "namespace: NS", "namespace: "+ns)
}

// refusedMap has a key that no ConfigMap may have.
const refusedMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad, namespace: NS}\ndata: {not a key: x}\n---\n"

// users come before what they use, here and in git.
const users = `apiVersion: v1
kind: Pod
metadata: {name: app, namespace: NS}
spec:
  serviceAccountName: app
  automountServiceAccountToken: false
  containers: [{name: c, image: x, envFrom: [{secretRef: {name: app}}, {configMapRef: {name: app}}]}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: app}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: app, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: app}
subjects: [{kind: ServiceAccount, name: app, namespace: NS}]
---
`

const used = `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: app, namespace: NS}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1024Mi}}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: app, namespace: NS}
rules: []
---
apiVersion: v1
kind: ConfigMap
metadata: {name: app, namespace: NS}
---
apiVersion: v1
kind: Secret
metadata: {name: app, namespace: NS}
stringData: {a: b}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: app, namespace: NS}
---
`

var orderStories = map[string]story{
	// 1, 11
	"a CRD, a namespace, a class and what needs them arrive in one commit": {
		{git: widget("v1") + "---\n" + strings.ReplaceAll(claim, "namespace: NS", "namespace: NS-in") + namespace("NS-in", "") + class + versions("true", "false") + strings.TrimSuffix(newVersion, "---\n"),
			done:  "create Widget/one, create PersistentVolumeClaim/a, create Namespace/NS-in, create StorageClass/NS-class, create CustomResourceDefinition/widgets.GROUP",
			order: "patch customresourcedefinitions/widgets.GROUP, patch widgets/one", then: holds("PersistentVolumeClaim/NS-in/a", "spec.storageClassName=NS-class")},
		{requests: "none"},
	},
	// 15
	"what an object uses comes before it, and goes after it": {
		{git: inside("NS-in", users+used) + namespace("NS-in", ""), done: "create Pod/app, create RoleBinding/app, create PersistentVolumeClaim/app, create Role/app, create ConfigMap/app, create Secret/app, create ServiceAccount/app, create Namespace/NS-in",
			order: "patch namespaces/NS-in, patch serviceaccounts/app, patch pods/app"},
		{requests: "none"},
		{git: configMaps("keep=1"), done: "create ConfigMap/keep, prune Pod/app, prune RoleBinding/app, prune ConfigMap/app, prune PersistentVolumeClaim/app, prune Secret/app, prune ServiceAccount/app, prune Role/app, prune Namespace/NS-in",
			order:     "patch configmaps/keep, delete pods/app, delete rolebindings/app, delete secrets/app, delete serviceaccounts/app, delete roles/app, delete namespaces/NS-in",
			inventory: "ConfigMap/keep applied, Namespace/NS-in terminating, PersistentVolumeClaim/app terminating"},
		{meanwhile: gone("Namespace/NS-in"), requests: "get namespaces/NS-in, get persistentvolumeclaims/app"},
	},
	// 11
	"what is in a namespace that was refused waits for it, and nothing else does": {
		{git: namespace("NS-in", `a: "no label!"`) + inside("NS-in", configMaps("a=1")) + "---\n" + configMaps("b=1"), done: "create ConfigMap/b",
			failed:  []string{"Namespace/NS-in: the API server refused it: Invalid (422)"},
			waiting: []string{"ConfigMap/NS-in/a: waits for Namespace/NS-in, which was not applied"},
			cluster: "ConfigMap/a absent, ConfigMap/b made, Namespace/NS-in absent", requests: "patch configmaps/b, patch namespaces/NS-in",
			inventory: "ConfigMap/a intended, ConfigMap/b applied, Namespace/NS-in intended"},
		{git: namespace("NS-in", "") + inside("NS-in", configMaps("a=1")) + "---\n" + configMaps("b=1"), done: "change Namespace/NS-in, change ConfigMap/a",
			order: "patch namespaces/NS-in, patch configmaps/a"},
	},
	// 12
	"objects of a CRD that was refused wait for it, and nothing is pruned meanwhile": {
		{git: configMaps("old=1"), done: "create ConfigMap/old"},
		{git: widget("v1") + "---\n" + configMaps("a=1") + "---\n" + strings.ReplaceAll(versions("true", "true"), "type: integer", "type: wrong") + strings.TrimSuffix(newVersion, "---\n"),
			done: "create ConfigMap/a", failed: []string{"CustomResourceDefinition/widgets.GROUP: the API server refused it: Invalid (422)"},
			waiting:   []string{"Widget/NS/one: waits for CustomResourceDefinition/widgets.GROUP, which was not applied"},
			inventory: "ConfigMap/a applied, ConfigMap/old applied, CustomResourceDefinition/widgets.GROUP intended, Widget/one intended"},
		{git: configMaps("a=1"), done: "prune ConfigMap/old"},
	},
	// 12
	"a CRD whose names another one has is named, and its objects wait": {
		{git: versions("true", "false") + newVersion + configMaps("a=1"), done: "create CustomResourceDefinition/widgets.GROUP, create ConfigMap/a"},
		{git: versions("true", "false") + newVersion + strings.ReplaceAll(versions("true", "false")+newVersion, "widget", "gadget") + strings.ReplaceAll(widget("v1"), "Widget", "Other") + "---\n" + configMaps("a=1"),
			done:      "",
			failed:    []string{`CustomResourceDefinition/gadgets.GROUP: names of CRD gadgets.GROUP were not accepted: "`, "Other/NS/one: the cluster does not know GROUP/v1 Other; is its CRD missing?"},
			inventory: "ConfigMap/a applied, CustomResourceDefinition/gadgets.GROUP intended, CustomResourceDefinition/widgets.GROUP applied"},
	},
	// 26
	"a failure in a wave holds up all higher waves and no lower one": {
		{git: wave("low", "-1", "{}") + strings.Replace(refusedMap, "namespace: NS", "namespace: NS, annotations: {argocd.argoproj.io/sync-wave: \"0\"}", 1) + configMaps("zero=1") + "---\n" + wave("one", "1", "{}") + wave("two", "2", "{}"),
			done: "create ConfigMap/low, create ConfigMap/zero", failed: []string{"ConfigMap/NS/bad: the API server refused it: Invalid (422)"},
			waiting:   []string{"ConfigMap/NS/one: waits for ConfigMap/NS/bad, which was not applied", "ConfigMap/NS/two: waits for ConfigMap/NS/bad, which was not applied"},
			inventory: "ConfigMap/bad intended, ConfigMap/low applied, ConfigMap/one intended, ConfigMap/two intended, ConfigMap/zero applied"},
		{git: wave("low", "-1", "{}") + configMaps("zero=1") + "---\n" + wave("one", "1", "{}") + wave("two", "2", "{}"), done: "change ConfigMap/one, change ConfigMap/two", order: "patch configmaps/one, patch configmaps/two"},
	},
	// 15
	"a webhook comes last, also where something else failed": {
		{git: webhook + "---\n" + refusedMap + configMaps("a=1"), done: "create ValidatingWebhookConfiguration/NS-hook, create ConfigMap/a",
			failed: []string{"ConfigMap/NS/bad: the API server refused it: Invalid (422)"}, order: "patch validatingwebhookconfigurations/NS-hook",
			inventory: "ConfigMap/a applied, ConfigMap/bad intended, ValidatingWebhookConfiguration/NS-hook applied"},
		{git: configMaps("a=1"), done: "prune ValidatingWebhookConfiguration/NS-hook", requests: "delete validatingwebhookconfigurations/NS-hook, get configmaps/bad, get validatingwebhookconfigurations/NS-hook"},
	},
}

const class = "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: NS-class}\nprovisioner: example.com/none\n---\n"

const claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: a, namespace: NS}\nspec: {storageClassName: NS-class, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n---\n"
