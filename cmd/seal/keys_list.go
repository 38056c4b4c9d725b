package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

type listOptions struct{ keysFlags }

func newKeysListCommand() *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the cluster's key generations, and who needs them",
		Long: `List the cluster's key generations, and who needs them.

It reads the ConfigMap gitseal-keys, which every user of the cluster may, and the status
of all Syncs, for which you need the right to list them. A file counts for the key that
has opened it at the commit that its Sync has applied. No private key is read.

States: the newest active one is sealed to; older active ones and those on standby open;
retired ones open nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.keysFlags.add(cmd)
	cmd.Flags().Lookup("output").Usage = "output format: json, yaml or wide"
	return cmd
}

// listedKey is the stable form of `seal keys list -o json`.
type listedKey struct {
	keys.PublicGeneration
	SealedTo bool   `json:"sealedTo"`
	NeededBy []need `json:"neededBy"` // null where it is not known
}

func (o listOptions) run(cmd *cobra.Command) error {
	if err := o.checkOutput("wide"); err != nil {
		return err
	}
	store, cfg, err := o.store()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	public, err := keys.FetchPublic(ctx, store.Client, o.namespace)
	if err == nil && len(public.Generations) == 0 {
		err = keys.ErrOldAgent
	}
	if err != nil {
		return o.explain(err)
	}
	needs, _, err := needsOf(ctx, cfg)
	known := err == nil
	if !known && !forbidden(err) {
		return err
	}
	var list []listedKey
	for _, g := range public.Generations {
		k := listedKey{PublicGeneration: g, SealedTo: len(public.Recipients) > 0 && g.State == keys.Active && g.Recipient == public.Recipients[0].String()}
		if known {
			k.NeededBy = needs.of(g)
		}
		list = append(list, k)
	}
	if o.output == "" || o.output == "wide" {
		new(table).print(cmd.OutOrStdout(), "", o.rows(list, time.Now())...)
	} else if err := o.print(cmd, list, ""); err != nil {
		return err
	}
	if !known {
		fmt.Fprintln(cmd.ErrOrStderr(), "who needs them is not known: you may not list the Syncs of all namespaces")
	}
	for _, why := range needs.unknown {
		fmt.Fprintln(cmd.ErrOrStderr(), "it may need more than it says:", why)
	}
	return nil
}

func (o listOptions) rows(list []listedKey, now time.Time) [][]string {
	head := []string{"GENERATION", "STATE", "AGE", "EXPIRES", "BACKUP", "FILES", "SYNCS", "RECIPIENT"}
	if o.output == "wide" {
		head = append(head, "CERTIFICATE")
	}
	rows := [][]string{head}
	for _, k := range list {
		state := string(k.State)
		if k.SealedTo {
			state += " *"
		}
		backup := "none"
		if !k.BackedUp.IsZero() {
			backup = ago(now, metav1.NewTime(k.BackedUp)) + " ago"
		}
		files, syncs := "?", "?"
		if k.NeededBy != nil {
			n := 0
			for _, one := range k.NeededBy {
				n += one.Files
			}
			files, syncs = strconv.Itoa(n), strconv.Itoa(len(k.NeededBy))
		}
		row := []string{strconv.Itoa(k.Number), state, ago(now, metav1.NewTime(k.Created)), k.NotAfter.UTC().Format(time.DateOnly), backup, files, syncs, crypto.RecipientFingerprint(k.Recipient)}
		if o.output == "wide" {
			row = append(row, k.Certificate)
		}
		rows = append(rows, row)
	}
	return rows
}
