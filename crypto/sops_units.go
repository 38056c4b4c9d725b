package crypto

import (
	"bytes"
	"errors"
	"slices"

	"github.com/getsops/sops/v3"
	"go.yaml.in/yaml/v3"
)

// unit is a part of a file that was sealed by itself: consecutive documents
// with the same sops metadata have one data key, MAC and binding. Documents
// without any are a unit of their own that is not sealed. Only YAML files have
// more than one unit; stock sops does not read those, Flux does.
type unit struct {
	raw    []byte
	sealed bool
	tree   sops.Tree // where sealed
	line   int       // where it begins, counted from 1
	// documents are those of splitDocuments that it consists of; nil: all.
	documents []int
}

// loadUnits parses a file that may be sealed. It reports ErrNotSOPS for one
// that is not, also where it merely can not be parsed. Other errors are
// *LimitError and *FormatError.
func loadUnits(file []byte, format Format) (units []unit, err error) {
	defer func() {
		if recover() != nil { // the library panics on some malformed files
			units, err = nil, &FormatError{What: "not a well-formed SOPS file"}
		}
		if err != nil && !carriesCiphertext(file) {
			units, err = nil, ErrNotSOPS
		}
	}()
	if len(file) > MaxSealedFile {
		return nil, tooLarge()
	}
	if format != YAML {
		if err := checkText(file, format); err != nil {
			return nil, err
		}
		return oneUnit(file, format)
	}
	docs, err := scanYAML(file)
	if err != nil {
		return nil, err
	}
	if same := allAlike(docs); same && docs[0].sops == nil {
		return nil, ErrNotSOPS
	} else if same {
		return oneUnit(file, format)
	}
	return severalUnits(file)
}

// carriesCiphertext tells a sealed file that is broken from any other.
func carriesCiphertext(file []byte) bool {
	return bytes.Contains(file, []byte(encPrefix)) || bytes.Contains(file, []byte("sops_mac"))
}

func oneUnit(file []byte, format Format) ([]unit, error) {
	tree, err := loadTree(file, format)
	if err != nil {
		return nil, err
	}
	return []unit{{raw: file, sealed: true, tree: tree, line: 1}}, nil
}

func allAlike(docs []yamlDocument) bool {
	for _, d := range docs {
		if !sameNode(d.sops, docs[0].sops) {
			return false
		}
	}
	return len(docs) > 0
}

func severalUnits(file []byte) ([]unit, error) {
	var out []unit
	var last *yaml.Node
	line := 0
	for i, chunk := range splitDocuments(file) {
		docs, err := scanYAML(chunk)
		var fe *FormatError
		if errors.As(err, &fe) && fe.Line > 0 {
			fe.Line += line
		}
		if err != nil {
			return nil, err
		}
		first := line + 1
		line += bytes.Count(chunk, []byte("\n"))
		if len(docs) == 0 || len(docs) == 1 && docs[0].empty {
			continue
		}
		if len(docs) > 1 { // "..." ends a document as well
			return nil, &FormatError{What: "documents that --- does not separate"}
		}
		meta := docs[0].sops
		if n := len(out); n > 0 && sameNode(meta, last) {
			out[n-1].raw = slices.Concat(out[n-1].raw, chunk)
			out[n-1].documents = append(out[n-1].documents, i)
		} else {
			out = append(out, unit{raw: chunk, sealed: meta != nil, line: first, documents: []int{i}})
		}
		last = meta
	}
	for i := range out {
		var err error
		if !out[i].sealed {
			continue
		}
		if out[i].tree, err = loadTree(out[i].raw, YAML); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// splitDocuments cuts before each line that starts with the marker ---, which
// YAML (1.2.2, section 9.1.2) allows nowhere else.
func splitDocuments(file []byte) [][]byte {
	var out [][]byte
	start := 0
	for at := 0; at < len(file); {
		end := at + bytes.IndexByte(file[at:], '\n') + 1
		if end == at {
			end = len(file)
		}
		line := bytes.TrimRight(file[at:end], "\r\n")
		if at > start && (bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- ")) || bytes.HasPrefix(line, []byte("---\t"))) {
			out = append(out, file[start:at])
			start = at
		}
		at = end
	}
	return append(out, file[start:])
}

// joinDocuments puts units together again.
func joinDocuments(parts [][]byte) []byte {
	var out bytes.Buffer
	for _, p := range parts {
		if out.Len() > 0 {
			if !bytes.HasSuffix(out.Bytes(), []byte("\n")) {
				out.WriteByte('\n')
			}
			if !bytes.HasPrefix(p, []byte("---")) {
				out.WriteString("---\n")
			}
		}
		out.Write(p)
	}
	return out.Bytes()
}

// sameNode compares what two nodes say, not how it is written.
func sameNode(a, b *yaml.Node) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.ShortTag() == b.ShortTag() && a.Value == b.Value &&
		slices.EqualFunc(a.Content, b.Content, sameNode)
}

// loadTree parses one sealed unit. Errors: ErrNotSOPS, *FormatError.
func loadTree(file []byte, format Format) (sops.Tree, error) {
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

// MayBeSOPS is a quick look that never misses a sealed file.
func MayBeSOPS(file []byte) bool { return bytes.Contains(file, []byte("sops")) }
