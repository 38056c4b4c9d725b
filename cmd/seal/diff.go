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
	namespace, name                string
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
		Short: "Show what a commit of the work tree would change in the cluster",
		Long: `Show what a commit of the work tree would change in the cluster.

DIR is rendered without any key, and so is the commit that the agent has applied, which
must be in this clone. The plan is the agent's own: what is created, adopted (it is in
the cluster already), changed, left and pruned, and why. For what changes the API server
is asked by a dry run, and the difference is shown. Of Secrets only the names of keys are
shown, and whether they were sealed anew; no Secret is sent or read, but for the agent's
inventory.

It needs the rights to read the agent's inventory (Secrets of --namespace), to list what
the sync applies, and to patch it, since a dry run asks for that.

Exit codes: 0 no difference, 1 a difference, 2 an error, 3 not authorised.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, folderOf(args))
		},
	}
	f := cmd.Flags()
	o.clusterFlags.add(f)
	f.StringVar(&o.namespace, "namespace", "gitseal-system", "namespace of the agent's keys and state")
	f.StringVar(&o.name, "name", "default", "name of the sync, as the agent has it")
	f.StringVarP(&o.targetNamespace, "target-namespace", "n", "default", "namespace for objects that name none, as the agent has it")
	f.StringVar(&o.sealedSecrets, "sealed-secrets", string(decrypt.Unseal), "SealedSecret objects, as the agent has it: Unseal or PassThrough")
	f.StringArrayVar(&o.ignoreFields, "ignore-fields", nil, "fields that others may take over, as the agent has it (may be repeated)")
	f.BoolVar(&o.prune, "prune", true, "show what would be pruned, too")
	f.StringVar(&o.pruneLimit, "prune-limit", "", "limit of prunes, as the agent has it")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "longest time that it may take")
	addOutputFlag(cmd, &o.output)
	return cmd
}

func (o diffOptions) run(cmd *cobra.Command, dir string) error {
	policy := decrypt.SealedSecretPolicy(o.sealedSecrets)
	if err := (decrypt.Policy{SealedSecrets: policy}).Validate(); err != nil {
		return err
	}
	limit, err := apply.ParsePruneLimit(o.pruneLimit)
	if err != nil {
		return fmt.Errorf("--prune-limit: %w", err)
	}
	ignore, err := apply.ParseIgnoreRules(o.ignoreFields)
	if err != nil {
		return fmt.Errorf("--ignore-fields: %w", err)
	}
	work, err := workTree(dir)
	if err != nil {
		return err
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	cluster, err := apply.Connect(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	owner := apply.Owner{Namespace: o.namespace, Name: o.name}
	runner := &apply.Runner{Cluster: cluster, Store: apply.NewInventoryStore(cluster, owner), Owner: owner}
	inventory, err := runner.Store.Load(ctx)
	if err != nil {
		return err
	}
	now, before, err := work.renders(ctx, inventory, policy, o.targetNamespace)
	if err != nil {
		return err
	}
	desired, unknown := cluster.Resolve(now.objects, o.targetNamespace)
	in := apply.PlanInput{
		Owner: owner, Desired: desired, Inventory: before.known(inventory), Source: inventory.Source, Ignore: ignore,
		Prune: o.prune, Limit: limit,
	}
	for _, f := range unknown {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", f.Error())
		in.Incomplete = f.Error()
	}
	if in.Drifted, in.Held, err = runner.Survey(ctx, inventory); err != nil {
		return err
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
