package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gitseal/gitseal/crypto"
)

// readPassphrase reads one from a file, or standard input for "-"; without the end of its
// line.
func readPassphrase(cmd *cobra.Command, file string) (crypto.Secret, error) {
	text, err := readPlain(cmd, file)
	if err != nil {
		return crypto.Secret{}, err
	}
	b := bytes.TrimRight(text.Reveal(), "\r\n")
	if len(b) == 0 {
		return crypto.Secret{}, fmt.Errorf("the passphrase in %s is empty", display(file))
	}
	return crypto.NewSecret(b), nil
}

// terminal is standard input, where a person sits at it.
func terminal(cmd *cobra.Command) (fd int, ok bool) {
	f, ok := cmd.InOrStdin().(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(f.Fd()) //nolint:gosec // a descriptor is small
	return fd, term.IsTerminal(fd)
}

func prompt(cmd *cobra.Command, fd int, text string) (crypto.Secret, error) {
	fmt.Fprint(cmd.ErrOrStderr(), text)
	b, err := term.ReadPassword(fd)
	fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return crypto.Secret{}, fmt.Errorf("read the passphrase: %w", err)
	}
	if len(b) == 0 {
		return crypto.Secret{}, errors.New("the passphrase is empty")
	}
	return crypto.NewSecret(b), nil
}
