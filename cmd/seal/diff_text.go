package main

import (
	"maps"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// unified is the difference of two objects as YAML; "" where neither is there.
func unified(live, planned *unstructured.Unstructured) (string, error) {
	if live == nil && planned == nil {
		return "", nil
	}
	var texts [2][]string
	for i, u := range []*unstructured.Unstructured{live, planned} {
		if u == nil {
			continue
		}
		b, err := yaml.Marshal(u.Object)
		if err != nil {
			return "", err
		}
		texts[i] = strings.SplitAfter(string(b), "\n")
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: texts[0], B: texts[1], FromFile: "cluster", ToFile: "git", Context: 3})
}

// changedKeys says of each key of a Secret what becomes of it, never its value. before
// is nil where it is not known.
func changedKeys(before, now map[string]string) []string {
	var out []string
	all := maps.Clone(now)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, before)
	for _, key := range slices.Sorted(maps.Keys(all)) {
		was, had := before[key]
		is, has := now[key]
		switch {
		case !had:
			out = append(out, "+ data."+key)
		case !has:
			out = append(out, "- data."+key)
		case was != is:
			out = append(out, "~ data."+key+" (sealed anew, or changed)")
		}
	}
	return out
}
