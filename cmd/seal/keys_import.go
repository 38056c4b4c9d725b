package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

type importOptions struct {
	keysFlags
	identityFile, certFile, keyFile string
	activate                        bool
}

func newKeysImportCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import --identity FILE",
		Short: "Make a key of yours the newest generation",
		Long: `Make a key of yours the newest generation.

On standby it opens what is sealed to it; with --activate it is sealed to, too. The very
first one must be active. Without --cert and --key a certificate is made. A key that is
there already is refused. You need the right to read and create Secrets in the agent's
namespace; the agent takes the key at once. Make the files unreadable for others, and
delete them afterwards.`,
		Example: `  age-keygen -o key.txt && seal keys import --identity key.txt --activate`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.keysFlags.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.identityFile, "identity", "", "file of one age identity; - for standard input (required)")
	f.StringVar(&o.certFile, "cert", "", "PEM file of the certificate of a sealed-secrets key")
	f.StringVar(&o.keyFile, "key", "", "PEM file of its RSA key")
	f.BoolVar(&o.activate, "activate", false, "seal to it from now on")
	must(cmd.MarkFlagRequired("identity"))
	cmd.MarkFlagsRequiredTogether("cert", "key")
	return cmd
}

func (o importOptions) run(cmd *cobra.Command) error {
	if err := o.checkOutput(); err != nil {
		return err
	}
	pair, err := o.pair(cmd)
	if err != nil {
		return err
	}
	store, _, err := o.store()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	state := keys.Standby
	if o.activate {
		state = keys.Active
	}
	g, err := store.Import(ctx, pair, state)
	switch {
	case errors.Is(err, keys.ErrHeld):
		return &findings{err.Error()}
	case errors.Is(err, keys.ErrFirstMustBeActive):
		return hint(err, "say --activate")
	case err != nil:
		return o.mayRead(err)
	}
	return o.print(cmd, g, fmt.Sprintf("generation %d is %s\n", g.Number, g.State)+fingerprintLines(g))
}

func (o importOptions) pair(cmd *cobra.Command) (keys.Pair, error) {
	var p keys.Pair
	ids, err := readIdentities(cmd, o.identityFile)
	if err != nil {
		return p, err
	}
	if len(ids) != 1 {
		return p, fmt.Errorf("%s: %d identities, want one", display(o.identityFile), len(ids))
	}
	p.Identity = ids[0]
	if o.certFile == "" {
		return p, nil
	}
	cert, err := readPlain(cmd, o.certFile)
	if err != nil {
		return p, err
	}
	key, err := readPlain(cmd, o.keyFile)
	if err != nil {
		return p, err
	}
	k, err := crypto.ParseCertificateKey(cert.Reveal(), key)
	if err != nil {
		return p, fmt.Errorf("%s and %s: %w", o.certFile, o.keyFile, err)
	}
	p.Certificate = &k
	return p, nil
}
