package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/gitseal/gitseal/api/v1alpha1"
)

type reconcileOptions struct {
	syncFlags
	all    bool
	noWait bool
}

func newReconcileCommand() *cobra.Command {
	var o reconcileOptions
	cmd := &cobra.Command{
		Use:   "reconcile NAME... | --all",
		Short: "Make the agent look at git now, and wait for what comes of it",
		Long: `Make the agent look at git now, and wait for what comes of it.

It sets the annotation gitseal.io/reconcile-at to the time, and watches the Sync until
the agent has dealt with that and says whether everything is applied.

-o json and yaml give a list of objects with sync, ready, reason, message, revision and
failures.

Exit codes: 0 all is applied, 1 something is not, 2 an error, 3 not authorised, 4 there
was no result within --timeout.`,
		Example: `  seal reconcile shop
  seal reconcile shop -n team --timeout 30s
  seal reconcile --all --no-wait`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.syncFlags.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "every Sync of the namespace that is not suspended")
	f.BoolVar(&o.noWait, "no-wait", false, "only ask for it")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "longest time to wait")
	return cmd
}

func (o reconcileOptions) run(cmd *cobra.Command, args []string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	s, found, err := o.choose(ctx, args, o.all)
	if err != nil {
		return err
	}
	var active []object
	for _, one := range found {
		switch {
		case !one.Spec.Suspend:
			active = append(active, one)
		case !o.all:
			return hint(fmt.Errorf("sync/%s is suspended", one.Name), "seal resume %s%s", one.Name, o.inNamespace())
		default:
			fmt.Fprintln(cmd.ErrOrStderr(), s.label(one), "is suspended and left alone")
		}
	}
	if len(found) == 0 {
		s.noneFound(cmd.ErrOrStderr())
	}
	var waits []wait
	for _, one := range active {
		at := time.Now().UTC().Format(time.RFC3339Nano)
		asked, err := s.patch(ctx, one, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.ReconcileAtAnnotation, at))
		if err != nil {
			return err
		}
		if o.noWait && o.output == "" {
			fmt.Fprintln(cmd.OutOrStdout(), s.label(one), "asked to reconcile")
		}
		waits = append(waits, wait{asked, func(now object) bool { return handled(now, at) }})
	}
	if o.noWait {
		if o.output == "" {
			return nil
		}
		outcomes := make([]outcome, len(waits))
		for i, w := range waits {
			outcomes[i] = outcomeOf(w.sync)
		}
		return printEncoded(cmd, outcomes, o.output)
	}
	return o.await(ctx, cmd, s, waits)
}

// handled reports whether the agent has dealt with the request of a time, or with one
// that has taken its place.
func handled(now object, at string) bool {
	h := now.Status.HandledReconcileAt
	return h == at || h != "" && h == now.Annotations[v1alpha1.ReconcileAtAnnotation]
}

// choose finds the Syncs that a verb is about.
func (o *syncFlags) choose(ctx context.Context, args []string, all bool) (*syncs, []object, error) {
	if len(args) > 0 && isSyncKind(args[0]) && (len(args) > 1 || all) { // as kubectl has it
		args = args[1:]
	}
	switch {
	case len(args) == 0 && !all:
		return nil, nil, errors.New("say the NAME of a Sync, or --all")
	case len(args) > 0 && all:
		return nil, nil, errors.New("--all goes without names")
	}
	names, err := o.namesOf(args)
	if err != nil {
		return nil, nil, err
	}
	s, err := o.connect()
	if err != nil {
		return nil, nil, err
	}
	found, err := s.find(ctx, names)
	return s, found, err
}

// inNamespace is the flag to repeat in a hint.
func (o *syncFlags) inNamespace() string {
	if o.namespace == "" {
		return ""
	}
	return " -n " + o.namespace
}

// wait is for a Sync from a state on, until the agent has dealt with it.
type wait struct {
	sync object
	done func(object) bool
}

// outcome is the stable form of a Sync's result, as -o json.
type outcome struct {
	Sync     string                 `json:"sync"` // NAMESPACE/NAME
	Ready    metav1.ConditionStatus `json:"ready"`
	Reason   string                 `json:"reason,omitempty"`
	Message  string                 `json:"message,omitempty"`
	Revision string                 `json:"revision,omitempty"` // that is applied
	Failures []v1alpha1.Failure     `json:"failures,omitempty"`
}

func outcomeOf(o object) outcome {
	ready := readyOf(o)
	out := outcome{Sync: o.Namespace + "/" + o.Name, Ready: ready.Status, Reason: ready.Reason, Message: ready.Message, Failures: o.Status.Failures}
	if o.Status.Applied != nil {
		out.Revision = o.Status.Applied.Revision
	}
	return out
}

// await waits for all, one after the other since they go on side by side, and prints
// what came of them.
func (o *syncFlags) await(ctx context.Context, cmd *cobra.Command, s *syncs, waits []wait) error {
	outcomes := []outcome{}
	var failed []string
	var waitErr error
	for _, w := range waits {
		one, err := s.await(ctx, w, cmd.ErrOrStderr())
		if err != nil {
			waitErr = o.late(ctx, err, s, one)
			break
		}
		if readyOf(one).Status != metav1.ConditionTrue {
			failed = append(failed, s.label(one))
		}
		outcomes = append(outcomes, outcomeOf(one))
		if o.output == "" {
			printOutcome(cmd.OutOrStdout(), s, one)
		}
	}
	if o.output != "" {
		if err := printEncoded(cmd, outcomes, o.output); err != nil {
			return err
		}
	}
	switch {
	case waitErr != nil:
		return waitErr
	case len(failed) == 1:
		return &findings{failed[0] + " is not ready"}
	case len(failed) > 1:
		return &findings{fmt.Sprintf("%d of %d Syncs are not ready: %s", len(failed), len(waits), strings.Join(failed, ", "))}
	}
	return nil
}

// await returns the Sync with its result or, with an error, as it was seen last.
func (s *syncs) await(ctx context.Context, w wait, talk io.Writer) (object, error) {
	last, said := w.sync, ""
	only := *s
	only.namespace = w.sync.Namespace
	err := only.follow(ctx, named(w.sync.Name), func(e watch.EventType, now object) (bool, error) {
		switch {
		case e == watch.Deleted || now.UID != w.sync.UID || !now.DeletionTimestamp.IsZero():
			return false, fmt.Errorf("%s is deleted", s.label(w.sync))
		case now.Spec.Suspend:
			return false, hint(fmt.Errorf("%s was suspended meanwhile", s.label(w.sync)), "seal resume %s", now.Name)
		}
		last = now
		if !w.done(now) {
			return false, nil
		}
		ready := readyOf(now)
		known := ready.Status != metav1.ConditionUnknown && ready.ObservedGeneration == now.Generation
		if text := printable(ready.Message); !known && text != said && ready.Reason != "" {
			fmt.Fprintf(talk, "%s: %s\n", s.label(now), short(text))
			said = text
		}
		return known, nil
	})
	if err == nil && last.UID != w.sync.UID {
		err = fmt.Errorf("%s is deleted", s.label(w.sync))
	}
	return last, err
}

// timeoutError ends a command with exit code 4.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string        { return e.text }
func (e *timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// late says what is known when the time is over.
func (o *syncFlags) late(ctx context.Context, err error, s *syncs, last object) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("interrupted; %s goes on without anybody who waits", s.label(last))
	case !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return err
	}
	ready := readyOf(last)
	late := &timeoutError{fmt.Sprintf("no result of %s within %s: Ready is %s: %s", s.label(last), o.timeout, ready.Status, short(printable(ready.Message)))}
	if last.Status.ObservedGeneration != last.Generation || last.Annotations[v1alpha1.ReconcileAtAnnotation] != last.Status.HandledReconcileAt {
		return hint(late, "is an agent running that keeps the Syncs of namespace %s?", last.Namespace)
	}
	return hint(late, "seal status %s%s, or a longer --timeout", last.Name, o.inNamespace())
}

func printOutcome(w io.Writer, s *syncs, one object) {
	ready := readyOf(one)
	if ready.Status == metav1.ConditionTrue {
		fmt.Fprintf(w, "%s ready: %s%s\n", s.label(one), short(printable(ready.Message)), subject(one.Status.Applied))
		return
	}
	fmt.Fprintf(w, "%s not ready: %s\n", s.label(one), readySummary(one))
	printFailures(w, one.Status)
}

// readySummary is the reason and message of Ready; failures say it better than the message
// that is made of the first.
func readySummary(o object) string {
	ready := readyOf(o)
	message := short(printable(ready.Message))
	if n := len(o.Status.Failures); n > 0 && ready.Status == metav1.ConditionFalse {
		message = count(n, "failure")
	}
	if ready.Reason == "" {
		return message
	}
	return ready.Reason + ": " + message
}

// subject of a commit as it follows its revision.
func subject(c *v1alpha1.Commit) string {
	if c == nil || c.Subject == "" {
		return ""
	}
	return fmt.Sprintf(" %q", printable(c.Subject))
}

// printFailures names the stage, the reason and the object of each, and what was said.
func printFailures(w io.Writer, s v1alpha1.SyncStatus) {
	for _, f := range s.Failures {
		line := "  " + f.Stage + "  " + f.Reason
		if f.Object != "" {
			line += "  " + printable(f.Object)
		}
		message := printable(f.Message)
		if rest, ok := strings.CutPrefix(message, printable(f.Object)); ok && f.Object != "" {
			message = strings.TrimLeft(rest, ": ")
		}
		fmt.Fprintf(w, "%s\n    %s\n", line, short(message))
	}
}

func printEncoded(cmd *cobra.Command, v any, output string) error {
	b, err := encode(v, output)
	if err != nil {
		return err
	}
	return write(cmd, "", b)
}
