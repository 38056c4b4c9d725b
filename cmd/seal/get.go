package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/watch"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type getOptions struct {
	syncFlags
	selector  string
	watch     bool
	noHeaders bool
}

func newGetCommand() *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get [syncs] [NAME...]",
		Short: "List Syncs",
		Long: `List Syncs, as kubectl get does, with short revisions. Long messages are cut; -o wide
shows all of them.

-o json and yaml give the Sync as the API server has it, or a List where no or several
names were given; -o name gives sync.gitseal.io/NAME. With --watch each Sync is printed
again whenever it changes, until the command is interrupted or --timeout is over.

Exit codes: 0 fine, 2 an error, 3 not authorised, 4 timeout.`,
		Example: `  seal get
  seal get -A -o wide
  seal get sync/shop -n team -o yaml`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.syncFlags.add(cmd, "wide", "name")
	f := cmd.Flags()
	f.StringVarP(&o.selector, "selector", "l", "", "only Syncs with these labels")
	f.BoolVarP(&o.watch, "watch", "w", false, "print changes as they come")
	f.BoolVar(&o.noHeaders, "no-headers", false, "leave out the line of headers")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "longest time that it may take; with --watch there is none unless it is said")
	return cmd
}

func (o getOptions) run(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && isSyncKind(args[0]) {
		args = args[1:]
	}
	names, err := o.namesOf(args)
	if err != nil {
		return err
	}
	if o.selector != "" && len(names) > 0 {
		return errors.New("--selector goes without names")
	}
	s, err := o.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	if !o.watch || cmd.Flags().Changed("timeout") {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	if o.watch {
		return o.follow(ctx, cmd, s, names)
	}
	var found []object
	if o.selector != "" {
		found, _, err = s.list(ctx, metav1.ListOptions{LabelSelector: o.selector})
	} else {
		found, err = s.find(ctx, names)
	}
	if err != nil && len(found) == 0 {
		return err
	}
	if printErr := o.print(cmd, s, found, len(names) == 1); printErr != nil {
		return printErr
	}
	return err
}

func (o getOptions) print(cmd *cobra.Command, s *syncs, found []object, single bool) error {
	switch o.output {
	case "name":
		for _, one := range found {
			fmt.Fprintln(cmd.OutOrStdout(), "sync.gitseal.io/"+one.Name)
		}
	case "json", "yaml":
		var v any
		if single && len(found) == 1 {
			v = found[0].raw.Object
		} else {
			items := make([]any, len(found))
			for i, one := range found {
				items[i] = one.raw.Object
			}
			v = map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
		}
		b, err := encode(v, o.output)
		if err != nil {
			return err
		}
		return write(cmd, "", b)
	default:
		if len(found) == 0 {
			s.noneFound(cmd.ErrOrStderr())
			return nil
		}
		rows := o.header(s)
		for _, one := range found {
			rows = append(rows, o.row(s, one, time.Now()))
		}
		new(table).print(cmd.OutOrStdout(), "", rows...)
	}
	return nil
}

// follow prints what is there, and then each change.
func (o getOptions) follow(ctx context.Context, cmd *cobra.Command, s *syncs, names []string) error {
	var t table
	opts := metav1.ListOptions{LabelSelector: o.selector}
	if len(names) > 0 {
		if _, err := s.find(ctx, names); err != nil {
			return err
		}
		if len(names) == 1 {
			opts = named(names[0])
		}
	}
	started := false
	err := s.follow(ctx, opts, func(_ watch.EventType, one object) (bool, error) {
		if len(names) > 0 && !slices.Contains(names, one.Name) {
			return false, nil
		}
		if o.output != "" && o.output != "wide" {
			return false, o.print(cmd, s, []object{one}, true)
		}
		var rows [][]string
		if !started {
			rows, started = o.header(s), true
		}
		t.print(cmd.OutOrStdout(), "", append(rows, o.row(s, one, time.Now()))...)
		return false, nil
	})
	if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
		return nil // it was interrupted, the only way to end it
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &timeoutError{fmt.Sprintf("the %s of --timeout are over", o.timeout)}
	}
	return err
}

func (o getOptions) header(s *syncs) [][]string {
	if o.noHeaders {
		return nil
	}
	row := []string{"NAME", "READY", "STATUS", "COMMIT", "OBJECTS", "AGE"}
	if s.namespace == "" {
		row = slices.Insert(row, 0, "NAMESPACE")
	}
	if o.output == "wide" {
		row = append(row, "SUSPENDED", "PATH", "SOURCE", "INTERVAL")
	}
	return [][]string{row}
}

// maxStatus is the most of a message that is shown, in letters; -o wide shows all.
const maxStatus = 80

func (o getOptions) row(s *syncs, one object, now time.Time) []string {
	ready := readyOf(one)
	status := short(printable(ready.Message))
	if one.Spec.Suspend {
		status = "suspended; " + status
	}
	if !one.DeletionTimestamp.IsZero() {
		status = "being deleted; " + status
	}
	if o.output != "wide" {
		status = cut(status, maxStatus)
	}
	commit := ""
	if one.Status.Applied != nil {
		commit = short(printable(one.Status.Applied.Revision))
	}
	row := []string{one.Name, string(ready.Status), status, commit, strconv.Itoa(int(one.Status.Objects.Total)), ago(now, one.CreationTimestamp)}
	if s.namespace == "" {
		row = slices.Insert(row, 0, one.Namespace)
	}
	if o.output == "wide" {
		row = append(row, strconv.FormatBool(one.Spec.Suspend), cmp.Or(one.Spec.Path, "."), one.Spec.Source.URL, every(one.Spec.Interval))
	}
	return row
}
