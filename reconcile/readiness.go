package reconcile

import (
	"context"
	"time"
)

// readiness is the wait for what a pass applied, or for a wave of it, which goes on
// beside the loop.
type readiness struct {
	cancel context.CancelFunc
	done   chan readied
}

// readied is how a wait ended.
type readied struct {
	Report
	wave bool
}

// start begins the wait that a pass asks for. It ends the one before.
func (w *readiness) start(ctx context.Context, s *Sync, r Report) {
	w.stop()
	desired, inventory, limit, wave := s.desired, s.inventory, s.cfg.Wait, false // the loop may replace them
	if len(r.Pending) > 0 {
		desired, limit, wave = s.unready, s.cfg.WaveTimeout, true
	}
	if limit <= 0 || len(r.Failures) > 0 {
		return
	}
	ctx, w.cancel = context.WithCancel(ctx)
	r = Report{Of: Readiness, Started: time.Now(), Commit: r.Commit, Ref: r.Ref, Subject: r.Subject, Objects: r.Objects, Stages: map[Stage]time.Duration{}}
	go func() {
		s.await(ctx, desired, inventory, limit, &r)
		if ctx.Err() != nil {
			return
		}
		select {
		case w.done <- readied{r, wave}:
		case <-ctx.Done():
		}
	}()
}

func (w *readiness) stop() {
	if w.cancel != nil {
		w.cancel()
	}
}

// wasReady logs how a wait ended, and reports whether the next waves can go on.
func (s *Sync) wasReady(r readied) (next bool) {
	if r.wave {
		s.gated = ""
	}
	switch {
	case len(r.Failures) > 0:
		s.logFailures(r.Report)
		return false
	case r.wave:
		s.log.Debug("the wave is ready", "commit", r.Commit, "took", r.Took.Round(time.Millisecond))
		return true
	default:
		s.log.Info("ready", "commit", r.Commit, "took", r.Took.Round(time.Millisecond))
		return false
	}
}
