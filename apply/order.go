package apply

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// edges says, for each desired object, which others must be applied before it
// (by index). They follow from what objects need of each other, not from fixed
// stages: unrelated objects go at once. refs are the references of each object.
// Nodes behind the objects are the ends of waves.
func edges(desired []Desired, refs [][]ID) [][]int {
	at := make(map[ID]int, len(desired))
	crds := map[string]int{} // group/kind → the CRD that defines it
	wave := make([]int, len(desired))
	for i, d := range desired {
		at[d.ID] = i
		wave[i] = WaveOf(d.Object.Masked.GetAnnotations())
		if isCRD(d.ID.GroupKind()) {
			group, _, _ := unstructured.NestedString(d.Object.Masked.Object, "spec", "group")
			k, _, _ := unstructured.NestedString(d.Object.Masked.Object, "spec", "names", "kind")
			crds[group+"/"+k] = i
		}
	}
	out := make([][]int, len(desired))
	for i, d := range desired {
		before := map[int]bool{}
		after := func(j int) {
			if j != i && wave[j] <= wave[i] { // a wave is an order by hand: it wins
				before[j] = true
			}
		}
		need := func(id ID) {
			if j, ok := at[id]; ok {
				after(j)
			}
		}
		if j, ok := crds[d.ID.Group+"/"+d.ID.Kind]; ok {
			after(j)
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
					after(j)
				}
			}
		}
		out[i] = slices.Sorted(maps.Keys(before))
	}
	return waves(out, wave)
}

// waves lets the objects of each wave wait for the end of the one before, which is
// a node of its own: edges between all objects of two waves would be too many.
func waves(before [][]int, wave []int) [][]int {
	numbers := slices.Compact(slices.Sorted(slices.Values(wave)))
	objects := len(before)
	for k, number := range numbers {
		if k == 0 {
			continue
		}
		end := len(before)
		var all []int
		if k > 1 {
			all = append(all, end-1)
		}
		for i := range objects {
			switch wave[i] {
			case numbers[k-1]:
				all = append(all, i)
			case number:
				before[i] = append(before[i], end)
			}
		}
		before = append(before, all)
	}
	return before
}

// waveOf is the number of the object's wave.
func waveOf(a map[string]string) (int, error) {
	for _, name := range []string{waveAnnotation, argoWave} {
		if text, ok := a[name]; ok {
			n, err := strconv.Atoi(text)
			if err != nil || n < -maxWave || n > maxWave {
				return 0, fmt.Errorf("the annotation %s: %q is not a number between -%d and %d", name, text, maxWave, maxWave)
			}
			return n, nil
		}
	}
	return 0, nil
}

// WaveOf is the number of the wave that annotations ask for, 0 if they say none.
func WaveOf(annotations map[string]string) int {
	n, _ := waveOf(annotations) // what is no number fails when it is sent
	return n
}

const maxWave = 1 << 20

// last are kinds that can stop everything else from being admitted.
func last(id ID) bool {
	return id.Group == "admissionregistration.k8s.io" || id.Group == "apiregistration.k8s.io"
}
