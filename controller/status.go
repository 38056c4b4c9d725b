package controller

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/reconcile"
)

const (
	maxHistory  = 5
	maxFailures = 20  // listed in a status
	maxMessage  = 512 // bytes of each
)

// about is what a status is made from besides a report.
type about struct {
	generation int64
	waits      bool     // the Sync waits until its objects are ready
	signers    []string // of the commit
	handled    string   // the value of reconcile-at that this report answers, "" for none
	now        time.Time
}

// condition is one without a status yet.
func (a about) condition(kind string) metav1.Condition {
	return metav1.Condition{Type: kind, ObservedGeneration: a.generation, LastTransitionTime: metav1.NewTime(a.now)}
}

// nextStatus is what a report makes of a status. It is pure.
func nextStatus(old v1alpha1.SyncStatus, r reconcile.Report, a about) v1alpha1.SyncStatus {
	s := *old.DeepCopy()
	s.ObservedGeneration = a.generation
	s.HandledReconcileAt = cmp.Or(a.handled, s.HandledReconcileAt)
	failed := len(r.Failures) > 0
	if r.Of == reconcile.Pass {
		passed(&s, r, a)
	}
	s.Objects.Fought, s.Unwatched = count(len(r.Fights)), unwatched(r)
	if r.Of == reconcile.Repair && !failed {
		return s // what it put right was right before
	}
	s.Failures = failures(r)
	ready := a.condition(v1alpha1.Ready)
	reconciling, stalled := a.condition(v1alpha1.Reconciling), a.condition(v1alpha1.Stalled)
	switch {
	case failed:
		err := r.Failures[0]
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, reasonOf(err), summary(r.Failures)
		if r.PruneBlocked != "" && stageOf(err) == reconcile.Prune {
			ready.Reason = PruneBlocked
		}
		var of *SyncError
		if errors.As(err, &of) && of.Stalled {
			stalled.Status, stalled.Reason, stalled.Message = metav1.ConditionTrue, ready.Reason, ready.Message
		} else {
			reconciling.Status, reconciling.Reason, reconciling.Message = metav1.ConditionTrue, ProgressingWithRetry, "it is tried again"
		}
	case len(r.Pending) > 0:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionUnknown, WaveNotReady, clip(fmt.Sprintf("%d objects wait: %s", len(r.Pending), r.Pending[0].Error()))
		reconciling.Status, reconciling.Reason, reconciling.Message = metav1.ConditionTrue, Progressing, ready.Message
	case r.Of == reconcile.Pass && a.waits && !r.Idle: // its readiness is reported next
		ready.Status, ready.Reason, ready.Message = metav1.ConditionUnknown, Progressing, "everything is applied, and not yet ready"
		reconciling.Status, reconciling.Reason, reconciling.Message = metav1.ConditionTrue, Progressing, ready.Message
	case r.Gated:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionUnknown, WaveNotReady, "later waves wait until those before them are ready"
		reconciling.Status, reconciling.Reason, reconciling.Message = metav1.ConditionTrue, Progressing, ready.Message
	case a.waits && r.Of != reconcile.Readiness && !meta.IsStatusConditionTrue(s.Conditions, v1alpha1.Healthy):
		// Nothing is new: what is not ready is waited for, or was in vain.
		ready.Status, ready.Reason, ready.Message = metav1.ConditionUnknown, Progressing, "everything is applied, and not yet ready"
		if h := meta.FindStatusCondition(s.Conditions, v1alpha1.Healthy); h != nil && h.Status == metav1.ConditionFalse {
			ready.Status, ready.Reason, ready.Message = h.Status, h.Reason, h.Message
		}
	default:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionTrue, Succeeded, "nothing is applied yet"
		if s.Applied != nil {
			ready.Message = "applied " + s.Applied.Revision
		}
	}
	set(&s, ready)
	set(&s, reconciling)
	set(&s, stalled)
	healthy(&s, r, a)
	return s
}

// unwatched lists kinds whose drift is seen late, or not at all.
func unwatched(r reconcile.Report) []string {
	var out []string
	for gk := range r.Unwatched {
		out = append(out, gk.String()+" not seen")
	}
	for gk := range r.Polled {
		if _, failing := r.Unwatched[gk]; !failing {
			out = append(out, gk.String()+" polled")
		}
	}
	slices.Sort(out)
	return out
}

// healthy judges what was applied, where the Sync waits for it.
func healthy(s *v1alpha1.SyncStatus, r reconcile.Report, a about) {
	c := a.condition(v1alpha1.Healthy)
	switch {
	case !a.waits:
	case r.Of == reconcile.Readiness && len(r.Failures) == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, Succeeded, "everything that was applied is ready"
	case r.Of == reconcile.Readiness:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, HealthCheckFailed, summary(r.Failures)
	case r.Of == reconcile.Pass && !r.Idle:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, Progressing, "not yet known"
	default:
		return // what was known holds
	}
	set(s, c)
}

// set writes a condition, or removes it where it has no status.
func set(s *v1alpha1.SyncStatus, c metav1.Condition) {
	if c.Status == "" {
		meta.RemoveStatusCondition(&s.Conditions, c.Type)
		return
	}
	meta.SetStatusCondition(&s.Conditions, c)
}

// passed notes the commit and what became of its objects.
func passed(s *v1alpha1.SyncStatus, r reconcile.Report, a about) {
	whole := len(r.Failures) == 0 && len(r.Pending) == 0 && !r.Gated
	if !r.Idle && r.Objects > 0 || whole && !r.Idle {
		s.Objects = v1alpha1.ObjectCounts{Total: count(r.Objects), Waiting: count(len(r.Pending)), Terminating: count(len(r.Terminating))}
		for _, err := range r.Failures {
			if objectOf(err) != "" {
				s.Objects.Failed++
			}
		}
	}
	if !r.Idle {
		s.Keys = nil
		for _, k := range slices.Sorted(maps.Keys(r.Opened)) {
			s.Keys = append(s.Keys, v1alpha1.KeyCount{Fingerprint: k, Files: count(r.Opened[k])})
		}
		s.Warnings = nil
		for i, w := range r.Warnings {
			if i == maxFailures {
				break
			}
			s.Warnings = append(s.Warnings, clip(w))
		}
	}
	if r.Commit == "" {
		return
	}
	commit := &v1alpha1.Commit{Revision: cmp.Or(r.Ref, r.Commit), Hash: r.Commit, Subject: clip(r.Subject), Author: clip(r.Author), Signers: a.signers}
	if was := s.Applied; was != nil && was.Hash == r.Commit && !strings.Contains(r.Ref, "@") { // fetched by its hash
		commit.Revision, commit.Signers = was.Revision, was.Signers
	}
	if !whole {
		if s.Applied == nil || s.Applied.Hash != r.Commit {
			s.Attempted = commit
		}
		return
	}
	if s.Applied == nil || s.Applied.Hash != r.Commit {
		s.History = slices.Insert(s.History, 0, v1alpha1.HistoryEntry{
			Revision: commit.Revision, Time: metav1.NewTime(a.now),
			Created: count(r.Count(apply.Create)), Adopted: count(r.Count(apply.Adopt)), Changed: count(r.Count(apply.Change)), Pruned: count(r.Count(apply.Prune)),
		})
		s.History = s.History[:min(len(s.History), maxHistory)]
	}
	s.Applied, s.Attempted = commit, nil
}

func count(n int) int32 { return int32(min(max(n, 0), 1<<30)) } //nolint:gosec // bounded

// failures lists the first of them.
func failures(r reconcile.Report) []v1alpha1.Failure {
	var out []v1alpha1.Failure
	for i, err := range r.Failures {
		if i == maxFailures {
			break
		}
		out = append(out, v1alpha1.Failure{Stage: string(stageOf(err)), Reason: detailOf(err), Object: objectOf(err), Message: clip(message(err))})
	}
	return out
}

// detailOf is the most exact reason that is known.
func detailOf(err error) string {
	var p decrypt.Problem
	var r decrypt.Refusal
	switch {
	case errors.As(err, &r):
		return string(r.Reason)
	case errors.As(err, &p):
		return string(p.Reason)
	}
	return reasonOf(err)
}

// message leaves out the stage, which stands beside it.
func message(err error) string {
	var stage *reconcile.StageError
	if errors.As(err, &stage) {
		return stage.Err.Error()
	}
	return err.Error()
}

func summary(failures []error) string {
	m := clip(message(failures[0]))
	if n := len(failures) - 1; n > 0 {
		m += fmt.Sprintf(" (and %d more)", n)
	}
	return m
}

func clip(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	cut := maxMessage
	for cut > 0 && s[cut]&0xC0 == 0x80 { // not inside a character
		cut--
	}
	return s[:cut] + "…"
}
