package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/crypto"
)

type encryptOptions struct {
	bind    bindingFlags
	rule    ruleFlags
	inPlace bool
	write   string
	name    string
}

func newEncryptCommand() *cobra.Command {
	var o encryptOptions
	cmd := &cobra.Command{
		Use:   "encrypt [-i] FILE",
		Short: "Seal a file as a SOPS file",
		Long: `Seal a file as a SOPS file, to the recipients of the nearest .sops.yaml.

The format follows from the file's name: yaml, json, dotenv (.env), ini, or else
binary. The sealed file says, in a sealed field, which object its values are for,
so that nobody can move them into an object of his own; the object's namespace
and name are taken from the file, or from --for.`,
		Example: `  seal encrypt -i apps/db.yaml
  seal encrypt --for shop/env -i apps/app.env      # a dotenv file for a secretGenerator
  kubectl create secret … --dry-run=client -o yaml | seal encrypt --filename db.yaml - > db.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.bind.add(cmd)
	o.rule.add(cmd)
	cmd.Flags().BoolVarP(&o.inPlace, "in-place", "i", false, "replace the file by the sealed one")
	cmd.Flags().StringVarP(&o.write, "write", "w", "", "write to this file instead of standard output")
	cmd.Flags().StringVar(&o.name, "filename", "", "name of the file that standard input will become; decides format and rule")
	cmd.MarkFlagsMutuallyExclusive("in-place", "write")
	return cmd
}

func (o encryptOptions) run(cmd *cobra.Command, file string) error {
	name := orElse(o.name, orElse(o.write, file))
	if file == "-" {
		if o.inPlace {
			return errors.New("standard input can not be sealed in place")
		}
		if name == "-" {
			return hint(errors.New("the format of standard input is not known"), "say --filename NAME or --write NAME")
		}
	}
	plain, err := readPlain(cmd, file)
	if err != nil {
		return err
	}
	format := crypto.FormatOf(name)
	sealed, err := sealPlain(plain, format, name, o.bind, o.rule)
	if err != nil {
		return wrap(display(file), err)
	}
	if o.inPlace {
		// A link stays a link, and the plaintext behind it is replaced.
		if file, err = filepath.EvalSymlinks(file); err != nil {
			return err
		}
		return write(cmd, file, sealed)
	}
	return write(cmd, o.write, sealed)
}

// sealPlain is what encrypt and secret share.
func sealPlain(plain crypto.Secret, format crypto.Format, path string, bind bindingFlags, rules ruleFlags) ([]byte, error) {
	docs, err := crypto.Documents(plain, format)
	if err != nil {
		return nil, err
	}
	binding, err := bind.binding(docs, format)
	if err != nil {
		return nil, err
	}
	objects := false
	for _, d := range docs {
		objects = objects || d.IsObject()
	}
	rule, err := rules.rule(path, objects)
	if err != nil {
		return nil, err
	}
	return crypto.SealSOPS(crypto.SealRequest{Plain: plain, Format: format, Rule: rule, Binding: binding, Now: time.Now()})
}

// wrap names the file, and keeps a hint.
func wrap(file string, err error) error {
	var h *hinted
	if errors.As(err, &h) {
		return &hinted{fmt.Errorf("%s: %w", file, h.err), h.hint}
	}
	return fmt.Errorf("%s: %w", file, err)
}
