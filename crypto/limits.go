package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// Limits of a sealed file. They hold before anything is opened, so that what
// lies in git costs bounded memory whoever wrote it.
const (
	MaxSealedFile   = 5 << 20 // bytes
	MaxSealedLeaves = 100_000 // values, with aliases expanded
	MaxSealedDepth  = 100     // maps and lists within one another
)

// LimitError says which limit a file exceeds.
type LimitError struct{ What string }

func (e *LimitError) Error() string { return e.What }

func tooLarge() error { return &LimitError{fmt.Sprintf("larger than %d MiB", MaxSealedFile>>20)} }
func tooMany() error {
	return &LimitError{fmt.Sprintf("more than %d values (aliases count each time)", MaxSealedLeaves)}
}
func tooDeep() error { return &LimitError{fmt.Sprintf("nested deeper than %d levels", MaxSealedDepth)} }

// checkText bounds formats other than YAML by what can be counted without
// parsing them. Brackets in JSON strings do not nest.
func checkText(file []byte, format Format) error {
	if format != JSON && format != Binary {
		if bytes.Count(file, []byte("\n")) > MaxSealedLeaves {
			return tooMany()
		}
		return nil
	}
	depth, leaves, quoted := 0, 0, false
	for i := 0; i < len(file); i++ {
		switch c := file[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > MaxSealedDepth {
				return tooDeep()
			}
		case c == '}' || c == ']':
			depth--
		case c == ',':
			if leaves++; leaves > MaxSealedLeaves {
				return tooMany()
			}
		}
	}
	return nil
}

// CheckYAML refuses YAML whose aliases would take more memory than the limits
// allow, in any file. Errors: *LimitError, *FormatError.
func CheckYAML(file []byte) error {
	_, err := scanYAML(file)
	return err
}

// yamlDocument is one document of a file; sops is its metadata or nil.
type yamlDocument struct {
	sops  *yaml.Node
	empty bool
}

// scanYAML reads every document without expanding aliases, which sops does
// without a bound, and refuses what it would take differently from others:
// a key that occurs twice, a key that is no text.
func scanYAML(file []byte) ([]yamlDocument, error) {
	var out []yamlDocument
	leaves := 0
	for d := yaml.NewDecoder(bytes.NewReader(file)); ; {
		var doc yaml.Node
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, formatError(YAML, err)
		}
		size, err := yamlScan{map[*yaml.Node]*yamlSize{}}.size(&doc, 0)
		if err != nil {
			return nil, err
		}
		if leaves += size.leaves; leaves > MaxSealedLeaves {
			return nil, tooMany()
		}
		y := yamlDocument{empty: true}
		if len(doc.Content) > 0 {
			root := doc.Content[0]
			y.empty = root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null"
			for i := 0; root.Kind == yaml.MappingNode && i < len(root.Content); i += 2 {
				if root.Content[i].Value == "sops" {
					y.sops = root.Content[i+1]
				}
			}
		}
		out = append(out, y)
	}
}

// yamlScan remembers what was counted below each anchor; nil while at it.
type yamlScan struct{ anchors map[*yaml.Node]*yamlSize }

// yamlSize is what lies below a node, aliases expanded.
type yamlSize struct{ leaves, height int }

func (s yamlScan) size(n *yaml.Node, depth int) (yamlSize, error) {
	if depth > MaxSealedDepth {
		return yamlSize{}, tooDeep()
	}
	if n.Kind == yaml.AliasNode {
		below := s.anchors[n.Alias]
		switch {
		case below == nil:
			return yamlSize{}, &FormatError{Line: n.Line, What: "an anchor that contains itself"}
		case depth+below.height > MaxSealedDepth:
			return yamlSize{}, tooDeep()
		}
		return *below, nil
	}
	var out yamlSize
	if n.Kind == yaml.ScalarNode {
		out.leaves = 1
	}
	seen := map[string]bool{}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if c.Kind != yaml.ScalarNode {
				return out, &FormatError{Line: c.Line, What: "a key that is not a text"}
			}
			if seen[c.Value] {
				return out, &FormatError{Line: c.Line, What: "a key that occurs twice in its map"}
			}
			if seen[c.Value] = true; c.Anchor != "" {
				s.anchors[c] = &yamlSize{leaves: 1}
			}
			continue
		}
		below, err := s.size(c, depth+1)
		if err != nil {
			return out, err
		}
		out.height = max(out.height, below.height+1)
		if out.leaves += below.leaves; out.leaves > MaxSealedLeaves {
			return out, tooMany()
		}
	}
	if n.Anchor != "" {
		s.anchors[n] = &out
	}
	return out, nil
}
