package crypto

import (
	"strings"

	"github.com/getsops/sops/v3"
)

// ListedUnit is what a sealed unit says of itself to somebody without a key.
type ListedUnit struct {
	Line       int      // where it begins
	Recipients []string // age recipients as they are, "pgp FINGERPRINT", "kms ARN"
	Values     []ListedValue
}

// ListedValue is the place of a sealed value.
type ListedValue struct {
	Object string // "Secret shop/db"; "" outside of Kubernetes objects
	Path   string
}

// ListSOPS lists the sealed units of a file and the places of their values. Nothing
// of it is authenticated. Errors: ErrNotSOPS, *LimitError, *FormatError.
func ListSOPS(file []byte, format Format) (out []ListedUnit, err error) {
	silenceSOPS()
	defer func() {
		if recover() != nil {
			out, err = nil, &FormatError{What: "not a well-formed SOPS file"}
		}
	}()
	units, err := loadUnits(file, format)
	if err != nil {
		return nil, err
	}
	for _, u := range units {
		if !u.sealed {
			continue
		}
		l := ListedUnit{Line: u.line, Recipients: listedKeys(u.tree.Metadata.KeyGroups)}
		walkLeaves(u.tree.Branches, func(at place, v any) any {
			if s, ok := v.(string); ok && strings.HasPrefix(s, encPrefix) && !at.looksLikeBinding() && !strings.HasSuffix(s, ",type:comment]") {
				l.Values = append(l.Values, ListedValue{Object: objectName(u.tree.Branches[at.doc]), Path: at.path})
			}
			return v
		})
		out = append(out, l)
	}
	return out, nil
}

// objectName is how people name the object that a document is.
func objectName(b sops.TreeBranch) string {
	if !isObject(b) {
		return ""
	}
	text := func(key string) string {
		for _, item := range b {
			meta, _ := item.Value.(sops.TreeBranch)
			for _, field := range meta {
				if s, ok := field.Value.(string); ok && item.Key == "metadata" && field.Key == key {
					return s
				}
			}
		}
		return ""
	}
	kind := kindOf(b)
	if ns := text("namespace"); ns != "" {
		return kind + " " + ns + "/" + text("name")
	}
	return kind + " " + text("name")
}
