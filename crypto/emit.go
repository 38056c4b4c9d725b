package crypto

import (
	"bytes"
	"regexp"

	"github.com/getsops/sops/v3"
	"go.yaml.in/yaml/v3"
)

// emit writes a tree as stock sops does.
func emit(format Format, branches sops.TreeBranches) ([]byte, error) {
	out, err := format.store().EmitPlainFile(branches)
	if err != nil {
		return nil, notWritable(format)
	}
	return out, nil
}

func notWritable(f Format) error { return &FormatError{What: "can not be written as " + string(f)} }

// emitMasked writes a tree without comments that only a build will read. YAML
// says the same as by emit, in a third of the time: sops starts an encoder for
// each value.
func emitMasked(format Format, branches sops.TreeBranches) ([]byte, error) {
	if format != YAML {
		return emit(format, branches)
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	for _, b := range branches {
		n, err := yamlNode(b)
		if err == nil {
			err = e.Encode(n)
		}
		if err != nil {
			return nil, notWritable(format)
		}
	}
	if err := e.Close(); err != nil {
		return nil, notWritable(format)
	}
	return out.Bytes(), nil
}

// What the encoder leaves without quotes reads as a text in YAML 1.2, and, with
// these two, in YAML 1.1.
var (
	plainText = regexp.MustCompile(`^[A-Za-z<]`)
	otherBool = regexp.MustCompile(`^(?i:y|n|yes|no|on|off)$`)
)

func yamlNode(v any) (*yaml.Node, error) {
	n := &yaml.Node{}
	switch v := v.(type) {
	case sops.TreeBranch:
		n.Kind = yaml.MappingNode
		for _, item := range v {
			key, err := yamlNode(item.Key)
			if err != nil {
				return nil, err
			}
			value, err := yamlNode(item.Value)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, key, value)
		}
	case []any:
		n.Kind = yaml.SequenceNode
		for _, item := range v {
			value, err := yamlNode(item)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, value)
		}
	case string:
		if n.SetString(v); !plainText.MatchString(v) || otherBool.MatchString(v) {
			n.Style = yaml.DoubleQuotedStyle
		}
	default:
		return n, n.Encode(v)
	}
	return n, nil
}
