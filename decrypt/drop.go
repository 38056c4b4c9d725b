package decrypt

import (
	"slices"
	"strconv"
)

// dropped stands for a list item that goes, so that the numbers of the others stay.
type dropped struct{}

// dropFields takes fields out of a tree of JSON values.
func dropFields(tree map[string]any, fields [][]string) {
	inLists := false
	for _, steps := range fields {
		inLists = dropOne(tree, steps) || inLists
	}
	if inLists {
		closeGaps(tree)
	}
}

// dropOne reports whether it left a gap in a list.
func dropOne(in any, steps []string) (gap bool) {
	for len(steps) > 0 {
		step := steps[0]
		steps = steps[1:]
		switch v := in.(type) {
		case map[string]any:
			if len(steps) == 0 {
				delete(v, step)
				return false
			}
			in = v[step]
		case []any:
			n, err := strconv.Atoi(step)
			if err != nil || n < 0 || n >= len(v) {
				return false
			}
			if len(steps) == 0 {
				v[n] = dropped{}
				return true
			}
			in = v[n]
		default:
			return false
		}
	}
	return false
}

func closeGaps(in any) any {
	switch v := in.(type) {
	case map[string]any:
		for k := range v {
			v[k] = closeGaps(v[k])
		}
	case []any:
		for i := range v {
			v[i] = closeGaps(v[i])
		}
		return slices.DeleteFunc(v, func(item any) bool { return item == dropped{} })
	}
	return in
}
