package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

type restoreOptions struct {
	keysFlags
	file           string
	identityFile   string
	passphraseFile string
	dryRun         bool
}

func newKeysRestoreCommand() *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore -f FILE",
		Short: "Bring keys back from a backup",
		Long: `Bring keys back from a backup.

What is missing is made, the namespace, too; what is there stays as it is, and so does its
state. Where a Secret holds another key than the backup nothing is written. It may be run
again. You need the right to read and create Secrets in the agent's namespace.

Into an empty cluster: restore first, then install the agent; it takes these keys and
makes none. An agent that refuses to start for lack of its keys goes on by itself.

Exit codes: 0 fine, 1 the cluster holds other keys, 2 an error, 3 not authorised.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.keysFlags.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "the backup; - for standard input (required)")
	f.StringVar(&o.identityFile, "identity", "", "file of the age identity that opens it")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "file with the passphrase; - for standard input")
	f.BoolVar(&o.dryRun, "dry-run", false, "open the backup and compare, and write nothing")
	must(cmd.MarkFlagRequired("file"))
	cmd.MarkFlagsMutuallyExclusive("identity", "passphrase-file")
	return cmd
}

func (o restoreOptions) run(cmd *cobra.Command) error {
	if err := o.checkOutput(); err != nil {
		return err
	}
	if o.file == "-" && (o.identityFile == "-" || o.passphraseFile == "-") {
		return errors.New("only one of --file, --identity and --passphrase-file can be standard input")
	}
	sealed, err := readPlain(cmd, o.file)
	if err != nil {
		return err
	}
	with, err := o.keyhole(cmd)
	if err != nil {
		return err
	}
	text, err := crypto.OpenBackup(sealed.Reveal(), with)
	if err != nil {
		err = fmt.Errorf("open %s: %w", display(o.file), err)
		switch {
		case errors.Is(err, crypto.ErrNeedsIdentity):
			return hint(err, "say --identity")
		case errors.Is(err, crypto.ErrNeedsPassphrase):
			return hint(err, "say --passphrase-file, or run it at a terminal without --identity")
		}
		return err
	}
	store, _, err := o.store()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	restore := store.Restore
	if o.dryRun {
		restore = store.Compare
	}
	done, err := restore(ctx, text)
	var differs *keys.DiffersError
	switch {
	case errors.As(err, &differs):
		return hint(&findings{"nothing was restored: " + differs.Error()}, "is it the right cluster, and the right backup? To have the backup's keys, delete these Secrets first")
	case err != nil:
		if len(done.Created) > 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "restored before that:", strings.Join(done.Created, ", "))
		}
		return o.mayRead(err)
	}
	var say strings.Builder
	verb, next := "restored", "next: start the agent (`seal install`), or watch it go on; then `seal keys list` and `seal get -A`\n"
	if o.dryRun {
		verb, next = "would be restored", ""
	}
	for _, name := range done.Created {
		fmt.Fprintf(&say, "%s: secret %s/%s\n", verb, o.namespace, name)
	}
	for _, name := range done.Kept {
		fmt.Fprintf(&say, "there already: secret %s/%s\n", o.namespace, name)
	}
	return o.print(cmd, done, say.String()+next)
}

// keyhole is what the flags say, or the passphrase that a person types.
func (o restoreOptions) keyhole(cmd *cobra.Command) (crypto.Keyhole, error) {
	var with crypto.Keyhole
	var err error
	switch fd, ok := terminal(cmd); {
	case o.identityFile != "":
		with.Identities, err = readIdentities(cmd, o.identityFile)
	case o.passphraseFile != "":
		with.Passphrase, err = readPassphrase(cmd, o.passphraseFile)
	case !ok || o.file == "-":
		err = errors.New("say --identity or --passphrase-file: there is no terminal to ask for a passphrase")
	default:
		with.Passphrase, err = prompt(cmd, fd, "Passphrase of the backup: ")
	}
	return with, err
}

// readIdentities reads a file as age-keygen writes it.
func readIdentities(cmd *cobra.Command, file string) ([]crypto.Identity, error) {
	text, err := readPlain(cmd, file)
	if err != nil {
		return nil, err
	}
	ids, err := crypto.ParseIdentities(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", display(file), err)
	}
	return ids, nil
}
