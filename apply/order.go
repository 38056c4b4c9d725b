package apply

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// edges says, for each desired object, which others must be applied before it
// (by index). They follow from what objects need of each other, not from fixed
// stages: unrelated objects go at once.
func edges(desired []Desired) [][]int {
	at := make(map[ID]int, len(desired))
	crds := map[string]int{} // group/kind → the CRD that defines it
	for i, d := range desired {
		at[d.ID] = i
		if isCRD(d.ID.GroupKind()) {
			group, _, _ := unstructured.NestedString(d.Object.Masked.Object, "spec", "group")
			k, _, _ := unstructured.NestedString(d.Object.Masked.Object, "spec", "names", "kind")
			crds[group+"/"+k] = i
		}
	}
	out := make([][]int, len(desired))
	for i, d := range desired {
		before := map[int]bool{}
		need := func(id ID) {
			if j, ok := at[id]; ok && j != i {
				before[j] = true
			}
		}
		if j, ok := crds[d.ID.Group+"/"+d.ID.Kind]; ok {
			before[j] = true
		}
		if d.ID.Namespace != "" {
			need(ID{Kind: "Namespace", Name: d.ID.Namespace})
		}
		for _, id := range references(d) {
			need(id)
		}
		if last(d.ID) {
			for j, o := range desired {
				if !last(o.ID) {
					before[j] = true
				}
			}
		}
		out[i] = slices.Sorted(maps.Keys(before))
	}
	return out
}

// last are kinds that can stop everything else from being admitted.
func last(id ID) bool {
	return id.Group == "admissionregistration.k8s.io" || id.Group == "apiregistration.k8s.io"
}

// references lists what the object names and can not work without.
func references(d Desired) []ID {
	o, ns := d.Object.Masked.Object, d.ID.Namespace
	var out []ID
	switch {
	case d.ID.Group == "rbac.authorization.k8s.io" && strings.HasSuffix(d.ID.Kind, "Binding"):
		k, _, _ := unstructured.NestedString(o, "roleRef", "kind")
		name, _, _ := unstructured.NestedString(o, "roleRef", "name")
		role := ID{Group: d.ID.Group, Kind: k, Name: name}
		if k == "Role" {
			role.Namespace = ns
		}
		out = append(out, role)
		subjects, _, _ := unstructured.NestedSlice(o, "subjects")
		for _, s := range subjects {
			m, _ := s.(map[string]any)
			if m["kind"] == "ServiceAccount" {
				sns, _ := m["namespace"].(string)
				sname, _ := m["name"].(string)
				out = append(out, ID{Kind: "ServiceAccount", Namespace: sns, Name: sname})
			}
		}
	default:
		for _, path := range podSpecs {
			if spec, ok, _ := unstructured.NestedMap(o, path...); ok && spec["containers"] != nil {
				out = append(out, podReferences(spec, ns)...)
			}
		}
	}
	return out
}

var podSpecs = [][]string{{"spec"}, {"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}}

// podReferences walks a pod spec for the names of Secrets, ConfigMaps, claims
// and the service account, with the role bindings that name it left to luck no
// more than kubectl does.
func podReferences(spec map[string]any, ns string) []ID {
	var out []ID
	add := func(kind string, name any) {
		if n, ok := name.(string); ok && n != "" {
			out = append(out, ID{Kind: kind, Namespace: ns, Name: n})
		}
	}
	add("ServiceAccount", spec["serviceAccountName"])
	add("ServiceAccount", spec["serviceAccount"])
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				walk(item)
			}
		case map[string]any:
			for k, item := range v {
				m, _ := item.(map[string]any)
				switch k {
				case "secretKeyRef", "secretRef":
					add("Secret", m["name"])
				case "configMapKeyRef", "configMapRef":
					add("ConfigMap", m["name"])
				case "secret":
					add("Secret", m["secretName"])
					add("Secret", m["name"]) // projected
				case "configMap":
					add("ConfigMap", m["name"])
				case "persistentVolumeClaim":
					add("PersistentVolumeClaim", m["claimName"])
				case "imagePullSecrets":
					for _, s := range asSlice(item) {
						sm, _ := s.(map[string]any)
						add("Secret", sm["name"])
					}
				}
				walk(item)
			}
		}
	}
	walk(spec)
	return out
}

func asSlice(v any) []any { s, _ := v.([]any); return s }
