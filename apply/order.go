package apply

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// edges says, for each desired object, which others must be applied before it
// (by index). They follow from what objects need of each other, not from fixed
// stages: unrelated objects go at once. refs are the references of each object.
func edges(desired []Desired, refs [][]ID) [][]int {
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
		for _, id := range refs[i] {
			need(id)
			if id.Kind == "Secret" {
				need(sealedSecretOf(id))
			}
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
