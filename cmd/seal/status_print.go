package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/api/v1alpha1"
)

// print writes a report for people.
func (r report) print(w io.Writer, now time.Time, objects bool) {
	fmt.Fprintf(w, "sync/%s in namespace %s\n", r.Name, r.Namespace)
	spec := r.sync.Spec
	field := func(name, value string) { fmt.Fprintf(w, "  %-12s %s\n", name, value) }
	field("Ready", r.readyText(now))
	for _, c := range r.Conditions {
		if c.Type != v1alpha1.Ready && (c.Message != r.Message || c.Status != metav1.ConditionTrue) {
			field(c.Type, fmt.Sprintf("%s %s: %s", c.Status, c.Reason, short(printable(c.Message))))
		}
	}
	if r.Suspended {
		field("Suspended", "nothing is looked at, changed or corrected; seal resume "+r.Name)
	}
	if spec.Drift == "Report" {
		field("Drift", "is not corrected, and not shown here; the agent's log tells it")
	}
	field("Source", fmt.Sprintf("%s, %s, path %s, every %s", r.Source, refOf(spec.Source.Ref), r.Path, every(spec.Interval)))
	if r.Applied == nil {
		field("Applied", "nothing yet")
	} else {
		field("Applied", commitText(*r.Applied))
	}
	if r.Attempted != nil {
		field("Attempted", commitText(*r.Attempted))
	}
	if r.Local != nil {
		field("Local HEAD", r.Local.text())
	}
	for i, k := range r.Keys {
		name := "Keys"
		if i > 0 {
			name = ""
		}
		field(name, fmt.Sprintf("%s opened %s", k.Fingerprint, count(int(k.Files), "file")))
	}
	if len(r.Failures) > 0 {
		fmt.Fprintln(w, "\n  Failures")
		printFailures(indented{w}, r.sync.Status)
	}
	if len(r.Warnings) > 0 {
		fmt.Fprintln(w, "\n  Warnings")
		for _, text := range r.Warnings {
			fmt.Fprintln(w, "    "+short(printable(text)))
		}
	}
	if len(r.History) > 0 {
		fmt.Fprintln(w, "\n  History")
		var rows [][]string
		for _, h := range r.History {
			rows = append(rows, []string{ago(now, h.Time) + " ago", short(printable(h.Revision)), changes(h)})
		}
		new(table).print(w, "    ", rows...)
	}
	if objects {
		r.printObjects(w)
	}
}

func (r report) printObjects(w io.Writer) {
	fmt.Fprintf(w, "\n  Objects: %s\n", r.counts())
	var rows [][]string
	for _, o := range r.Objects {
		rows = append(rows, []string{o.State, printable(o.Object), o.Reason})
	}
	new(table).print(w, "    ", rows...)
	for _, text := range r.unseen {
		fmt.Fprintln(w, "    ("+text+")")
	}
}

func (r report) readyText(now time.Time) string {
	ready := readyOf(r.sync)
	text := string(ready.Status)
	if ready.Reason == "" {
		text += ":"
	}
	text += " " + readySummary(r.sync)
	if !ready.LastTransitionTime.IsZero() {
		text += ", for " + ago(now, ready.LastTransitionTime)
	}
	if !r.sync.DeletionTimestamp.IsZero() {
		text += "; it is being deleted"
	}
	if s := r.sync; s.Status.ObservedGeneration != s.Generation && len(r.Conditions) > 0 && !r.Suspended {
		text += "; the agent has not looked at the newest spec"
	}
	return text
}

// counts is what the agent says of the objects.
func (r report) counts() string {
	c := r.Counts
	parts := []string{fmt.Sprintf("%d in git", c.Total)}
	for _, p := range []struct {
		n    int32
		what string
	}{{c.Failed, "failed"}, {c.Waiting, "wait for others"}, {c.Terminating, "pruned and held by a finalizer"}, {c.Fought, "changed by another writer again and again"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

func refOf(r v1alpha1.Ref) string {
	switch {
	case r.Branch != "":
		return "branch " + r.Branch
	case r.Tag != "":
		return "tag " + r.Tag
	case r.SemVer != "":
		return "semver " + r.SemVer
	case r.Commit != "":
		return "commit " + r.Commit
	}
	return "default branch"
}

func commitText(c v1alpha1.Commit) string {
	text := short(printable(c.Revision)) + subject(&c)
	if c.Author != "" {
		text += " by " + printable(c.Author)
	}
	if len(c.Signers) > 0 {
		text += ", signed by " + printable(strings.Join(c.Signers, ", "))
	}
	return text
}

// changes of a commit that was applied.
func changes(h v1alpha1.HistoryEntry) string {
	var parts []string
	for _, p := range []struct {
		n    int32
		what string
	}{{h.Created, "created"}, {h.Adopted, "adopted"}, {h.Changed, "changed"}, {h.Pruned, "pruned"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "no change")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// indented writes two spaces before each line; each Write is a number of whole lines.
type indented struct{ w io.Writer }

func (i indented) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		if _, err := io.WriteString(i.w, "  "+line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
