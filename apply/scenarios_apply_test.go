package apply

import (
	"slices"
	"strings"
)

// mixed is a manifest of many kinds, with all that makes a comparison of git with
// the cluster go wrong: defaults, quantities, null, empty lists, stringData.
const mixed = used + `apiVersion: v1
kind: Service
metadata: {name: app, namespace: NS, labels: {}}
spec: {type: NodePort, selector: {a: b}, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: NS, creationTimestamp: null}
spec:
  replicas: 0
  selector: {matchLabels: {a: b}}
  template:
    metadata: {creationTimestamp: null, labels: {a: b}}
    spec:
      containers:
        - {name: c, image: x, env: [], resources: {limits: {cpu: 1000m, memory: 1024Mi}}, ports: [{containerPort: 80}], livenessProbe: {httpGet: {path: /, port: 80}}}
      volumes: [{name: e, emptyDir: {}}]
status: {}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: app, namespace: NS}
spec:
  replicas: 0
  serviceName: app
  selector: {matchLabels: {a: c}}
  template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: x}]}}
  volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: "1.5Gi"}}}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: app, namespace: NS}
spec: {schedule: "0 0 1 1 *", suspend: true, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: app, namespace: NS}
spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: app}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: app, namespace: NS}
spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: app, namespace: NS}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: app, namespace: NS}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: app}
subjects: []
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: app, namespace: NS}
spec: {minAvailable: 1, selector: {matchLabels: {a: b}}}
`

var mixedKinds = []string{"PersistentVolumeClaim", "Role", "ConfigMap", "Secret", "ServiceAccount", "Service", "Deployment", "StatefulSet", "CronJob",
	"HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "RoleBinding", "PodDisruptionBudget"}

// each writes pattern once for each object of mixed.
func each(pattern string) string {
	var out []string
	for _, k := range mixedKinds {
		out = append(out, strings.ReplaceAll(pattern, "OBJECT", k+"/app"))
	}
	return strings.Join(out, ", ")
}

func sortedList(list string) string {
	return strings.Join(slices.Sorted(strings.SplitSeq(list, ", ")), ", ")
}

func everything(in *PlanInput) {
	in.Drifted = map[ID]string{}
	for _, d := range in.Desired {
		in.Drifted[d.ID] = "sent again"
	}
}

const twoVersions = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
    - name: v1beta1
      served: SERVED
      storage: STORED
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
`

const newVersion = `    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}, mode: {type: string, default: fast}}}}}}
---
`

func versions(served, stored string) string {
	return strings.NewReplacer("SERVED", served, "STORED", stored).Replace(twoVersions)
}

func widget(version string) string {
	return "apiVersion: GROUP/" + version + "\nkind: Widget\nmetadata: {name: one, namespace: NS}\nspec: {size: 3}\n"
}

var applyStories = map[string]story{
	// 2, 13
	"a commit that changes one object touches that one only": {
		{git: configMaps("a=1", "b=1", "c=1"), done: "create ConfigMap/a, create ConfigMap/b, create ConfigMap/c"},
		{git: configMaps("a=1", "b=2", "c=1"), done: "change ConfigMap/b", requests: "patch configmaps/b",
			cluster: "ConfigMap/a same, ConfigMap/b changed, ConfigMap/c same"},
		{requests: "none", cluster: "ConfigMap/a same, ConfigMap/b same, ConfigMap/c same"},
	},
	// 5
	"what the API server makes of a manifest is no drift, and sending it again changes nothing": {
		{git: mixed, done: each("create OBJECT")},
		{requests: "none", cluster: sortedList(each("OBJECT same"))},
		{plan: everything, done: each("change OBJECT"), cluster: sortedList(each("OBJECT same"))},
		{requests: "none"},
	},
	// 5
	"an object in a namespace that is not there is named, and applied once it is": {
		{git: configMaps("a=1") + "---\n" + strings.ReplaceAll(configMaps("lost=1"), "namespace: NS", "namespace: NS-later"),
			done: "create ConfigMap/a", failed: []string{`ConfigMap/NS-later/lost: the API server refused it: NotFound (404): namespaces "NS-later" not found`},
			inventory: "ConfigMap/a applied, ConfigMap/lost intended", cluster: "ConfigMap/a made, ConfigMap/lost absent"},
		{meanwhile: create("apiVersion: v1\nkind: Namespace\nmetadata: {name: NS-later}\n"), done: "change ConfigMap/lost",
			cluster: "ConfigMap/a same, ConfigMap/lost made", then: remove("Namespace/NS-later")},
	},
	// 6
	"a namespace on an object that is in none changes nothing": {
		{git: "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: NS-role, namespace: NS}\nrules: []\n", done: "create ClusterRole/NS-role"},
		{git: "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: NS-role}\nrules: []\n", done: "change ClusterRole/NS-role", cluster: "ClusterRole/NS-role same"},
		{requests: "none"},
	},
	// 7
	"a field that kubectl edit wrote goes when it leaves git": {
		{git: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NS}\ndata: {kept: git, gone: git}\n", done: "create ConfigMap/a"},
		{meanwhile: patchAs("kubectl-edit", "ConfigMap/a", "application/merge-patch+json", `{"data":{"gone":"edited"}}`),
			drift: []string{`ConfigMap/NS/a: it was changed in the cluster, last by "kubectl-edit"`}, done: "change ConfigMap/a", then: holds("ConfigMap/a", "data.gone=git")},
		{git: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NS}\ndata: {kept: git}\n", done: "change ConfigMap/a",
			cluster: "ConfigMap/a changed", then: all(holds("ConfigMap/a", "data.gone="), holds("ConfigMap/a", "data.kept=git"))},
	},
	// 9
	"a CRD and its objects move to a new version with a new default": {
		{git: versions("true", "true") + "---\n" + widget("v1beta1"), done: "create CustomResourceDefinition/widgets.GROUP, create Widget/one"},
		{git: versions("true", "false") + newVersion + widget("v1beta1"), done: "change CustomResourceDefinition/widgets.GROUP", cluster: "CustomResourceDefinition/widgets.GROUP changed, Widget/one same"},
		{git: versions("true", "false") + newVersion + widget("v1"), done: "change Widget/one", then: holds("Widget.GROUP/one", "spec.mode=fast")},
		{git: versions("false", "false") + newVersion + strings.ReplaceAll(widget("v1"), "3", "4"), done: "change CustomResourceDefinition/widgets.GROUP, change Widget/one",
			then: all(holds("Widget.GROUP/one", "spec.mode=fast"), holds("Widget.GROUP/one", "spec.size=4"))},
		{requests: "none"},
	},
	// 10
	"a CA bundle that somebody else puts in stays": {
		{git: webhook, done: "create ValidatingWebhookConfiguration/NS-hook"},
		{meanwhile: patchAs("cert-manager", "ValidatingWebhookConfiguration/NS-hook", "application/json-patch+json", `[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"Y2E="}]`), requests: "none"},
		{git: strings.ReplaceAll(webhook, "timeoutSeconds: 1", "timeoutSeconds: 2"), done: "change ValidatingWebhookConfiguration/NS-hook",
			then: mentions("ValidatingWebhookConfiguration/NS-hook", `"caBundle":"Y2E="`)},
	},
	// 25
	"what is in the cluster already is taken over, not made anew": {
		{meanwhile: create(configMaps("a=old") + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: NS-old}\n---\n" + strings.ReplaceAll(configMaps("inside=theirs"), "namespace: NS", "namespace: NS-old")),
			git: configMaps("a=1") + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: NS-old}\n", done: "adopt ConfigMap/a, adopt Namespace/NS-old",
			reasons: []string{"new in git; it was there already", "new in git; it was there already"}, requests: "patch configmaps/a, patch configmaps/a, patch namespaces/NS-old", cluster: "ConfigMap/a changed, Namespace/NS-old changed"},
		{git: configMaps("a=1"), kept: []string{"Namespace/NS-old: holds ConfigMap/inside, which would be deleted with it; remove it, or take the namespace out"},
			inventory: "ConfigMap/a applied, Namespace/NS-old applied", cluster: "ConfigMap/a same, Namespace/NS-old same", then: holds("ConfigMap/NS-old/inside", "data.v=theirs")},
	},
	// pitfall: the key of a Service's ports is port and protocol
	"a port of a Service changes its protocol, and its number": {
		{git: service("{name: dns, port: 53}"), done: "create Service/s"},
		{git: service("{name: dns, port: 53, protocol: UDP}"), done: "change Service/s", cluster: "Service/s changed"},
		{git: service("{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}"), done: "change Service/s", cluster: "Service/s changed"},
		{git: service("{name: dns, port: 54, protocol: UDP}"), done: "change Service/s", cluster: "Service/s changed"},
		{requests: "none"},
	},
}

func service(ports string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: NS}\nspec: {selector: {a: b}, ports: [" + ports + "]}\n"
}

// webhook is asked about nothing that any test sends.
const webhook = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: NS-hook}
webhooks:
  - name: hook.GROUP
    clientConfig: {service: {name: hook, namespace: NS}}
    rules: [{apiGroups: [GROUP], apiVersions: [v9], resources: [nothing], operations: [CREATE]}]
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Ignore
    timeoutSeconds: 1
`
