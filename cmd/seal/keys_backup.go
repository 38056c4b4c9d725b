package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

type backupOptions struct {
	keysFlags
	file           string
	recipients     []string
	recipientsFile string
	passphraseFile string
	force          bool
}

func newKeysBackupCommand() *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup -f FILE",
		Short: "Write all keys into one encrypted file",
		Long: `Write all keys into one encrypted file.

It holds every generation and the token key, and is encrypted with age, to a passphrase or
to age recipients, before it is written. You need the right to read the Secrets of the
agent's namespace; that the backup was made is noted on them, for which you need to patch
them. 'seal keys restore' brings them back, and so does, without gitseal:

  age -d FILE | kubectl apply --server-side -f -

Whoever has the file and opens it can read everything that was ever sealed. Keep it, and
what opens it, away from the cluster and from the repository.`,
		Example: `  seal keys backup -f keys.age                                # asks for a passphrase
  seal keys backup -f keys.age --age age1… --age age1…`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.keysFlags.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "file to write (required)")
	f.StringArrayVar(&o.recipients, "age", nil, "age recipient who can open it (may be repeated)")
	f.StringVar(&o.recipientsFile, "recipients-file", "", "file of age recipients, one a line")
	f.StringVar(&o.passphraseFile, "passphrase-file", "", "file with the passphrase; - for standard input")
	f.BoolVar(&o.force, "force", false, "overwrite the file")
	must(cmd.MarkFlagRequired("file"))
	cmd.MarkFlagsMutuallyExclusive("age", "passphrase-file")
	cmd.MarkFlagsMutuallyExclusive("recipients-file", "passphrase-file")
	return cmd
}

// backedUp is the stable form of `seal keys backup -o json`.
type backedUp struct {
	File        string    `json:"file"`
	Generations []int     `json:"generations"`
	At          time.Time `json:"at"`
	Recipients  []string  `json:"recipients,omitempty"` // who can open it; none for a passphrase
}

func (o backupOptions) run(cmd *cobra.Command) error {
	if err := o.checkOutput(); err != nil {
		return err
	}
	if o.file == "-" {
		return errors.New("a backup goes into a file: what is written to a pipe can not be said to be kept")
	}
	if _, err := os.Lstat(o.file); err == nil && !o.force {
		return hint(fmt.Errorf("%s exists", o.file), "--force overwrites it")
	}
	locks, out, err := o.locks(cmd)
	if err != nil {
		return err
	}
	store, _, err := o.store()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	out.At = time.Now().UTC().Truncate(time.Second)
	export, err := store.Export(ctx, out.At)
	if err != nil {
		return o.mayRead(err)
	}
	if err := circular(locks, export.Generations); err != nil {
		return err
	}
	for _, g := range export.Generations {
		out.Generations = append(out.Generations, g.Number)
	}
	b, err := crypto.SealBackup(export.Text, locks)
	if err != nil {
		return err
	}
	if err := writeNew(o.file, b, o.force); err != nil {
		return err
	}
	out.File = o.file
	fmt.Fprintln(cmd.ErrOrStderr(), "wrote", o.file)
	if err := o.print(cmd, out, fmt.Sprintf("it holds generations %s and the token key; try it: seal keys restore -f %s --dry-run\n", numbers(out.Generations), o.file)); err != nil {
		return err
	}
	if err := store.NoteBackup(ctx, export.Generations, out.At); err != nil {
		return hint(fmt.Errorf("the backup is good, but it could not be noted: %w", err), "who may patch these Secrets runs it again, or sets their annotation %s=%s", keys.BackedUpAnnotation, out.At.Format(time.RFC3339))
	}
	return nil
}

// locks are what the flags say, or the passphrase that a person types.
func (o backupOptions) locks(cmd *cobra.Command) (crypto.Locks, backedUp, error) {
	var locks crypto.Locks
	var out backedUp
	for i, text := range o.recipients {
		r, err := crypto.ParseRecipient(text)
		if err != nil {
			return locks, out, fmt.Errorf("--age, number %d: %w", i+1, err)
		}
		locks.Recipients = append(locks.Recipients, r)
	}
	if o.recipientsFile != "" {
		b, err := os.ReadFile(o.recipientsFile)
		if err != nil {
			return locks, out, err
		}
		rs, err := crypto.ParseRecipients(b)
		if err != nil {
			return locks, out, fmt.Errorf("%s: %w", o.recipientsFile, err)
		}
		if len(rs) == 0 {
			return locks, out, fmt.Errorf("%s holds no recipient", o.recipientsFile)
		}
		locks.Recipients = append(locks.Recipients, rs...)
	}
	if len(locks.Recipients) > 0 {
		for _, r := range locks.Recipients {
			out.Recipients = append(out.Recipients, r.String())
		}
		return locks, out, nil
	}
	var err error
	if o.passphraseFile != "" {
		locks.Passphrase, err = readPassphrase(cmd, o.passphraseFile)
		return locks, out, err
	}
	fd, ok := terminal(cmd)
	if !ok {
		return locks, out, errors.New("say --age, --recipients-file or --passphrase-file: there is no terminal to ask for a passphrase")
	}
	if locks.Passphrase, err = prompt(cmd, fd, "Passphrase of the backup: "); err != nil {
		return locks, out, err
	}
	again, err := prompt(cmd, fd, "Again: ")
	if err == nil && !again.Equal(locks.Passphrase) {
		err = errors.New("they differ")
	}
	return locks, out, err
}

// circular refuses a backup that only the keys in it open.
func circular(locks crypto.Locks, saved []keys.PublicGeneration) error {
	if len(locks.Recipients) == 0 {
		return nil
	}
	for _, r := range locks.Recipients {
		if !slices.ContainsFunc(saved, func(g keys.PublicGeneration) bool { return g.Recipient == r.String() }) {
			return nil
		}
	}
	return hint(&findings{"only the keys in the backup would open it; nothing was written"}, "name a recipient whose key is kept elsewhere, as age-keygen makes it")
}

// writeNew writes a file that only its owner may read, and is on the disk when it
// returns. An existing one is replaced as a whole, or not touched.
func writeNew(name string, b []byte, replace bool) error {
	if replace {
		if err := renameio.WriteFile(name, b, 0o600, renameio.IgnoreUmask()); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		return nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return hint(err, "--force overwrites it")
		}
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(name) // it is not whole, and the error says so
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func numbers(list []int) string {
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = fmt.Sprint(n)
	}
	return strings.Join(out, ", ")
}
