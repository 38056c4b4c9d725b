package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/crypto"
)

// maxInput is the most that is read from a file or standard input, in bytes.
const maxInput = crypto.MaxSealedFile

// readPlain reads a file, or standard input for "-" and "".
func readPlain(cmd *cobra.Command, name string) (crypto.Secret, error) {
	in := cmd.InOrStdin()
	if name != "" && name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return crypto.Secret{}, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return crypto.Secret{}, fmt.Errorf("read %s: %w", display(name), err)
	}
	if len(b) > maxInput {
		return crypto.Secret{}, fmt.Errorf("%s is larger than %d MiB", display(name), maxInput>>20)
	}
	return crypto.NewSecret(b), nil
}

func display(name string) string {
	if name == "" || name == "-" {
		return "standard input"
	}
	return name
}

// write puts b into a file as a whole or not at all, or on standard output for
// "" and "-". An existing file keeps its mode.
func write(cmd *cobra.Command, name string, b []byte) error {
	if name == "" || name == "-" {
		_, err := cmd.OutOrStdout().Write(b)
		return err
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	if err := renameio.WriteFile(name, b, mode); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "wrote", name)
	return nil
}

// findUp looks for a file in dir and the folders above it, up to the root of
// the git work tree.
func findUp(dir, name string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		p := filepath.Join(abs, name)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
		if _, err := os.Stat(filepath.Join(abs, ".git")); err == nil {
			return "", os.ErrNotExist
		}
		up := filepath.Dir(abs)
		if up == abs {
			return "", os.ErrNotExist
		}
		abs = up
	}
}

func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "output format: json or yaml")
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("seal: internal error: " + err.Error())
	}
}

// encode writes v as json or yaml; YAML documents start with ---.
func encode(v any, output string) ([]byte, error) {
	switch output {
	case "json":
		b, err := json.MarshalIndent(v, "", "  ")
		return append(b, '\n'), err
	case "yaml", "":
		b, err := yaml.Marshal(v)
		return append([]byte("---\n"), b...), err
	default:
		return nil, fmt.Errorf("output %q is not json or yaml", output)
	}
}

func notExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
