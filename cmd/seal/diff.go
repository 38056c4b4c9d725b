package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/decrypt"
)

type diffOptions struct {
	clusterFlags
	namespace, name, sync, commit  string
	targetNamespace, sealedSecrets string
	ignoreFields                   []string
	prune                          bool
	pruneLimit                     string
	output                         string
	timeout                        time.Duration
}

func newDiffCommand() *cobra.Command {
	var o diffOptions
	cmd := &cobra.Command{
		Use:   "diff [DIR]",
		Short: "Show what the work tree, or a commit, would change in the cluster",
		Long: `Show what the work tree, or a commit, would change in the cluster.

DIR is rendered without any key, and so is the commit that the agent has applied, which
must be in this clone. The plan is the agent's own: what is created, adopted (it is in
the cluster already), changed, left and pruned, and why. For what changes the API server
is asked by a dry run, and the difference is shown. Of Secrets only the names of keys are
shown, and whether they were sealed anew; no Secret is sent or read, but for the agent's
inventory.

With --sync it is about a Sync of the cluster, else about what 'agent sync' applies.

It needs the rights to list what the sync applies, and to patch it, since a dry run asks
for that; and to read the agent's inventory (Secrets of --namespace), without which, with
--sync, only what differs in git shows, and not what somebody has changed in the cluster.

Exit codes: 0 no difference, 1 a difference, 2 an error, 3 not authorised.`,
		Example: `  seal diff --sync shop -n team          # the path of the Sync, in this clone
  seal diff apps --name shop            # what agent sync --name shop applies
  seal diff --sync shop --commit v1.2.0 # what a rollback would do`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, args)
		},
	}
	f := cmd.Flags()
	o.clusterFlags.add(f)
	f.StringVar(&o.namespace, "namespace", "gitseal-system", "namespace of the agent's keys and state")
	f.StringVar(&o.name, "name", "default", "name of the sync, as the agent has it")
	f.StringVar(&o.sync, "sync", "", "the Sync, of namespace -n, that applies DIR: what it says stands for the flags, and its path for DIR")
	f.StringVarP(&o.targetNamespace, "target-namespace", "n", "", "namespace for objects that name none, as the agent has it (default \"default\"); with --sync, the namespace of the Sync (default: the one of the kubeconfig's context)")
	f.StringVar(&o.sealedSecrets, "sealed-secrets", string(decrypt.Unseal), "SealedSecret objects, as the agent has it: Unseal or PassThrough")
	f.StringArrayVar(&o.ignoreFields, "ignore-fields", nil, "fields that others may take over, as the agent has it (may be repeated)")
	f.StringVar(&o.commit, "commit", "", "look at this commit of the clone, by hash, branch or tag, and not at the work tree")
	f.BoolVar(&o.prune, "prune", true, "show what would be pruned, too")
	f.StringVar(&o.pruneLimit, "prune-limit", "", "limit of prunes, as the agent has it")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "longest time that it may take")
	addOutputFlag(cmd, &o.output)
	for _, flag := range []string{"name", "sealed-secrets", "ignore-fields", "prune-limit"} {
		cmd.MarkFlagsMutuallyExclusive("sync", flag)
	}
	return cmd
}

func (o diffOptions) run(cmd *cobra.Command, args []string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	terms, err := o.terms(ctx)
	if err != nil {
		return err
	}
	work, err := workTree(folderOf(args))
	if err != nil {
		return err
	}
	if len(args) == 0 && terms.of != nil {
		work.folder = terms.folder
	}
	if o.commit != "" {
		if work, err = work.at(ctx, o.commit); err != nil {
			return err
		}
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	cluster, err := apply.Connect(cfg)
	if err != nil {
		return err
	}
	runner := &apply.Runner{Cluster: cluster, Store: apply.NewInventoryStore(cluster, terms.owner), Owner: terms.owner}
	known, err := terms.inventory(ctx, runner, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	now, before, err := work.renders(ctx, known.inventory, terms.sealedSecrets, terms.targetNamespace)
	if err != nil {
		return err
	}
	desired, unknown := cluster.Resolve(now.objects, terms.targetNamespace)
	in := apply.PlanInput{
		Owner: terms.owner, Desired: desired, Inventory: before.known(known.inventory), ByLabels: known.byLabels, Source: known.inventory.Source, Ignore: terms.ignore,
		Prune: terms.prune, Limit: terms.limit, Drifted: known.drifted, Held: known.held,
	}
	for _, f := range unknown {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", f.Error())
		in.Incomplete = f.Error()
	}
	previews, err := runner.Previews(ctx, apply.NewPlan(in))
	if err != nil {
		return err
	}
	return o.show(cmd, now, before, previews)
}

// difference is one line of `seal diff -o json`, in its stable form.
type difference struct {
	Object  string   `json:"object"`
	Action  string   `json:"action"`
	Reason  string   `json:"reason,omitempty"`
	Diff    string   `json:"diff,omitempty"`
	Keys    []string `json:"keys,omitempty"` // of Secrets
	Refused string   `json:"refused,omitempty"`
}

func (o diffOptions) show(cmd *cobra.Command, now, before render, previews []apply.Preview) error {
	all := []difference{}
	for _, p := range previews {
		if p.Action == apply.Leave {
			continue
		}
		d := difference{Object: p.ID.String(), Action: string(p.Action), Reason: p.Reason}
		var err error
		if d.Diff, err = unified(p.Live, p.Planned); err != nil {
			return err
		}
		if p.ID.Kind == "Secret" && p.ID.Group == "" {
			d.Keys = changedKeys(before.secrets[p.ID], now.secrets[p.ID])
		}
		if p.Refused != nil {
			d.Refused = p.Refused.Error()
		}
		all = append(all, d)
	}
	if o.output != "" {
		b, err := encode(all, o.output)
		if err != nil {
			return err
		}
		if err := write(cmd, "", b); err != nil {
			return err
		}
	} else {
		printDifferences(cmd.OutOrStdout(), all)
	}
	if len(all) == 0 {
		return nil
	}
	return &findings{fmt.Sprintf("%d objects differ", len(all))}
}

func printDifferences(w io.Writer, all []difference) {
	for _, d := range all {
		fmt.Fprintf(w, "%s %s (%s)\n", d.Action, d.Object, d.Reason)
		if d.Refused != "" {
			fmt.Fprintln(w, "  !", d.Refused)
		}
		for _, k := range d.Keys {
			fmt.Fprintln(w, "  "+k)
		}
		for line := range strings.Lines(d.Diff) {
			fmt.Fprint(w, "  "+line)
		}
	}
}
