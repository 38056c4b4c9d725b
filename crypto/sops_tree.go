package crypto

import (
	"strconv"
	"strings"
	"time"

	"github.com/getsops/sops/v3"
)

const encPrefix = "ENC[AES256_GCM,"

// place is where a leaf stands: Keys as sops joins them for its additional
// data, which leaves list indexes out, and Path with them, for people.
type place struct {
	doc  int
	keys []string
	path string
}

// leafFunc returns the value to put in the leaf's place, or drop to remove it.
type leafFunc func(at place, value any) any

type dropLeaf struct{}

var drop = dropLeaf{}

// walkLeaves calls f for each scalar, in document order, and returns a tree
// with its answers. Comments are left out, since sops seals them too: a
// decrypted tree holds them in the clear. Maps that become empty by a drop are
// dropped as well.
func walkLeaves(branches sops.TreeBranches, f leafFunc) sops.TreeBranches {
	out := make(sops.TreeBranches, len(branches))
	for i, b := range branches {
		nb, _ := walkValue(b, place{doc: i}, f).(sops.TreeBranch)
		if nb == nil {
			nb = sops.TreeBranch{}
		}
		out[i] = nb
	}
	return out
}

func walkValue(v any, at place, f leafFunc) any {
	switch v := v.(type) {
	case sops.TreeBranch:
		nb, dropped := make(sops.TreeBranch, 0, len(v)), false
		for _, item := range v {
			key, ok := item.Key.(string)
			if _, comment := item.Key.(sops.Comment); comment || !ok {
				continue
			}
			if _, comment := item.Value.(sops.Comment); comment {
				continue
			}
			at := place{doc: at.doc, keys: append(at.keys[:len(at.keys):len(at.keys)], key), path: JoinPath(at.path, key)}
			nv := walkValue(item.Value, at, f)
			if nv == drop {
				dropped = true
				continue
			}
			nb = append(nb, sops.TreeItem{Key: key, Value: nv})
		}
		if dropped && len(nb) == 0 {
			return drop
		}
		return nb
	case []any:
		nl := make([]any, 0, len(v))
		for i, item := range v {
			if _, comment := item.(sops.Comment); comment {
				continue
			}
			nv := walkValue(item, place{doc: at.doc, keys: at.keys, path: at.path + "[" + strconv.Itoa(i) + "]"}, f)
			if nv != drop {
				nl = append(nl, nv)
			}
		}
		return nl
	default:
		return f(at, v)
	}
}

// sealsComments reports whether a sealed comment stands anywhere in v.
func sealsComments(v any) bool {
	sealed := func(v any) bool {
		c, ok := v.(sops.Comment)
		return ok && strings.HasPrefix(c.Value, encPrefix)
	}
	switch v := v.(type) {
	case sops.TreeBranch:
		for _, item := range v {
			if sealed(item.Key) || sealed(item.Value) || sealsComments(item.Value) {
				return true
			}
		}
	case []any:
		for _, item := range v {
			if sealed(item) || sealsComments(item) {
				return true
			}
		}
	}
	return false
}

// JoinPath adds a key to the path of a field, for people: data.a, data["a.b"]. No
// two fields have the same path.
func JoinPath(path, key string) string {
	if key == "" || strings.ContainsAny(key, ".[]") {
		return path + "[" + strconv.Quote(key) + "]"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// leafText is the text that stock sops would have written for the value.
func leafText(format Format, v any) (kind string, text []byte) {
	switch v := v.(type) {
	case string:
		if format == Dotenv {
			v = strings.ReplaceAll(v, "\n", `\n`)
		}
		return "str", []byte(v)
	case int:
		return "int", []byte(strconv.Itoa(v))
	case float64:
		return "float", []byte(strconv.FormatFloat(v, 'g', -1, 64))
	case bool:
		return "bool", []byte(strconv.FormatBool(v))
	case time.Time:
		return "time", []byte(v.Format(time.RFC3339Nano))
	default:
		return "", nil
	}
}
