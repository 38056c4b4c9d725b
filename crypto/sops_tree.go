package crypto

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/getsops/sops/v3"
	"go.yaml.in/yaml/v3"
)

const (
	// MaxSealedFile is the largest SOPS file that is opened, in bytes.
	MaxSealedFile = 5 << 20
	encPrefix     = "ENC[AES256_GCM,"
)

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
			at := place{doc: at.doc, keys: append(at.keys[:len(at.keys):len(at.keys)], key), path: joinPath(at.path, key)}
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

func joinPath(path, key string) string {
	if strings.ContainsAny(key, ".[]") {
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

// loadEncrypted parses a sealed file. Errors: ErrNotSOPS, *FormatError.
func loadEncrypted(file []byte, format Format) (sops.Tree, error) {
	if len(file) > MaxSealedFile {
		return sops.Tree{}, &FormatError{What: "larger than " + strconv.Itoa(MaxSealedFile>>20) + " MiB"}
	}
	if format == YAML {
		if err := checkYAML(file); err != nil {
			return sops.Tree{}, err
		}
	}
	tree, err := format.store().LoadEncryptedFile(file)
	if errors.Is(err, sops.MetadataNotFound) {
		return sops.Tree{}, ErrNotSOPS
	}
	if err != nil {
		e := formatError(format, err).(*FormatError)
		if e.Line == 0 {
			e.What = "the sops metadata can not be read"
		}
		return sops.Tree{}, e
	}
	return tree, nil
}

// checkYAML decodes every document with the yaml library's guard against alias
// bombs; sops itself expands aliases without one.
func checkYAML(file []byte) error {
	d := yaml.NewDecoder(bytes.NewReader(file))
	for {
		var v any
		switch err := d.Decode(&v); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return formatError(YAML, err)
		}
	}
}

// IsSOPS reports whether the file carries sops metadata. It parses only files
// that hold the word at all.
func IsSOPS(file []byte, format Format) bool {
	if !bytes.Contains(file, []byte("sops")) {
		return false
	}
	_, err := loadEncryptedSafely(file, format)
	return !errors.Is(err, ErrNotSOPS) && !isPlainFormatError(file, format, err)
}

// isPlainFormatError tells a file that merely mentions sops and can not be
// parsed from one whose sops block is broken.
func isPlainFormatError(file []byte, format Format, err error) bool {
	var fe *FormatError
	return errors.As(err, &fe) && !(bytes.Contains(file, []byte(encPrefix)) || bytes.Contains(file, []byte("sops_mac")))
}

func loadEncryptedSafely(file []byte, format Format) (tree sops.Tree, err error) {
	defer func() {
		if recover() != nil { // the library panics on some malformed files
			err = &FormatError{What: "not a well-formed SOPS file"}
		}
	}()
	return loadEncrypted(file, format)
}
