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

// delimited notes a replacement with a delimiter. Of what kind its source and
// targets are does not matter: an earlier replacement or a generator may have put a
// sealed value there.
func (c *checker) delimited(file, at string, index int, r types.Replacement) {
	delimiters := targetDelimiters(r)
	if !cutsSource(r) && len(delimiters) == 0 {
		return
	}
	found := cut{file: file, at: at, index: index, delimiters: delimiters}
	if r.Source != nil {
		found.selects = append(found.selects, selected{r.Source.Kind, r.Source.Name})
	}
	for _, t := range r.Targets {
		if t != nil && t.Select != nil {
			found.selects = append(found.selects, selected{t.Select.Kind, t.Select.Name})
		}
	}
	c.cuts = append(c.cuts, found)
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
			case len(targetDelimiters(r)) > 0:
				return &KustomizationError{where, strings.TrimPrefix(at+".targets.options.delimiter", "."), "may cut a sealed value in pieces; write it as replacements of the kustomization, where that can be checked"}
			}
		}
	}
	return nil
}

func cutsSource(r types.Replacement) bool {
	return r.Source != nil && r.Source.Options != nil && r.Source.Options.Delimiter != ""
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
