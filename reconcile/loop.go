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

const firstRetry = time.Second

// Trigger makes the loop look at git at once. It does not wait.
func (s *Sync) Trigger() {
	select {
	case s.trigger <- struct{}{}:
	default: // it is about to look
	}
}

// Again makes a pass at once that does everything anew, also where the commit is applied
// already: what it was opened with may have changed. It does not wait.
func (s *Sync) Again() {
	s.anew.Store(true)
	s.Trigger()
}

// Run makes passes until ctx ends: at once, then at every interval, and sooner
// after a failure, a Trigger, or where a newer commit cut one short. Drift is repaired
// when it is seen. observe is told of every pass that did something, that was asked for
// by Trigger, that went well after one that failed, or after which something else is
// known of the watches or of fights; it may be nil.
func (s *Sync) Run(ctx context.Context, observe func(Report)) {
	retry := time.Duration(0)
	waiting := map[apply.ID]string{} // drifted, but not due yet
	failed, asked := false, false    // the last pass; the next one
	next := time.NewTimer(0)
	defer next.Stop()
	ready := &readiness{done: make(chan readied)}
	defer ready.stop()
	audit := newAudit(s.cfg.Audit)
	defer audit.stop()
	s.runner.Newer = s.newer
	standing := Report{}.standing()
	for {
		var wake <-chan struct{}
		if s.runner.Drift != nil {
			wake = s.runner.Drift.Wake()
		}
		due := time.NewTimer(time.Hour)
		if at, ok := s.earliest(waiting); ok {
			due.Reset(time.Until(at))
		}
		newer := false
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
			before := standing
			standing = r.standing()
			if observe != nil && (!r.Idle || len(r.Failures) > 0 || failed || asked || standing != before) {
				observe(r)
			}
			failed, asked = len(r.Failures) > 0, false
			wait := s.cfg.Interval
			switch {
			case r.Newer:
				wait = 0
			case len(r.Failures) > 0:
				retry = min(max(2*retry, firstRetry), cmp.Or(s.cfg.RetryLimit, maxRetry))
				wait = min(retry, wait)
			default:
				retry = 0
			}
			next.Reset(wait)
		case r := <-ready.done:
			if s.wasReady(r) {
				next.Reset(0)
			}
			s.stand(&r.Report)
			if observe != nil && (!r.wave || len(r.Failures) > 0) {
				observe(r.Report)
			}
		case <-audit.due.C:
			audit.start(ctx, s)
		case r := <-audit.done:
			audit.end(s, r)
		case <-wake:
			s.collect(waiting)
			newer = s.repair(ctx, waiting, observe)
		case <-due.C:
			newer = s.repair(ctx, waiting, observe)
		}
		if newer {
			next.Reset(0)
		} else if s.applied == "" && s.gated == "" && retry == 0 { // a repair failed
			retry = firstRetry // once, or further drift would put the pass off for ever
			next.Reset(retry)
		}
		due.Stop()
	}
}

// newer looks at git at every interval, until there is another commit than the last.
func (s *Sync) newer(ctx context.Context) bool {
	last := s.source.Last()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(s.cfg.Interval):
		}
		if commit, _, err := s.source.Fetch(ctx); err == nil && (last == nil || commit.Hash != last.Hash) {
			return true
		}
	}
}

// earliest is when the first of those that wait may be repaired.
func (s *Sync) earliest(waiting map[apply.ID]string) (at time.Time, any bool) {
	for id := range waiting {
		if next := s.fights.at(id); !any || next.Before(at) {
			at, any = next, true
		}
	}
	return at, any
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

// repair applies what is due again, and reports whether a newer commit cut it short.
func (s *Sync) repair(ctx context.Context, waiting map[apply.ID]string, observe func(Report)) (newer bool) {
	now := time.Now()
	s.fights.forget(now)
	can := map[apply.ID]bool{}
	for _, d := range s.desired {
		can[d.ID] = !s.behind[d.ID]
	}
	due := map[apply.ID]string{}
	for id, why := range waiting {
		if !s.fights.due(id, now) {
			continue
		}
		delete(waiting, id)
		if !can[id] { // it waits for others, or git does not render it just now
			s.drift[id] = why // for the pass that comes to it
			continue
		}
		due[id] = why
		s.fights.tried(id, now)
	}
	if len(due) == 0 {
		return false
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
		if s.fights.corrected(d) {
			s.log.Warn("fighting over an object: another writer keeps changing it", "object", d.ID.String(), "why", d.Reason, "corrections", fightAfter)
		}
	}
	s.logFailures(r)
	s.stand(&r)
	if observe != nil {
		observe(r)
	}
	return r.Newer
}

// stand tells what holds also between passes: what is known of the watches, and fights.
func (s *Sync) stand(r *Report) {
	r.Polled, r.Unwatched = s.runner.Drift.Polled(), s.runner.Drift.Unhealthy()
	r.Fights = s.fights.now(time.Now())
}

func (s *Sync) logPass(r Report) {
	s.logFailures(r)
	s.logWatches(r)
	for _, w := range r.Warnings {
		s.log.Warn("let through", "what", w)
	}
	if len(r.Strays) > 0 {
		s.log.Warn("objects are not pruned", "why", apply.StraysWarning(s.cfg.Owner, r.Strays))
		for _, id := range r.Strays {
			s.log.Debug("not pruned", "object", id.String())
		}
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
		"created", r.Count(apply.Create), "adopted", r.Count(apply.Adopt), "changed", r.Count(apply.Change),
		"pruned", r.Count(apply.Prune), "released", r.Count(apply.Release),
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
func (s *Sync) logWatches(r Report) {
	for gk, err := range r.Unwatched {
		if _, known := s.unwatched[gk]; !known {
			s.log.Warn("drift is not seen: the kind can not be watched", "kind", gk.String(), "error", err.Error())
		}
	}
	for gk := range s.unwatched {
		if _, still := r.Unwatched[gk]; !still {
			s.log.Info("drift is seen again", "kind", gk.String())
		}
	}
	s.unwatched = r.Unwatched
	for gk, err := range r.Polled {
		if _, known := s.polled[gk]; !known {
			s.log.Warn("the kind can not be watched: its drift is seen at the next look only", "kind", gk.String(), "every", s.cfg.Interval, "error", err.Error())
		}
	}
	s.polled = r.Polled
}
