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

// CheckYAML refuses YAML that aliases make larger than the limits allow, in any
// file: what is written out in full is not counted. Texts in it that hold YAML
// themselves, such as inline patches, are looked at too. Errors: *LimitError,
// *FormatError.
func CheckYAML(file []byte) error { return checkYAML(file, 0) }

const maxTextInText = 2 // a patch in a kustomization, a file in that

func checkYAML(file []byte, within int) error {
	for d := yaml.NewDecoder(bytes.NewReader(file)); ; {
		var doc yaml.Node
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return formatError(YAML, err)
		}
		scan := yamlScan{anchors: map[*yaml.Node]*yamlSize{}, written: true}
		if _, err := scan.size(&doc, 0); err != nil {
			return err
		}
		if within < maxTextInText {
			if err := checkTexts(&doc, within+1); err != nil {
				return err
			}
		}
	}
}

func checkTexts(n *yaml.Node, within int) error {
	for _, c := range n.Content {
		if err := checkTexts(c, within); err != nil {
			return err
		}
	}
	if n.Kind != yaml.ScalarNode || !MayHaveAliases([]byte(n.Value)) {
		return nil
	}
	var limit *LimitError
	if err := checkYAML([]byte(n.Value), within); errors.As(err, &limit) {
		return err
	}
	return nil // most texts are no YAML
}

// MayHaveAliases is a quick look that never misses YAML with an alias.
func MayHaveAliases(file []byte) bool {
	return bytes.IndexByte(file, '&') >= 0 && bytes.IndexByte(file, '*') >= 0
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
		size, err := yamlScan{anchors: map[*yaml.Node]*yamlSize{}}.size(&doc, 0)
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
type yamlScan struct {
	anchors map[*yaml.Node]*yamlSize
	// written lets pass what is written in full, and any key: only what aliases
	// add is limited.
	written bool
}

// yamlSize is what lies below a node, aliases expanded; added is what only they
// put there.
type yamlSize struct{ leaves, added, height int }

func (s yamlScan) check(size yamlSize, depth int) error {
	n, deepest := size.leaves, MaxSealedDepth
	if s.written {
		n, deepest = size.added, 10*MaxSealedDepth
	}
	switch {
	case n > MaxSealedLeaves:
		return tooMany()
	case depth+size.height > deepest:
		return tooDeep()
	}
	return nil
}

func (s yamlScan) size(n *yaml.Node, depth int) (yamlSize, error) {
	if err := s.check(yamlSize{}, depth); err != nil {
		return yamlSize{}, err
	}
	if n.Kind == yaml.AliasNode {
		below := s.anchors[n.Alias]
		if below == nil {
			return yamlSize{}, &FormatError{Line: n.Line, What: "an anchor that contains itself"}
		}
		return yamlSize{leaves: below.leaves, added: below.leaves, height: below.height}, s.check(*below, depth)
	}
	var out yamlSize
	if n.Kind == yaml.ScalarNode {
		out.leaves = 1
	}
	seen := map[string]bool{}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && !s.written {
			if err := checkKey(c, seen); err != nil {
				return out, err
			}
			if c.Anchor != "" {
				s.anchors[c] = &yamlSize{leaves: 1}
			}
			continue
		}
		below, err := s.size(c, depth+1)
		if err != nil {
			return out, err
		}
		out.height = max(out.height, below.height+1)
		out.leaves += below.leaves
		out.added += below.added
		if err := s.check(out, depth); err != nil {
			return out, err
		}
	}
	if n.Anchor != "" {
		s.anchors[n] = &out
	}
	return out, nil
}

func checkKey(key *yaml.Node, seen map[string]bool) error {
	if key.Kind != yaml.ScalarNode {
		return &FormatError{Line: key.Line, What: "a key that is not a text"}
	}
	if seen[key.Value] {
		return &FormatError{Line: key.Line, What: "a key that occurs twice in its map"}
	}
	seen[key.Value] = true
	return nil
}
