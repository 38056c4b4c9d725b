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
	config, abs, err := r.files(path)
	if err != nil {
		return crypto.Rule{}, err
	}
	rule, err := crypto.CreationRule(config, abs)
	return rule, ruleError(err, config, path)
}

// recipients names the keys of the rule for a file, also those that nothing can be
// sealed to here.
func (r ruleFlags) recipients(path string) ([]string, error) {
	if len(r.age) > 0 {
		return r.age, nil
	}
	config, abs, err := r.files(path)
	if err != nil {
		return nil, err
	}
	names, err := crypto.RuleRecipients(config, abs)
	return names, ruleError(err, config, path)
}

func ruleError(err error, config, path string) error {
	if errors.Is(err, crypto.ErrNoRule) {
		return hint(fmt.Errorf("%s: %w %s", config, err, path), "add a rule with a path_regex for it, or run `seal keys fetch`")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", config, err)
	}
	return nil
}

// files are the configuration for a file, and the file, with their folders.
func (r ruleFlags) files(path string) (config, abs string, err error) {
	if abs, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	config = r.config
	if config == "" {
		if config, err = findUp(filepath.Dir(abs), sopsConfigName); err != nil {
			return "", "", hint(fmt.Errorf("no .sops.yaml in the folder of %s or above it", path), "run `seal keys fetch` in the repository, or name recipients with --age")
		}
	}
	config, err = filepath.Abs(config)
	return config, abs, err
}
