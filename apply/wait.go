package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// errNewer is the end of a wait that the next run begins anew.
var errNewer = errors.New("a newer commit is there")

// waits are those of one run for something in the cluster, which end once there is a
// newer commit. Safe for concurrent use; a nil *waits ends none.
type waits struct {
	newer func(context.Context) bool
	ctx   context.Context // of the run
	ended context.Context // once there is a newer commit
	end   context.CancelFunc

	mu    sync.Mutex
	count int
	stop  func() // the look for a newer commit, and waits for its end
}

func newWaits(ctx context.Context, newer func(context.Context) bool) *waits {
	if newer == nil {
		return nil
	}
	w := &waits{newer: newer, ctx: ctx}
	w.ended, w.end = context.WithCancel(context.WithoutCancel(ctx))
	return w
}

// begin is the context of a wait; over must be called after it. What of it a newer
// commit ended is cutShort.
func (w *waits) begin(ctx context.Context) (waiting context.Context, over func()) {
	if w == nil {
		return ctx, func() {}
	}
	waiting, cancel := context.WithCancelCause(ctx)
	keep := context.AfterFunc(w.ended, func() { cancel(errNewer) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count++; w.count == 1 {
		w.look()
	}
	return waiting, func() {
		keep()
		cancel(nil)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.count--; w.count == 0 {
			w.stop()
		}
	}
}

// look lets the first of several waits begin to look for a newer commit. The caller
// holds mu.
func (w *waits) look() {
	if w.cutShort() {
		w.stop = func() {}
		return
	}
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	w.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		if w.newer(ctx) {
			w.end()
		}
	}()
}

// cutShort reports whether a newer commit was found.
func (w *waits) cutShort() bool { return w != nil && w.ended.Err() != nil }

// cutShort reports whether a newer commit ended the wait.
func cutShort(waiting context.Context) bool { return context.Cause(waiting) == errNewer } //nolint:errorlint // never wrapped

// waitEstablished waits until a CRD that was just applied is served. A CRD
// that its author got wrong never is, so the wait is bounded.
func (r *Runner) waitEstablished(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, over := r.waits.begin(ctx)
	defer over()
	path := "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + name
	for {
		b, err := r.Cluster.client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
		switch {
		case cutShort(ctx):
			return errNewer
		case err != nil:
			return refused(err, false)
		}
		var crd struct {
			Status struct {
				Conditions []struct{ Type, Status, Message string }
			}
		}
		if err := json.Unmarshal(b, &crd); err != nil {
			return fmt.Errorf("read CRD %s: %w", name, err)
		}
		for _, cond := range crd.Status.Conditions {
			if cond.Type == "Established" && cond.Status == "True" {
				return nil
			}
			if cond.Type == "NamesAccepted" && cond.Status == "False" {
				return fmt.Errorf("names of CRD %s were not accepted: %s", name, cond.Message)
			}
		}
		select {
		case <-ctx.Done():
			if cutShort(ctx) {
				return errNewer
			}
			return fmt.Errorf("CRD %s was not established in %s", name, requestTimeout)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
