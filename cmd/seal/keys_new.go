package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/keys"
)

type newKeyOptions struct{ keysFlags }

func newKeysNewCommand() *cobra.Command {
	var o newKeyOptions
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Let the agent make a new key generation",
		Long: `Let the agent make a new key generation, and wait until it is published.

The agent makes it in the cluster; no private key leaves it. From then on it is what is
sealed to; the ones before still open. With the agent's --require-key-backup it waits on
standby until 'seal keys backup'. Of several who ask at once all get the same one.

It needs the right to update the ConfigMap gitseal-keys. Files that were sealed before
stay sealed to the old key: 'seal rotate' seals them anew.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.keysFlags.add(cmd)
	return cmd
}

// publishedPoll is the time between looks for a new key: everybody may get the ConfigMap,
// but few may watch it.
const publishedPoll = 300 * time.Millisecond

func (o newKeyOptions) run(cmd *cobra.Command) error {
	if err := o.checkOutput(); err != nil {
		return err
	}
	store, _, err := o.store()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	number, err := store.Ask(ctx)
	if err != nil {
		return o.explain(err)
	}
	g, err := awaitGeneration(ctx, store, number)
	if errors.Is(err, context.DeadlineExceeded) {
		return hint(&timeoutError{fmt.Sprintf("generation %d is not published after %s", number, o.timeout)},
			"is the agent running, with --namespace %s? It is asked for, and will be made when it runs", o.namespace)
	}
	if err != nil {
		return o.explain(err)
	}
	text := fmt.Sprintf("generation %d is %s\n", g.Number, g.State) + fingerprintLines(g)
	if g.State == keys.Standby {
		text += "it becomes active, and is sealed to, after `seal keys backup`\n"
	} else {
		text += "next: `seal keys backup`, and `seal keys fetch --accept` in each repository\n"
	}
	return o.print(cmd, g, text)
}

func awaitGeneration(ctx context.Context, store keys.Store, number int) (keys.PublicGeneration, error) {
	for {
		p, err := keys.FetchPublic(ctx, store.Client, store.Namespace)
		if ctx.Err() != nil {
			return keys.PublicGeneration{}, ctx.Err()
		}
		if err != nil {
			return keys.PublicGeneration{}, err
		}
		if i := slices.IndexFunc(p.Generations, func(g keys.PublicGeneration) bool { return g.Number == number }); i >= 0 {
			return p.Generations[i], nil
		}
		select {
		case <-ctx.Done():
			return keys.PublicGeneration{}, ctx.Err()
		case <-time.After(publishedPoll):
		}
	}
}
