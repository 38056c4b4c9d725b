package apply

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/decrypt"
)

func parsed(t *testing.T, manifest string) Desired {
	t.Helper()
	var o map[string]any
	if err := yaml.Unmarshal([]byte(manifest), &o); err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: o}
	gvk := u.GroupVersionKind()
	return Desired{ID: ID{Group: gvk.Group, Kind: gvk.Kind, Namespace: u.GetNamespace(), Name: u.GetName()}, Object: decrypt.Object{Masked: u}}
}

func TestWhatAnObjectNamesComesBeforeIt(t *testing.T) {
	t.Parallel()
	hashed := map[ID]bool{{Kind: "Secret", Namespace: "ns", Name: "app-bcdfghkmt2"}: true, {Kind: "Secret", Namespace: "other", Name: "far-bcdfghkmt2"}: true}
	for name, c := range map[string]struct {
		manifest string
		want     string
	}{
		"a pod's volumes, env, pull secrets and account": {`{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: ns}, spec: {template: {spec: {
  serviceAccountName: sa, imagePullSecrets: [{name: pull}], containers: [{name: c, env: [{name: A, valueFrom: {secretKeyRef: {name: env, key: password}}}, {name: B, valueFrom: {configMapKeyRef: {name: cm, key: k}}}], envFrom: [{secretRef: {name: from}}, {configMapRef: {name: cmf}}]}],
  volumes: [{name: a, secret: {secretName: vol}}, {name: b, projected: {sources: [{secret: {name: proj}}, {configMap: {name: cmp}}]}}, {name: c, persistentVolumeClaim: {claimName: pvc}}, {name: d, csi: {nodePublishSecretRef: {name: csi}}}]}}}}`,
			"ConfigMap/cm ConfigMap/cmf ConfigMap/cmp PersistentVolumeClaim/pvc Secret/csi Secret/env Secret/from Secret/proj Secret/pull Secret/vol ServiceAccount/sa"},
		"an Ingress' TLS and its annotation": {`{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i, namespace: ns, annotations: {nginx.ingress.kubernetes.io/auth-secret: ns/basic}}, spec: {tls: [{hosts: [a], secretName: tls}]}}`, "Secret/basic Secret/tls"},
		"a ServiceAccount":                   {`{apiVersion: v1, kind: ServiceAccount, metadata: {name: s, namespace: ns}, secrets: [{name: tok}], imagePullSecrets: [{name: pull}]}`, "Secret/pull Secret/tok"},
		"a HelmRelease's values":             {`{apiVersion: helm.toolkit.fluxcd.io/v2, kind: HelmRelease, metadata: {name: h, namespace: ns}, spec: {valuesFrom: [{kind: Secret, name: values}, {kind: ConfigMap, name: plain}]}}`, "Secret/values"},
		"an issuer":                          {`{apiVersion: cert-manager.io/v1, kind: Issuer, metadata: {name: i, namespace: ns}, spec: {acme: {solvers: [{dns01: {cloudflare: {apiTokenSecretRef: {name: cf, key: token}}}}]}}}`, "Secret/cf"},
		"a Gateway's certificate":            {`{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: g, namespace: ns}, spec: {listeners: [{tls: {certificateRefs: [{name: cert}]}}]}}`, "Secret/cert"},
		"a generated name in any field":      {`{apiVersion: example.com/v1, kind: Thing, metadata: {name: t, namespace: ns}, spec: {deep: [{uses: app-bcdfghkmt2}, {uses: far-bcdfghkmt2}]}}`, "Secret/app-bcdfghkmt2"},
		"a generated name, cluster-wide":     {`{apiVersion: example.com/v1, kind: Thing, metadata: {name: t}, spec: {uses: far-bcdfghkmt2}}`, "Secret/far-bcdfghkmt2"},
		"a Secret names nothing":             {`{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: ns, annotations: {secret: x}}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, id := range references([]Desired{parsed(t, c.manifest)}, hashed, nil)[0] {
				got = append(got, id.Kind+"/"+id.Name)
			}
			if d := cmp.Diff(strings.Fields(c.want), slices.Sorted(slices.Values(got))); d != "" && len(c.want)+len(got) > 0 {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestAWorkloadComesAfterTheRightsOfItsAccount(t *testing.T) {
	t.Parallel()
	pod := parsed(t, `{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}, spec: {serviceAccountName: sa, containers: []}}`)
	other := parsed(t, `{apiVersion: v1, kind: Pod, metadata: {name: q, namespace: ns}, spec: {serviceAccountName: other, containers: []}}`)
	account := parsed(t, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: sa, namespace: ns}}`)
	role := parsed(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: r, namespace: ns}}`)
	binding := parsed(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: b, namespace: ns}, roleRef: {kind: Role, name: r, apiGroup: rbac.authorization.k8s.io}, subjects: [{kind: ServiceAccount, name: sa, namespace: ns}]}`)
	all := []Desired{pod, other, account, role, binding}
	if d := cmp.Diff([][]int{{2, 4}, {}, {}, {}, {2, 3}}, normal(edges(all, references(all, nil, nil)))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestASecretOfASealedSecretIsWaitedForInBothForms(t *testing.T) {
	t.Parallel()
	sealed := parsed(t, `{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: a, namespace: ns}}`)
	pod := parsed(t, `{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: ns}, spec: {containers: [{envFrom: [{secretRef: {name: a}}]}]}}`)
	all := []Desired{pod, sealed}
	if d := cmp.Diff([][]int{{1}, {}}, normal(edges(all, references(all, nil, nil)))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, refused := range []ID{sealed.ID, secretOf(sealed.ID)} {
		p := Plan{Desired: []Desired{pod}, refused: map[ID]bool{refused: true}}
		if b, _ := blocker(p, nil, references(p.Desired, p.refused, nil), []outcome{{}}, 0); b == "" {
			t.Errorf("the pod goes on although %s was refused", refused)
		}
	}
}

func normal(in [][]int) [][]int {
	out := make([][]int, len(in))
	for i, e := range in {
		out[i] = append([]int{}, e...)
	}
	return out
}

func TestAPlanHandsPairsOver(t *testing.T) {
	t.Parallel()
	secret := parsed(t, `{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: ns}}`)
	sealed := parsed(t, `{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: a, namespace: ns}}`)
	inventory := func(id ID) Inventory {
		return Inventory{Source: "s", Entries: map[ID]Entry{id: {Version: "v1", Phase: Applied}}}
	}
	in := PlanInput{Desired: []Desired{secret}, Inventory: inventory(sealed.ID), Source: "s", Prune: true, Limit: PruneLimit{Objects: 1}}
	for range 30 { // far over the limit, if they counted
		id := ID{Group: sealedSecretsGroup, Kind: sealedSecretKind, Namespace: "ns", Name: strings.Repeat("x", len(in.Desired))}
		in.Inventory.Entries[id] = Entry{Version: "v1alpha1", Phase: Applied}
		in.Desired = append(in.Desired, Desired{ID: secretOf(id), Object: secret.Object})
	}
	p := NewPlan(in)
	if p.PruneBlocked != "" || p.Count(Prune) != 31 {
		t.Errorf("to the agent: %d prunes, blocked %q", p.Count(Prune), p.PruneBlocked)
	}
	p = NewPlan(PlanInput{Desired: []Desired{sealed}, Inventory: inventory(secret.ID), Source: "s", Prune: true})
	if p.Count(Release) != 1 || p.Count(Prune) != 0 {
		t.Errorf("to the controller: %v", p.Steps)
	}
	p = NewPlan(PlanInput{Desired: []Desired{sealed}, Inventory: inventory(secret.ID), Source: "s", Prune: true, Incomplete: "x"})
	if p.Count(Release) != 0 || p.Count(Blocked) != 1 {
		t.Errorf("while the pass is incomplete: %v", p.Steps)
	}
}
