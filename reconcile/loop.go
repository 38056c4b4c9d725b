package reconcile

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"runtime/debug"
	"time"

	"github.com/gitseal/gitseal/apply"
)

const (
	firstRetry  = time.Second
	maxRetry    = 5 * time.Minute
	calm        = 10 * time.Minute // after so long without drift an object counts as peaceful again
	fightAfter  = 5                // corrections in a row before it is called a fight
	firstRepair = time.Second
)

// Trigger makes the loop look at git at once. It does not wait.
func (s *Sync) Trigger() {
	select {
	case s.trigger <- struct{}{}:
	default: // it is about to look
	}
}

// Run makes passes until ctx ends: at once, then at every interval, and sooner
// after a failure or a Trigger. Drift is repaired when it is seen. observe is told
// of every pass that did something, that was asked for by Trigger, or that went well
// after one that failed; it may be nil.
func (s *Sync) Run(ctx context.Context, observe func(Report)) {
	retry := time.Duration(0)
	fights := map[apply.ID]*fight{}
	waiting := map[apply.ID]string{} // drifted, but not due yet
	failed, asked := false, false    // the last pass; the next one
	next := time.NewTimer(0)
	defer next.Stop()
	ready := &readiness{done: make(chan readied)}
	defer ready.stop()
	audit := newAudit(s.cfg.Audit)
	defer audit.stop()
	for {
		var wake <-chan struct{}
		if s.runner.Drift != nil {
			wake = s.runner.Drift.Wake()
		}
		due := time.NewTimer(time.Hour)
		if at, ok := earliest(waiting, fights); ok {
			due.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return
		case <-s.trigger:
			asked = true
			next.Reset(0)
		case <-next.C:
			r := s.Pass(ctx)
			if ctx.Err() != nil {
				if observe != nil && len(r.Done) > 0 {
					observe(r) // what was done before the end
				}
				return
			}
			s.logPass(r)
			if !r.Idle {
				debug.FreeOSMemory()   // a pass takes much, and the next may be days away
				ready.start(ctx, s, r) // a newer commit ends the wait for an older one
			}
			if observe != nil && (!r.Idle || len(r.Failures) > 0 || failed || asked) {
				observe(r)
			}
			failed, asked = len(r.Failures) > 0, false
			wait := s.cfg.Interval
			if len(r.Failures) > 0 {
				retry = min(max(2*retry, firstRetry), cmp.Or(s.cfg.RetryLimit, maxRetry))
				wait = min(retry, wait)
			} else {
				retry = 0
			}
			next.Reset(wait)
		case r := <-ready.done:
			if s.wasReady(r) {
				next.Reset(0)
			}
			if observe != nil && (!r.wave || len(r.Failures) > 0) {
				observe(r.Report)
			}
		case <-audit.due.C:
			audit.start(ctx, s)
		case r := <-audit.done:
			audit.end(s, r)
		case <-wake:
			s.collect(waiting)
			s.repair(ctx, waiting, fights, observe)
		case <-due.C:
			s.repair(ctx, waiting, fights, observe)
		}
		if s.applied == "" && s.gated == "" && retry == 0 { // a repair failed
			retry = firstRetry // once, or further drift would put the pass off for ever
			next.Reset(retry)
		}
		due.Stop()
	}
}

// fight counts how often one object had to be put back.
type fight struct {
	count int
	last  time.Time
	next  time.Time // not before
}

func earliest(waiting map[apply.ID]string, fights map[apply.ID]*fight) (time.Time, bool) {
	var at time.Time
	for id := range waiting {
		f := fights[id]
		if f == nil {
			return time.Now(), true
		}
		if at.IsZero() || f.next.Before(at) {
			at = f.next
		}
	}
	return at, !at.IsZero()
}

func (s *Sync) collect(waiting map[apply.ID]string) {
	for id, why := range s.runner.Drift.Take() {
		if s.cfg.Drift == ReportOnly {
			if s.reported[id] != why { // later events of the same change say nothing new
				s.log.Warn("drift", "object", id.String(), "why", why)
			}
			s.reported[id] = why
			continue
		}
		waiting[id] = why
	}
}

// repair applies what is due again: the first time at once, then with growing
// pauses, so that two writers who disagree do not keep the API server busy.
func (s *Sync) repair(ctx context.Context, waiting map[apply.ID]string, fights map[apply.ID]*fight, observe func(Report)) {
	now := time.Now()
	can := map[apply.ID]bool{}
	for _, d := range s.desired {
		can[d.ID] = !s.behind[d.ID]
	}
	maps.DeleteFunc(fights, func(_ apply.ID, f *fight) bool { return now.Sub(f.last) > calm })
	due := map[apply.ID]string{}
	for id, why := range waiting {
		f := fights[id]
		if f == nil {
			f = &fight{}
			fights[id] = f
		}
		if now.Before(f.next) {
			continue
		}
		delete(waiting, id)
		if !can[id] { // it waits for others, or git does not render it just now
			s.drift[id] = why // for the pass that comes to it
			continue
		}
		due[id] = why
		f.count++
		f.last = now
		f.next = now.Add(min(firstRepair<<min(f.count-1, 10), maxRetry))
		if f.count == fightAfter {
			s.log.Warn("fighting over an object: another writer keeps changing it", "object", id.String(), "why", why, "corrections", f.count)
		}
	}
	if len(due) == 0 {
		return
	}
	start := time.Now()
	res, err := s.runner.Repair(ctx, s.inventory, s.desired, due)
	s.inventory = res.Inventory
	r := Report{Of: Repair, Started: start, Commit: s.current, Stages: map[Stage]time.Duration{}, Took: time.Since(start)}
	r.addResult(res)
	if err != nil {
		r.fail(Apply, err)
		s.loaded = false
		maps.Copy(s.drift, due) // what became of it is not known
	}
	if len(r.Failures) > 0 {
		s.applied, s.gated = "", "" // the next pass looks at everything again
	}
	for _, d := range r.Done {
		s.log.Info("drift corrected", "object", d.ID.String(), "why", d.Reason)
	}
	s.logFailures(r)
	if observe != nil {
		observe(r)
	}
}

func (s *Sync) logPass(r Report) {
	s.logFailures(r)
	s.logWatches()
	for _, w := range r.Warnings {
		s.log.Warn("let through", "what", w)
	}
	if len(r.Terminating) > 0 {
		s.log.Debug("still being deleted", "objects", len(r.Terminating), "first", r.Terminating[0].String())
	}
	if len(r.Pending) > 0 {
		s.log.Info("waves wait", "commit", r.Commit, "objects", len(r.Pending), "first", r.Pending[0].Error())
	}
	if len(r.Done) == 0 {
		s.log.Debug("pass", "commit", r.Commit, "idle", r.Idle, "took", r.Took)
		return
	}
	s.log.Info("applied", "commit", r.Commit, "ref", r.Ref, "objects", r.Objects,
		"created", r.Count(apply.Create), "changed", r.Count(apply.Change), "pruned", r.Count(apply.Prune),
		"requests", r.Requests, "took", r.Took.Round(time.Millisecond))
	for _, d := range r.Done {
		s.log.Debug("object", "id", d.ID.String(), "action", string(d.Action), "why", d.Reason)
	}
}

// logFailures says each set of failures loudly once; while it stays the same
// the passes that repeat it speak at debug level.
func (s *Sync) logFailures(r Report) {
	said := r.Commit
	for _, err := range r.Failures {
		said += "\x00" + err.Error()
	}
	level := slog.LevelError
	if said == s.said {
		level = slog.LevelDebug
	}
	s.said = said
	for _, err := range r.Failures {
		s.log.Log(context.Background(), level, "failed", "commit", r.Commit, "error", err.Error())
	}
}

// logWatches says when a kind can not be watched any more, and when it can
// again: meanwhile its drift is not seen, and nothing of it is pruned.
func (s *Sync) logWatches() {
	now := s.runner.Drift.Unhealthy()
	for gk, err := range now {
		if _, known := s.unwatched[gk]; !known {
			s.log.Warn("drift is not seen: the kind can not be watched", "kind", gk.String(), "error", err.Error())
		}
	}
	for gk := range s.unwatched {
		if _, still := now[gk]; !still {
			s.log.Info("drift is seen again", "kind", gk.String())
		}
	}
	s.unwatched = now
	polled := s.runner.Drift.Polled()
	for gk, err := range polled {
		if _, known := s.polled[gk]; !known {
			s.log.Warn("the kind can not be watched: its drift is seen at the next look only", "kind", gk.String(), "every", s.cfg.Interval, "error", err.Error())
		}
	}
	s.polled = polled
}
