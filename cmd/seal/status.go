package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
)

type statusOptions struct {
	syncFlags
	noObjects bool
}

func newStatusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [NAME...]",
		Short: "Show what became of Syncs, and of their objects",
		Long: `Show what became of Syncs: of those named, or of all in the namespace.

For each: its conditions, the commit that is applied and the one that was tried,
failures, warnings, keys, history, and its objects. Inside of a clone of its repository
it is also said how HEAD stands to the applied commit.

The objects are those that the Sync has applied and that you may list: their metadata is
asked for, kind by kind; nothing of a Secret's data is read. What is not shown, since it
may not be listed, is told. Each is Synced (applied, and the agent names no failure of it;
nothing is compared here), Failed, Missing (it failed, and is not in the cluster),
Terminating, or Unknown, before an agent has looked at the Sync.

-o json and yaml give a list of objects with namespace, name, ready, reason, message,
suspended, source, path, conditions, applied, attempted, counts, failures, warnings,
keys, history, objects (object, group, state, reason, message), notListed and local
(head, subject, relation: same, ahead, behind, diverged, absent, unknown, or none where
nothing is applied).

Exit codes: 0 all Syncs are ready, 1 one is not, 2 an error, 3 not authorised, 4
timeout.`,
		Example: `  seal status
  seal status shop -n team
  seal status -A -o json --no-objects`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, args) },
	}
	o.syncFlags.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.noObjects, "no-objects", false, "do not list objects")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "longest time that it may take")
	return cmd
}

// report is the stable form of `seal status -o json`.
type report struct {
	Namespace  string                  `json:"namespace"`
	Name       string                  `json:"name"`
	Ready      metav1.ConditionStatus  `json:"ready"`
	Reason     string                  `json:"reason,omitempty"`
	Message    string                  `json:"message,omitempty"`
	Suspended  bool                    `json:"suspended"`
	Source     string                  `json:"source"`
	Path       string                  `json:"path"`
	Conditions []metav1.Condition      `json:"conditions"`
	Applied    *v1alpha1.Commit        `json:"applied,omitempty"`
	Attempted  *v1alpha1.Commit        `json:"attempted,omitempty"`
	Counts     v1alpha1.ObjectCounts   `json:"counts"`
	Failures   []v1alpha1.Failure      `json:"failures"`
	Warnings   []string                `json:"warnings"`
	Keys       []v1alpha1.KeyCount     `json:"keys"`
	History    []v1alpha1.HistoryEntry `json:"history"`
	Objects    []objectState           `json:"objects"`
	NotListed  []string                `json:"notListed,omitempty"`
	Local      *local                  `json:"local,omitempty"`

	sync object
	// unseen says which objects there may be besides.
	unseen []string
}

// The states of an object.
const (
	stateSynced      = "Synced"
	stateFailed      = "Failed"
	stateMissing     = "Missing" // it failed, and is not in the cluster
	stateTerminating = "Terminating"
	stateUnknown     = "Unknown" // no agent has looked yet
)

type objectState struct {
	Object  string `json:"object"` // Kind/namespace/name
	Group   string `json:"group,omitempty"`
	State   string `json:"state"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

func (o statusOptions) run(cmd *cobra.Command, args []string) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	if len(args) > 0 && isSyncKind(args[0]) {
		args = args[1:]
	}
	s, found, err := o.choose(ctx, args, len(args) == 0)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		s.noneFound(cmd.ErrOrStderr())
	}
	var members apply.Listing
	if !o.noObjects && len(found) > 0 {
		if members, err = s.members(ctx, found); err != nil {
			return err
		}
	}
	here := openClone(".")
	reports := []report{}
	var notReady []string
	for _, one := range found {
		r := newReport(one)
		if !o.noObjects {
			r.addObjects(members)
		}
		r.Local = here.compare(ctx, one)
		reports = append(reports, r)
		if !isReady(one) {
			notReady = append(notReady, s.label(one))
		}
	}
	if o.output != "" {
		if err := printEncoded(cmd, reports, o.output); err != nil {
			return err
		}
	} else {
		for i, r := range reports {
			if i > 0 {
				fmt.Fprintln(cmd.OutOrStdout())
			}
			r.print(cmd.OutOrStdout(), time.Now(), !o.noObjects)
		}
	}
	switch len(notReady) {
	case 0:
		return nil
	case 1:
		return &findings{notReady[0] + " is not ready"}
	}
	return &findings{fmt.Sprintf("%d of %d Syncs are not ready", len(notReady), len(found))}
}

func ownerOf(o object) apply.Owner { return apply.Owner{Namespace: o.Namespace, Name: o.Name} }

func (s *syncs) members(ctx context.Context, found []object) (apply.Listing, error) {
	cluster, err := apply.Connect(s.config)
	if err != nil {
		return apply.Listing{}, err
	}
	var owners []apply.Owner
	for _, one := range found {
		owners = append(owners, ownerOf(one))
	}
	return cluster.Members(ctx, owners)
}

func newReport(o object) report {
	ready := readyOf(o)
	s := o.Status
	return report{
		Namespace: o.Namespace, Name: o.Name, Ready: ready.Status, Reason: ready.Reason, Message: ready.Message, Suspended: o.Spec.Suspend,
		Source: o.Spec.Source.URL, Path: cmp.Or(o.Spec.Path, "."), Conditions: list(s.Conditions), Applied: s.Applied, Attempted: s.Attempted, Counts: s.Objects,
		Failures: list(s.Failures), Warnings: list(s.Warnings), Keys: list(s.Keys), History: list(s.History), Objects: []objectState{}, sync: o,
	}
}

// list is [] where it would be null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// aboutFiles are the stages whose failures name a file, or nothing.
var aboutFiles = []string{"fetch", "keys", "decrypt", "build"}

// addObjects says of each object that is there, or that failed, what is known of it.
func (r *report) addObjects(l apply.Listing) {
	failures := map[string]v1alpha1.Failure{}
	for _, f := range r.Failures {
		if _, known := failures[f.Object]; !known && f.Object != "" && !slices.Contains(aboutFiles, f.Stage) {
			failures[f.Object] = f
		}
	}
	for _, m := range l.Objects[ownerOf(r.sync)] {
		state := objectState{Object: m.ID.String(), Group: m.ID.Group, State: stateSynced}
		f, failed := failures[state.Object]
		delete(failures, state.Object)
		switch {
		case m.Terminating:
			state.State = stateTerminating
		case failed:
			state.State, state.Reason, state.Message = stateFailed, f.Reason, f.Message
		case len(r.Conditions) == 0:
			state.State = stateUnknown
		}
		r.Objects = append(r.Objects, state)
	}
	mayList := func(kind string) bool {
		return !slices.ContainsFunc(l.Unlisted, func(u apply.Unlisted) bool { return u.Kind.Kind == kind || u.Kind.Kind == "" })
	}
	for _, f := range r.Failures {
		if failures[f.Object] != f {
			continue
		}
		state := objectState{Object: f.Object, State: stateFailed, Reason: f.Reason, Message: f.Message}
		if kind, rest, _ := strings.Cut(f.Object, "/"); mayList(kind) && (!l.Within || strings.HasPrefix(rest, r.Namespace+"/")) {
			state.State = stateMissing
		}
		r.Objects = append(r.Objects, state)
	}
	r.unlisted(l)
}

// unlisted tells what may be hidden: always of kinds of the Sync's own namespace, of the
// rest where objects are missing.
func (r *report) unlisted(l apply.Listing) {
	var namespaced, cluster []string
	for _, u := range l.Unlisted {
		name := cmp.Or(u.Kind.Kind, "all of "+u.Kind.Group)
		if !apierrors.IsForbidden(u.Err) {
			name += " (" + string(cmp.Or(apierrors.ReasonForError(u.Err), "no answer")) + ")"
		}
		r.NotListed = append(r.NotListed, name)
		if u.Namespaced || u.Kind.Kind == "" {
			namespaced = append(namespaced, name)
		} else {
			cluster = append(cluster, name)
		}
	}
	if len(namespaced) > 0 {
		r.unseen = append(r.unseen, "you may not list "+few(namespaced))
	}
	missing := int(r.Counts.Total) - len(r.Objects)
	if missing <= 0 {
		return
	}
	r.unseen = append(r.unseen, fmt.Sprintf("%d of %d objects of git are not among them", missing, r.Counts.Total))
	if len(cluster) > 0 {
		r.unseen = append(r.unseen, "you may not list "+few(cluster))
	}
	if l.Within {
		r.unseen = append(r.unseen, "those of other namespaces were not looked for, since you may not list them")
	}
}

// usual are kinds that people look for.
var usual = []string{"Secret", "ConfigMap", "Deployment", "StatefulSet", "Service", "ServiceAccount", "Ingress", "Namespace", "ClusterRole", "CustomResourceDefinition"}

func few(names []string) string {
	const most = 6
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	var first, rest []string
	for _, n := range names {
		if slices.Contains(usual, n) {
			first = append(first, n)
		} else {
			rest = append(rest, n)
		}
	}
	names = append(first, rest...)
	return fmt.Sprintf("%s and %d other kinds (-o json names them)", strings.Join(names[:most], ", "), len(names)-most)
}
