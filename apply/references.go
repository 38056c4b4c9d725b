package apply

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/decrypt"
)

// references lists, for each desired object, what it names and can not work
// without. refused are objects of git that will not be applied; they count as
// well, since what names them must wait; renamed are those of names that only
// kustomize can have written.
func references(desired []Desired, refused map[ID]bool, renamed []ID) [][]ID {
	generated := generatedNames(desired, refused, renamed)
	out := make([][]ID, len(desired))
	bound := map[ID][]ID{} // service account → what gives it rights
	for i, d := range desired {
		out[i] = referencesOf(d, generated)
		if isBinding(d.ID) {
			for _, id := range out[i] {
				if id.Kind == "ServiceAccount" {
					bound[id] = append(bound[id], d.ID)
				}
			}
		}
	}
	for i, d := range desired {
		if isBinding(d.ID) {
			continue
		}
		for _, id := range slices.Clone(out[i]) { // a workload needs the rights of its account
			out[i] = append(out[i], bound[id]...)
		}
	}
	return out
}

func isBinding(id ID) bool {
	return id.Group == "rbac.authorization.k8s.io" && strings.HasSuffix(id.Kind, "Binding")
}

// generatedNames are names that nothing else has: wherever one stands,
// kustomize wrote a reference.
func generatedNames(desired []Desired, refused map[ID]bool, renamed []ID) map[string][]ID {
	out := map[string][]ID{}
	add := func(id ID) {
		if _, generated := decrypt.BaseName(id.Name); generated && id.Group == "" && (id.Kind == "Secret" || id.Kind == "ConfigMap") {
			out[id.Name] = append(out[id.Name], id)
		}
	}
	for _, d := range desired {
		add(d.ID)
	}
	for id := range refused {
		add(id)
	}
	for _, id := range renamed {
		if !slices.Contains(out[id.Name], id) {
			out[id.Name] = append(out[id.Name], id)
		}
	}
	return out
}

func referencesOf(d Desired, generated map[string][]ID) []ID {
	r := finder{namespace: d.ID.Namespace, generated: generated}
	o := d.Object.Masked.Object
	if isBinding(d.ID) {
		r.binding(d.ID.Group, o)
		return r.found
	}
	for _, path := range podSpecs {
		if spec, ok, _ := unstructured.NestedMap(o, path...); ok && spec["containers"] != nil {
			r.pod(spec)
		}
	}
	if d.ID.Group != "" || d.ID.Kind != "Secret" && d.ID.Kind != "ConfigMap" {
		r.secrets(withoutNames(o), false)
	}
	return r.found
}

// withoutNames is an object without its own name and labels, which refer to
// nothing.
func withoutNames(o map[string]any) map[string]any {
	o = maps.Clone(o)
	meta, _ := o["metadata"].(map[string]any)
	o["metadata"] = map[string]any{"annotations": meta["annotations"]}
	return o
}

type finder struct {
	namespace string
	generated map[string][]ID
	found     []ID
}

func (r *finder) add(kind string, name any) {
	n, ok := name.(string)
	if !ok || n == "" {
		return
	}
	id := ID{Kind: kind, Namespace: r.namespace, Name: n}
	if !slices.Contains(r.found, id) {
		r.found = append(r.found, id)
	}
}

func (r *finder) binding(group string, o map[string]any) {
	k, _, _ := unstructured.NestedString(o, "roleRef", "kind")
	name, _, _ := unstructured.NestedString(o, "roleRef", "name")
	role := ID{Group: group, Kind: k, Name: name}
	if k == "Role" {
		role.Namespace = r.namespace
	}
	r.found = append(r.found, role)
	subjects, _, _ := unstructured.NestedSlice(o, "subjects")
	for _, s := range subjects {
		m, _ := s.(map[string]any)
		if m["kind"] == "ServiceAccount" {
			ns, _ := m["namespace"].(string)
			name, _ := m["name"].(string)
			r.found = append(r.found, ID{Kind: "ServiceAccount", Namespace: ns, Name: name})
		}
	}
}

var podSpecs = [][]string{{"spec"}, {"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}}

// pod finds ConfigMaps, claims and the service account of a pod spec; its
// Secrets are found like those of any object.
func (r *finder) pod(spec map[string]any) {
	r.add("ServiceAccount", spec["serviceAccountName"])
	r.add("ServiceAccount", spec["serviceAccount"])
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
				case "configMapKeyRef", "configMapRef", "configMap":
					r.add("ConfigMap", m["name"])
				case "persistentVolumeClaim":
					r.add("PersistentVolumeClaim", m["claimName"])
				}
				walk(item)
			}
		}
	}
	walk(spec)
}

// secrets finds the Secrets that any object names: under a key that speaks of a
// secret (secretName, imagePullSecrets, tokenSecretRef, an annotation such as
// nginx.ingress.kubernetes.io/auth-secret), beside kind: Secret, and generated
// names anywhere. What it takes for a name and is none does no harm: nothing in
// git has it.
func (r *finder) secrets(v any, secret bool) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			r.secrets(item, secret)
		}
	case map[string]any:
		if secret || v["kind"] == "Secret" {
			r.add("Secret", v["name"])
		}
		for k, item := range v {
			if _, ok := item.(string); ok && secret && k != "secretName" && k != "name" {
				r.scalar(item.(string), false)
				continue
			}
			r.secrets(item, speaksOfSecrets(k))
		}
	case string:
		r.scalar(v, secret)
	}
}

func (r *finder) scalar(text string, secret bool) {
	if secret {
		r.add("Secret", strings.TrimPrefix(text, r.namespace+"/"))
	}
	for _, id := range r.generated[text] {
		if (id.Namespace == r.namespace || r.namespace == "") && !slices.Contains(r.found, id) {
			r.found = append(r.found, id)
		}
	}
}

func speaksOfSecrets(key string) bool {
	return strings.Contains(strings.ToLower(key), "secret") || key == "certificateRefs"
}
