package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/keys"
)

type retireOptions struct {
	keysFlags
	force, undo bool
}

func newKeysRetireCommand() *cobra.Command {
	var o retireOptions
	cmd := &cobra.Command{
		Use:   "retire NUMBER",
		Short: "Let a key generation open nothing any more",
		Long: `Let a key generation open nothing any more.

The newest active one can not be retired. It is refused, too, while any Sync of the
cluster says that it opens files with the key, and while one is not ready, so that it is
not known; --force does it nevertheless. The Secret stays: --undo takes it back, as long
as nobody deletes it. You need the right to list the Syncs of all namespaces, and to
list and patch Secrets in the agent's namespace.

Exit codes: 0 fine, 1 it is needed, 2 an error, 3 not authorised.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 {
				return fmt.Errorf("%q is no number of a generation", args[0])
			}
			return o.run(cmd, n)
		},
	}
	o.keysFlags.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.force, "force", false, "retire it although it is needed, or that is not known")
	f.BoolVar(&o.undo, "undo", false, "let a retired one open again")
	cmd.MarkFlagsMutuallyExclusive("force", "undo")
	return cmd
}

func (o retireOptions) run(cmd *cobra.Command, number int) error {
	if err := o.checkOutput(); err != nil {
		return err
	}
	store, _, err := o.store()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	change := store.Retire
	if o.undo {
		change = store.Unretire
	} else if err := o.free(ctx, cmd, store, number); err != nil {
		return err
	}
	g, err := change(ctx, number)
	switch {
	case errors.Is(err, keys.ErrSealedTo):
		return hint(&findings{err.Error()}, "make another one first: `seal keys new`")
	case errors.Is(err, keys.ErrNotRetired):
		return &findings{err.Error()}
	case errors.Is(err, keys.ErrNoSuchGeneration):
		return hint(err, "`seal keys list` shows them")
	case err != nil:
		return o.mayRead(err)
	}
	text := fmt.Sprintf("generation %d is %s\n", g.Number, g.State)
	if g.State == keys.Retired {
		text += fmt.Sprintf("it opens nothing any more; to take that back: seal keys retire %d --undo\n", g.Number)
	}
	return o.print(cmd, g, text)
}

// free reports whether nothing needs the generation; with --force it only says so.
func (o retireOptions) free(ctx context.Context, cmd *cobra.Command, store keys.Store, number int) error {
	public, err := keys.FetchPublic(ctx, store.Client, o.namespace)
	if err != nil {
		return o.explain(err)
	}
	i := slices.IndexFunc(public.Generations, func(g keys.PublicGeneration) bool { return g.Number == number })
	if i < 0 {
		return nil // Retire says what is wrong
	}
	g := public.Generations[i]
	if g.State == keys.Active && g.Recipient == public.Recipients[0].String() {
		return nil // as well
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	needs, owners, err := needsOf(ctx, cfg)
	if err != nil {
		if o.force && forbidden(err) {
			fmt.Fprintln(cmd.ErrOrStderr(), "who needs it is not known: you may not list the Syncs of all namespaces")
			return nil
		}
		return err
	}
	var why []string
	for _, n := range needs.of(g) {
		why = append(why, fmt.Sprintf("sync %s opens %d files with it", n.Sync, n.Files))
	}
	why = append(why, needs.unknown...)
	others, err := strangers(ctx, cfg, o.namespace, owners)
	if err != nil {
		return o.mayRead(err)
	}
	for _, owner := range others {
		why = append(why, fmt.Sprintf("%s is kept by an `agent sync`, which does not say what it needs", owner))
	}
	for _, line := range why {
		fmt.Fprintln(cmd.ErrOrStderr(), line)
	}
	if len(why) == 0 || o.force {
		return nil
	}
	return hint(&findings{fmt.Sprintf("generation %d was not retired: it is needed, or may be", number)}, "seal these files to the newest key and commit them (`seal rotate`), then try again; --force retires it nevertheless")
}
