package controller

import (
	"context"
	"time"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/reconcile"
)

// observe takes a report of the loop.
func (l *loop) observe(ctx context.Context, r reconcile.Report) {
	if ctx.Err() != nil { // what was cut short says nothing, but what it did
		l.controller.sayer.write(l.sync, r, v1alpha1.SyncStatus{}, v1alpha1.SyncStatus{})
		return
	}
	l.mu.Lock()
	a := about{generation: l.generation, waits: l.settings.reconcile.Wait > 0, signers: l.signers}
	if l.asked != "" && r.Of == reconcile.Pass && !r.Started.Before(l.askedAt) {
		a.handled, l.asked = l.asked, ""
	}
	l.mu.Unlock()
	l.controller.report(l.sync, r, a)
}

// report makes a report known: as status, events, metrics and audit lines.
func (c *Controller) report(n name, r reconcile.Report, a about) {
	a.now = time.Now().Truncate(time.Second) // as a status stores it
	before, after := c.statuses.change(n, func(old v1alpha1.SyncStatus) v1alpha1.SyncStatus { return nextStatus(old, r, a) })
	c.sayer.say(n, r, before, after)
	recordReport(n, r, after)
}
