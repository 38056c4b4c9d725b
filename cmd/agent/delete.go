package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/apply"
)

// deleteOptions are the flags of `agent delete`.
type deleteOptions struct {
	target
	orphan, yes bool
}

func newDeleteCommand() *cobra.Command {
	var o deleteOptions
	cmd := &cobra.Command{
		Use:   "delete --name NAME {--yes | --orphan}",
		Short: "Take a sync out of the cluster, with what it has applied or without",
		Long: `Take a sync out of the cluster, with what it has applied or without.

With --yes everything that the sync has applied is deleted, by the rules of every
prune: what is annotated to be kept stays, and so does a namespace that holds other
things. With --orphan all of it stays as it is, and belongs to nobody. What can not
be deleted yet is named; run the command again. Then the sync's inventory goes. The
agent's keys stay.

Stop the agent first: the command waits until it has ended.`,
		Example: `  agent delete --name shop --orphan`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	o.target.add(f)
	f.BoolVar(&o.orphan, "orphan", false, "leave what the sync has applied in the cluster")
	f.BoolVar(&o.yes, "yes", false, "delete what the sync has applied")
	return cmd
}

func (o deleteOptions) run(ctx context.Context, stdout, stderr io.Writer) error {
	if o.orphan == o.yes {
		return errors.New("say either --yes, to delete what the sync has applied, or --orphan, to leave it")
	}
	_, cluster, log, err := o.connect(stderr)
	if err != nil {
		return err
	}
	owner := o.owner()
	return lead(ctx, cluster.Client(), owner, log, func(ctx context.Context) error {
		runner := &apply.Runner{Cluster: cluster, Store: apply.NewInventoryStore(cluster, owner), Owner: owner}
		inv, err := runner.Store.Load(ctx)
		if err != nil {
			return err
		}
		if len(inv.Entries) == 0 {
			fmt.Fprintf(stderr, "nothing is known of a sync %s in %s\n", o.name, o.namespace)
		}
		res, err := runner.Remove(ctx, inv, o.orphan)
		for _, d := range res.Done {
			fmt.Fprintf(stdout, "%s %s (%s)\n", d.Action, d.ID, d.Reason)
		}
		for _, f := range res.Kept {
			fmt.Fprintln(stderr, "kept:", f)
		}
		if n := len(res.Inventory.Entries); err == nil && n > 0 {
			fmt.Fprintf(stderr, "%d objects are not gone yet; run the command again\n", n)
			return errNotApplied
		}
		return err
	})
}
