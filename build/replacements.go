package build

import (
	"encoding/json"
	"fmt"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// replacements looks for those that cut a value in pieces at a delimiter. Where
// the value is sealed, kustomize sees a placeholder instead, finds no delimiter
// in it, and goes on with a wrong value in silence. Whether it is sealed only a
// build can tell: probe does.
func (c *checker) replacements(file, dir string, fields []types.ReplacementField) error {
	for i, f := range fields {
		at := fmt.Sprintf("replacements[%d]", i)
		if f.Path == "" {
			c.delimited(file, at, i, f.Replacement)
			continue
		}
		target, list, err := c.replacementFile(file, dir, at, f.Path)
		if err != nil {
			return err
		}
		for j, r := range list {
			at := ""
			if len(list) > 1 {
				at = fmt.Sprintf("[%d]", j)
			}
			c.delimited(target, at, j, r)
		}
	}
	return nil
}

// replacementFile reads a file with one replacement or a list of them.
func (c *checker) replacementFile(file, dir, at, path string) (target string, list []types.Replacement, err error) {
	target, err = c.local(file, dir, pathEntry{field: at + ".path", value: path})
	if err != nil {
		return "", nil, err
	}
	b, err := readLimited(c.tree, target)
	if err != nil {
		return "", nil, err
	}
	if yaml.Unmarshal(b, &list) != nil {
		var one types.Replacement
		if yaml.Unmarshal(b, &one) == nil { // else kustomize says what is wrong with it
			list = []types.Replacement{one}
		}
	}
	return target, list, nil
}

// delimited notes a replacement with a delimiter that could meet a Secret.
func (c *checker) delimited(file, at string, index int, r types.Replacement) {
	if cutsSource(r) || cutsTarget(r) {
		c.cuts = append(c.cuts, cut{file: file, at: at, index: index, delimiters: targetDelimiters(r)})
	}
}

// transformerReplacements are those of a ReplacementTransformer. They can not be
// probed, so each that could cut a sealed value is refused.
func (c *checker) transformerReplacements(file, dir string, doc map[string]any) error {
	var config struct {
		Replacements []types.ReplacementField `json:"replacements"`
	}
	if b, err := json.Marshal(doc); err != nil || json.Unmarshal(b, &config) != nil {
		return nil // kustomize says what is wrong with it
	}
	for i, f := range config.Replacements {
		at := fmt.Sprintf("replacements[%d]", i)
		list, where := []types.Replacement{f.Replacement}, file
		if f.Path != "" {
			var err error
			if where, list, err = c.replacementFile(file, dir, at, f.Path); err != nil {
				return err
			}
			at = ""
		}
		for _, r := range list {
			switch {
			case cutsSource(r):
				return &KustomizationError{where, strings.TrimPrefix(at+".source.options.delimiter", "."), "may cut a sealed value in pieces; write it as replacements of the kustomization, where that can be checked"}
			case cutsTarget(r):
				return &KustomizationError{where, strings.TrimPrefix(at+".targets.options.delimiter", "."), "may cut a sealed value in pieces; write it as replacements of the kustomization, where that can be checked"}
			}
		}
	}
	return nil
}

func cutsSource(r types.Replacement) bool {
	s := r.Source
	return s != nil && s.Options != nil && s.Options.Delimiter != "" && secretKind(s.Kind) && ofSecretData(s.FieldPath)
}

func cutsTarget(r types.Replacement) bool {
	for _, t := range r.Targets {
		if t == nil || t.Options == nil || t.Options.Delimiter == "" || t.Select == nil || !secretKind(t.Select.Kind) {
			continue
		}
		for _, p := range t.FieldPaths {
			if ofSecretData(p) {
				return true
			}
		}
	}
	return false
}

func targetDelimiters(r types.Replacement) []string {
	var out []string
	for _, t := range r.Targets {
		if t != nil && t.Options != nil && t.Options.Delimiter != "" {
			out = append(out, t.Options.Delimiter)
		}
	}
	return out
}

// secretKind reports whether a selector may select a Secret; targets take
// regular expressions.
func secretKind(kind string) bool {
	return kind == "" || kind == "Secret" || strings.ContainsAny(kind, `.*+?()|[]{}^$\`)
}

func ofSecretData(path string) bool {
	field := strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == '/' })
	return len(field) > 0 && (field[0] == "data" || field[0] == "stringData" || field[0] == "*")
}
