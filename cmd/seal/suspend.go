package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

type suspendOptions struct {
	syncFlags
	all     bool
	suspend bool // or resume
	wait    bool
}

func newSuspendCommand() *cobra.Command {
	o := suspendOptions{suspend: true}
	cmd := &cobra.Command{
		Use:   "suspend NAME... | --all",
		Short: "Stop everything that the agent does for a Sync",
		Long: `Stop everything that the agent does for a Sync: looks at git, changes, corrections of
drift. What is applied stays. To do so again makes no difference.

-o json and yaml give a list of objects with sync, suspended and changed.

Exit codes: 0 fine, 2 an error, 3 not authorised, 4 timeout.`,
		Example: `  seal suspend shop
  seal suspend --all -n team`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.add(cmd)
	cmd.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "longest time that it may take")
	return cmd
}

func newResumeCommand() *cobra.Command {
	var o suspendOptions
	cmd := &cobra.Command{
		Use:   "resume NAME... | --all",
		Short: "Let the agent go on with a Sync",
		Long: `Let the agent go on with a Sync that was suspended. To do so again makes no difference.

With --wait it waits as 'seal reconcile' does, and prints and gives what that does; else
-o json and yaml give a list of objects with sync, suspended and changed.

Exit codes: 0 fine, 2 an error, 3 not authorised, 4 timeout; with --wait also 1 where
something is not applied.`,
		Example: `  seal resume shop --wait
  seal resume --all -n team`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.wait, "wait", false, "wait until the agent says whether everything is applied")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "longest time to wait")
	return cmd
}

func (o *suspendOptions) add(cmd *cobra.Command) {
	o.syncFlags.add(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "every Sync of the namespace")
}

// suspended is the stable form of what was done to a Sync, as -o json.
type suspended struct {
	Sync      string `json:"sync"` // NAMESPACE/NAME
	Suspended bool   `json:"suspended"`
	Changed   bool   `json:"changed"`
}

func (o suspendOptions) run(cmd *cobra.Command, args []string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	s, found, err := o.choose(ctx, args, o.all)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		s.noneFound(cmd.ErrOrStderr())
	}
	done, undone := "suspended", "already suspended"
	if !o.suspend {
		done, undone = "resumed", "not suspended"
	}
	all := []suspended{}
	var waits []wait
	for _, one := range found {
		change, text := one.Spec.Suspend != o.suspend, undone
		if change {
			text = done
			if one, err = s.patch(ctx, one, fmt.Sprintf(`{"spec":{"suspend":%t}}`, o.suspend)); err != nil {
				return err
			}
		}
		all = append(all, suspended{one.Namespace + "/" + one.Name, o.suspend, change})
		waits = append(waits, wait{one, func(now object) bool { return now.Status.ObservedGeneration == now.Generation }})
		switch {
		case o.output == "":
			fmt.Fprintln(cmd.OutOrStdout(), s.label(one), text)
		case o.wait:
			fmt.Fprintln(cmd.ErrOrStderr(), s.label(one), text)
		}
	}
	if o.wait {
		return o.await(ctx, cmd, s, waits)
	}
	if o.output != "" {
		return printEncoded(cmd, all, o.output)
	}
	return nil
}
