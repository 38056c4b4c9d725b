package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/decrypt"
)

// Stage is a step of a pass; a failure names the one it happened in.
type Stage string

// The stages, in their order.
const (
	Fetch   Stage = "fetch"
	Keys    Stage = "keys"
	Decrypt Stage = "decrypt"
	Build   Stage = "build"
	Gate    Stage = "gate"
	Plan    Stage = "plan"
	Apply   Stage = "apply"
	Prune   Stage = "prune"
	Health  Stage = "health"
)

// StageError is a failure of a whole stage, or of one object or file in it.
type StageError struct {
	Stage Stage
	Err   error
}

func (e *StageError) Error() string { return string(e.Stage) + ": " + e.Err.Error() }
func (e *StageError) Unwrap() error { return e.Err }

// Work is what a Report is about.
type Work int

// The kinds of work.
const (
	Pass      Work = iota // a look at git and what followed
	Repair                // of drift
	Readiness             // the wait for what a pass applied
)

// Report says what a pass did. It holds names, counts and public fingerprints.
type Report struct {
	Of      Work
	Started time.Time
	Commit  string // hash; "" if none was ever fetched
	Ref     string
	Subject string
	Author  string // the name that the commit claims
	Took    time.Duration
	Stages  map[Stage]time.Duration

	Idle     bool // nothing was to be done
	Gated    bool // and later waves wait for earlier ones to become ready
	Objects  int  // that git holds
	Done     []apply.Done
	Left     int // objects that are as they should be already
	Requests int // sent to the cluster for objects

	// Polled are kinds that the identity may not watch, with the API server's
	// answer: their drift is seen at the next look only.
	Polled map[schema.GroupKind]error

	// Unwatched are kinds of which nothing is known just now, and why: their drift is
	// not seen, and nothing of them is pruned.
	Unwatched map[schema.GroupKind]error

	// Fights go on, since another writer keeps changing an object. Once that has been
	// calm for ten minutes it is not among them any more.
	Fights []Fight

	// Strays are objects that the Sync has applied and lost with its inventory: they are
	// not pruned. They are told once.
	Strays []apply.ID

	// Newer says that waits were cut short, since there is a newer commit.
	Newer bool

	// Terminating is what was pruned and is still held by a finalizer.
	Terminating []apply.ID

	// Pending is what waits for a wave before its own to become ready. It is no
	// failure.
	Pending []apply.Failure

	Failures     []error        // each a *StageError
	Opened       map[string]int // files and SealedSecrets by the fingerprint of the key that opens them
	Warnings     []string
	PruneBlocked string
}

// Err joins the failures; nil means that everything git holds is applied.
func (r Report) Err() error { return errors.Join(r.Failures...) }

// standing is a text of what holds between passes, to see whether it has changed.
func (r Report) standing() string {
	names := func(kinds map[schema.GroupKind]error) []string {
		var out []string
		for gk := range kinds {
			out = append(out, gk.String())
		}
		slices.Sort(out)
		return out
	}
	return fmt.Sprint(names(r.Polled), names(r.Unwatched), r.Fights)
}

// Count returns to how many objects something was done.
func (r Report) Count(a apply.Action) int {
	n := 0
	for _, d := range r.Done {
		if d.Action == a {
			n++
		}
	}
	return n
}

// written returns how many objects of git were written.
func (r Report) written() int {
	return r.Count(apply.Create) + r.Count(apply.Adopt) + r.Count(apply.Change)
}

func (r *Report) fail(stage Stage, err error) {
	r.Failures = append(r.Failures, &StageError{stage, err})
}

func (r *Report) addGated(g decrypt.Gated, problems, warnings []decrypt.Problem) {
	for _, p := range problems {
		r.fail(Decrypt, p)
	}
	for _, x := range g.Refused {
		r.fail(Gate, x)
	}
	for _, w := range warnings {
		r.Warnings = append(r.Warnings, w.Error())
	}
	for _, w := range g.Warnings {
		r.Warnings = append(r.Warnings, w.Error())
	}
}

func (r *Report) addResult(res apply.Result) {
	r.Done = append(r.Done, res.Done...)
	r.Requests += res.Requests
	r.Newer = res.Newer
	for _, f := range res.Failed {
		r.fail(Apply, f)
	}
	for _, f := range res.Waiting {
		r.fail(Apply, f)
	}
	r.Pending = append(r.Pending, res.Pending...)
	for _, f := range res.Kept {
		r.fail(Prune, f)
	}
}

// incomplete says why the objects may not be all that git holds, or "".
func incomplete(problems []decrypt.Problem, refused []decrypt.Refusal, unknown []apply.Failure) string {
	switch {
	case len(problems) > 0:
		return fmt.Sprintf("%s could not be opened", problems[0].File)
	case len(refused) > 0:
		return fmt.Sprintf("%s was refused", refused[0].Object)
	case len(unknown) > 0:
		return unknown[0].Error()
	}
	return ""
}
