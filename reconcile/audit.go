package reconcile

import (
	"context"
	"math/rand/v2"
	"time"
)

// audit compares now and then what the watches told with what is in the cluster: a
// watch that has gone deaf says nothing of itself.
type audit struct {
	every  time.Duration
	due    *time.Timer
	done   chan audited
	cancel context.CancelFunc
}

type audited struct {
	missed int
	err    error
}

func newAudit(every time.Duration) *audit {
	a := &audit{every: every, due: time.NewTimer(time.Hour), done: make(chan audited), cancel: func() {}}
	a.again()
	return a
}

// again sets the next one, a fifth sooner or later: many agents do not come at once.
func (a *audit) again() {
	a.due.Stop()
	if a.every > 0 {
		a.due.Reset(time.Duration(float64(a.every) * (0.8 + 0.4*rand.Float64())))
	}
}

func (a *audit) stop() {
	a.due.Stop()
	a.cancel()
}

// start runs it beside the loop, which goes on repairing meanwhile.
func (a *audit) start(ctx context.Context, s *Sync) {
	if s.runner.Drift == nil {
		return
	}
	ctx, a.cancel = context.WithCancel(ctx)
	go func() {
		missed, err := s.runner.Drift.Audit(ctx)
		select {
		case a.done <- audited{missed, err}:
		case <-ctx.Done():
		}
	}()
}

func (a *audit) end(s *Sync, r audited) {
	a.cancel()
	a.again()
	switch {
	case r.err != nil:
		s.log.Error("audit failed", "error", r.err.Error())
	case r.missed > 0:
		s.log.Warn("audit: objects had drifted that the watches did not tell of", "objects", r.missed)
	default:
		s.log.Debug("audit: the watches missed nothing")
	}
}
