package controller

import (
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/events"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/reconcile"
	"github.com/gitseal/gitseal/source"
)

// sayer tells people what happened: by events of the Sync, and by audit lines, one for
// each object that was changed and each thing that was refused. Safe for concurrent use.
type sayer struct {
	events events.EventRecorder
	audit  *slog.Logger // nil for none

	mu    sync.Mutex
	syncs map[name]*v1alpha1.Sync // for the reference of events
}

// knows takes the Sync that events are about.
func (s *sayer) knows(sync *v1alpha1.Sync) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.syncs == nil {
		s.syncs = map[name]*v1alpha1.Sync{}
	}
	s.syncs[name{sync.Namespace, sync.Name}] = &v1alpha1.Sync{TypeMeta: sync.TypeMeta, ObjectMeta: sync.ObjectMeta}
}

func (s *sayer) forgets(n name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.syncs, n)
}

func (s *sayer) say(n name, r reconcile.Report, before, after v1alpha1.SyncStatus) {
	s.write(n, r, before, after)
	s.mu.Lock()
	sync := s.syncs[n]
	s.mu.Unlock()
	if sync == nil {
		return
	}
	at := ""
	if r.Commit != "" {
		at = fmt.Sprintf(" (commit %s)", r.Commit)
	}
	switch {
	case r.Of == reconcile.Repair && len(r.Done) > 0:
		for i, d := range r.Done {
			if i == maxFailures {
				break
			}
			s.events.Eventf(sync, nil, corev1.EventTypeNormal, "DriftCorrected", "Correct", "%s: %s%s", d.ID, d.Reason, at)
		}
	case len(r.Done) > 0:
		s.events.Eventf(sync, nil, corev1.EventTypeNormal, "Applied", "Apply", "%d created, %d adopted, %d changed, %d pruned of %d objects%s",
			r.Count(apply.Create), r.Count(apply.Adopt), r.Count(apply.Change), r.Count(apply.Prune), r.Objects, at)
	}
	was, is := meta.FindStatusCondition(before.Conditions, v1alpha1.Ready), meta.FindStatusCondition(after.Conditions, v1alpha1.Ready)
	if len(r.Failures) > 0 && is != nil && (was == nil || was.Message != is.Message || was.Reason != is.Reason) {
		s.events.Eventf(sync, nil, corev1.EventTypeWarning, is.Reason, "Reconcile", "%s%s", is.Message, at)
	}
	if was != nil && was.Status == "False" && is != nil && is.Status == "True" {
		s.events.Eventf(sync, nil, corev1.EventTypeNormal, Succeeded, "Reconcile", "%s", is.Message)
	}
}

// rewritten says that a branch was force-pushed, and is followed.
func (s *sayer) rewritten(n name, log *slog.Logger, from, to *source.Commit) {
	log.Warn("the branch was rewritten: the new commit does not descend from the one before", "from", from.Hash, "to", to.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if sync := s.syncs[n]; sync != nil {
		s.events.Eventf(sync, nil, corev1.EventTypeWarning, "HistoryRewritten", "Fetch", "commit %s does not descend from %s; it is followed, since spec.source.verify is not set", to.Hash, from.Hash)
	}
}

// write writes the audit lines. A failure that stays is written once.
func (s *sayer) write(n name, r reconcile.Report, before, after v1alpha1.SyncStatus) {
	if s.audit == nil {
		return
	}
	common := []any{"audit", true, "sync", n.String(), "commit", r.Commit}
	if r.Author != "" {
		common = append(common, "author", r.Author)
	}
	if after.Applied != nil && after.Applied.Hash == r.Commit && len(after.Applied.Signers) > 0 {
		common = append(common, "signers", after.Applied.Signers)
	}
	for _, d := range r.Done {
		action := string(d.Action)
		if r.Of == reconcile.Repair {
			action = "correct"
		}
		s.audit.Info("object", append(common[:len(common):len(common)], "action", action, "object", d.ID.String(), "reason", d.Reason, "outcome", "done")...)
	}
	if equality.Semantic.DeepEqual(before.Failures, after.Failures) {
		return
	}
	for _, f := range after.Failures {
		s.audit.Info("failure", append(common[:len(common):len(common)], "action", f.Stage, "object", f.Object, "reason", f.Reason, "message", f.Message, "outcome", "failed")...)
	}
}
