package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/crypto"
)

// ruleFlags say to whom a file is sealed.
type ruleFlags struct {
	config string
	age    []string
}

func (r *ruleFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.config, "config", "", "sops configuration (default: the nearest .sops.yaml above the file)")
	cmd.Flags().StringSliceVarP(&r.age, "age", "a", nil, "age recipients to seal to, instead of those of the configuration")
}

// rule finds the creation rule for a file that is or will be at path.
func (r ruleFlags) rule(path string, objects bool) (crypto.Rule, error) {
	if len(r.age) > 0 {
		var rule crypto.Rule
		for _, s := range r.age {
			rec, err := crypto.ParseRecipient(s)
			if err != nil {
				return rule, fmt.Errorf("--age: %w", err)
			}
			rule.Recipients = append(rule.Recipients, rec)
		}
		if objects {
			rule.EncryptedRegex = crypto.KubernetesSelector
		}
		return rule, nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return crypto.Rule{}, err
	}
	config := r.config
	if config == "" {
		if config, err = findUp(filepath.Dir(abs), ".sops.yaml"); err != nil {
			return crypto.Rule{}, hint(fmt.Errorf("no .sops.yaml in the folder of %s or above it", path), "run `seal keys fetch` in the repository, or name recipients with --age")
		}
	}
	if config, err = filepath.Abs(config); err != nil {
		return crypto.Rule{}, err
	}
	rule, err := crypto.CreationRule(config, abs)
	if errors.Is(err, crypto.ErrNoRule) {
		return rule, hint(fmt.Errorf("%s: no creation rule matches %s", config, path), "add a rule with a path_regex for it, or run `seal keys fetch`")
	}
	if err != nil {
		return rule, fmt.Errorf("%s: %w", config, err)
	}
	return rule, nil
}
