package build

import (
	"encoding/json"
	"fmt"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// replacements refuses to cut a Secret's value in pieces: where it is sealed, a
// placeholder would be cut, and nobody could tell from the result.
func (c *checker) replacements(file, dir string, fields []types.ReplacementField) error {
	for i, f := range fields {
		at := fmt.Sprintf("replacements[%d]", i)
		if f.Path == "" {
			if err := cutsSecret(file, at, f.Replacement); err != nil {
				return err
			}
			continue
		}
		target, err := c.local(file, dir, pathEntry{field: at + ".path", value: f.Path})
		if err != nil {
			return err
		}
		b, err := readLimited(c.tree, target)
		if err != nil {
			return err
		}
		var list []types.Replacement
		if yaml.Unmarshal(b, &list) != nil {
			var one types.Replacement
			if yaml.Unmarshal(b, &one) != nil {
				continue // kustomize says what is wrong with it
			}
			list = append(list, one)
		}
		for _, r := range list {
			if err := cutsSecret(target, "", r); err != nil {
				return err
			}
		}
	}
	return nil
}

// replacementsOf are those of a ReplacementTransformer.
func replacementsOf(doc map[string]any) []types.ReplacementField {
	var config struct {
		Replacements []types.ReplacementField `json:"replacements"`
	}
	if b, err := json.Marshal(doc); err != nil || json.Unmarshal(b, &config) != nil {
		return nil // kustomize says what is wrong with it
	}
	return config.Replacements
}

func cutsSecret(file, at string, r types.Replacement) error {
	s := r.Source
	if s == nil || s.Options == nil || s.Options.Delimiter == "" || (s.Kind != "Secret" && s.Kind != "") {
		return nil
	}
	field := strings.FieldsFunc(s.FieldPath, func(r rune) bool { return r == '.' || r == '[' || r == '/' })
	if len(field) == 0 || (field[0] != "data" && field[0] != "stringData") {
		return nil
	}
	return &KustomizationError{file, strings.TrimPrefix(at+".source.options.delimiter", "."),
		"a value of a Secret can not be cut in pieces, since it may be sealed; seal the piece as a value of its own (where the source is no Secret, say its kind)"}
}
