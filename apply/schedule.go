package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// outcome of one object.
type outcome struct {
	entry    Entry
	done     *Done
	failed   error
	waiting  error
	pending  error
	requests int

	generation int64 // of what was applied

	// Of the end of a wave: what of it was not applied, or is not ready yet.
	blocker, unready string
}

// notTried keeps the entry of an object that could not be sent yet. A change is
// marked, since drift is told once: the next pass must not forget it.
func notTried(step Step, e Entry) outcome {
	if step.Action == Change {
		e.Phase = Intended
	}
	if step.mayBeAnothers() {
		e.Evidence = Evidence{} // it is claimed like a new one
	}
	return outcome{entry: e}
}

func (r *Runner) applyAll(ctx context.Context, p Plan, res *Result) {
	refs := references(p.Desired, p.refused, p.renamed)
	before := edges(p.Desired, refs)
	claimed, claimErr := r.claims(ctx, p, res)
	var silent atomic.Bool // the sealed-secrets controller did not answer once
	outcomes := make([]outcome, len(before))
	one := func(i int) outcome {
		d, step := p.Desired[i], p.Steps[i]
		e := res.Inventory.Entries[d.ID]
		blocker, unready := blocker(p, before[i], refs, outcomes, i)
		o := notTried(step, e)
		switch {
		case ctx.Err() != nil:
			o.waiting = ctx.Err()
			return o
		case blocker != "":
			o.waiting = fmt.Errorf("waits for %s", blocker)
			return o
		case unready != "" && step.Action != Leave:
			o.pending = fmt.Errorf("waits for %s", unready)
			return o
		case claimed[d.ID] && step.Action != Leave:
			return failed(e, errClaimed)
		case claimErr != nil && d.Object.FromSealedSecret() && step.Action != Leave:
			return failed(e, claimErr)
		}
		o = r.one(ctx, d, step, e, p.inventory)
		if o.done != nil && isSealedSecret(d.ID) {
			o = r.confirm(ctx, d, o, &silent)
		}
		if errors.Is(o.failed, errNewer) {
			o.failed, o.waiting = nil, o.failed
		}
		return o
	}
	var mu sync.Mutex
	inOrder(before, Concurrency, func(i int) {
		if i < len(p.Desired) {
			outcomes[i] = one(i)
			return
		}
		var unready []Desired
		outcomes[i], unready = r.endOfWave(ctx, p, before[i], outcomes)
		mu.Lock()
		defer mu.Unlock()
		res.Unready = append(res.Unready, unready...)
	})
	for i, o := range outcomes[:len(p.Desired)] {
		id := p.Desired[i].ID
		if o.entry.Phase == "" { // in a cycle of references: nothing could start
			o.waiting = errors.New("waits for itself, through what it refers to")
			o.entry = res.Inventory.Entries[id]
		}
		res.Inventory.Entries[id] = o.entry
		res.Requests += o.requests
		switch {
		case o.failed != nil:
			res.Failed = append(res.Failed, Failure{ID: id, Err: o.failed})
		case o.waiting != nil:
			res.Waiting = append(res.Waiting, Failure{ID: id, Err: o.waiting})
		case o.pending != nil:
			res.Pending = append(res.Pending, Failure{ID: id, Err: o.pending})
		case o.done != nil:
			res.Done = append(res.Done, *o.done)
		}
	}
}

// inOrder calls do for each node once all nodes before it are done, so many at a
// time. What is in a cycle is never called. There are workers, not a goroutine for
// each node: the stacks of those that wait would be a good part of the agent's memory.
func inOrder(before [][]int, atOnce int, do func(i int)) {
	after := make([][]int, len(before))
	missing := make([]int, len(before))
	for i, deps := range before {
		missing[i] = len(deps)
		for _, j := range deps {
			after[j] = append(after[j], i)
		}
	}
	var mu sync.Mutex
	var workers sync.WaitGroup
	var ready []int
	working := 0
	var work func()
	start := func(i int) { // the caller holds mu
		ready = append(ready, i)
		if working < atOnce {
			working++
			workers.Go(work)
		}
	}
	work = func() {
		mu.Lock()
		defer mu.Unlock()
		for len(ready) > 0 {
			i := ready[0]
			ready = ready[1:]
			mu.Unlock()
			do(i)
			mu.Lock()
			for _, j := range after[i] {
				if missing[j]--; missing[j] == 0 {
					start(j)
				}
			}
		}
		working--
	}
	mu.Lock()
	for i, deps := range before { // not missing, which counts down from here on
		if len(deps) == 0 {
			start(i)
		}
	}
	mu.Unlock()
	workers.Wait()
}

// blocker says what object i needs that is not there, and what of a wave before it is
// not ready. Kinds that only come last for good order are not held up.
func blocker(p Plan, deps []int, refs [][]ID, outcomes []outcome, i int) (blocker, unready string) {
	only := i < len(p.Desired) && last(p.Desired[i].ID)
	for _, j := range deps {
		o := outcomes[j]
		switch {
		case o.blocker != "":
			return o.blocker, ""
		case o.unready != "":
			unready = o.unready
		case only:
		case o.failed != nil || o.waiting != nil:
			return p.Desired[j].ID.String() + ", which was not applied", ""
		case o.pending != nil && unready == "":
			unready = p.Desired[j].ID.String() + ", which waits itself"
		}
	}
	if i >= len(p.Desired) {
		return "", unready
	}
	if len(p.absent) > 0 {
		if absent := p.lacking(WaveOf(p.Desired[i].Object.Masked.GetAnnotations())); absent != "" {
			return absent + ", which was not applied", ""
		}
	}
	if only {
		return "", unready
	}
	for _, id := range refs[i] {
		if p.refused[id] || id.Kind == "Secret" && p.refused[sealedSecretOf(id)] {
			return id.String() + ", which was not applied", ""
		}
	}
	return "", unready
}

// endOfWave looks whether a wave is ready, if later ones have something to send.
func (r *Runner) endOfWave(ctx context.Context, p Plan, deps []int, outcomes []outcome) (o outcome, unready []Desired) {
	o.blocker, o.unready = blocker(p, deps, nil, outcomes, len(p.Desired))
	if o.blocker != "" || o.unready != "" || !p.awaitWaves || ctx.Err() != nil {
		return o, nil
	}
	var wave []Desired
	for _, j := range deps {
		if j < len(p.Desired) && outcomes[j].entry.Evidence.UID != "" { // what is left alone is not waited for
			wave = append(wave, p.Desired[j])
		}
	}
	if len(wave) == 0 || !p.sendsAfter(WaveOf(wave[0].Object.Masked.GetAnnotations())) {
		return o, nil
	}
	missing, failed := r.awaitReady(ctx, wave, requestTimeout, true)
	switch {
	case len(missing) == 0:
		return o, nil
	case failed:
		o.blocker = missing[0].ID.String() + ", which " + missing[0].Err.Error()
		return o, nil
	default:
		o.unready = missing[0].ID.String() + ", which is not ready yet"
		return o, wave
	}
}

// sendsAfter reports whether anything of a later wave is to be sent.
func (p Plan) sendsAfter(wave int) bool {
	for i, d := range p.Desired {
		if p.Steps[i].Action != Leave && WaveOf(d.Object.Masked.GetAnnotations()) > wave {
			return true
		}
	}
	return false
}
