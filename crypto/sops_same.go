package crypto

import (
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/getsops/sops/v3"
)

// sameTree compares decrypted trees, comments and all.
func sameTree(a, b sops.TreeBranches) bool {
	return slices.EqualFunc(a, b, func(x, y sops.TreeBranch) bool { return sameValue(x, y) })
}

// sameLeaves compares decrypted trees of which one was written by sops, which may
// move comments: their texts must all be there.
func sameLeaves(a, b sops.TreeBranches) bool {
	as := func(_ place, v any) any { return v }
	return sameTree(walkLeaves(a, as), walkLeaves(b, as)) && slices.Equal(slices.Sorted(slices.Values(comments(a))), slices.Sorted(slices.Values(comments(b))))
}

func comments(v any) []string {
	var out []string
	switch v := v.(type) {
	case sops.TreeBranches:
		for _, b := range v {
			out = append(out, comments(b)...)
		}
	case sops.TreeBranch:
		for _, item := range v {
			out = append(append(out, comments(item.Key)...), comments(item.Value)...)
		}
	case []any:
		for _, item := range v {
			out = append(out, comments(item)...)
		}
	case sops.Comment:
		out = append(out, v.Value)
	}
	return out
}

func sameValue(a, b any) bool {
	switch a := a.(type) {
	case sops.TreeBranch:
		b, ok := b.(sops.TreeBranch)
		return ok && slices.EqualFunc(a, b, func(x, y sops.TreeItem) bool { return sameValue(x.Key, y.Key) && sameValue(x.Value, y.Value) })
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameValue)
	case float64:
		b, ok := b.(float64)
		return ok && (a == b && math.Signbit(a) == math.Signbit(b) || math.IsNaN(a) && math.IsNaN(b))
	case time.Time:
		b, ok := b.(time.Time)
		return ok && a.Format(time.RFC3339Nano) == b.Format(time.RFC3339Nano)
	default:
		return reflect.DeepEqual(a, b)
	}
}
