package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/gitseal/gitseal/apply"
)

const (
	maxRetry    = 5 * time.Minute
	calm        = 10 * time.Minute // after so long without drift an object counts as peaceful again
	fightAfter  = 5                // corrections in a row before it is called a fight
	firstRepair = time.Second
)

// Fight is an object that another writer changes again and again.
type Fight struct {
	ID          apply.ID
	Why         string // of the last correction; it names the other writer where that is known
	Corrections int    // in a row
	Since       time.Time
}

// fights is what is known of objects that had to be put back of late.
type fights struct {
	calm time.Duration
	of   map[apply.ID]*fight
}

type fight struct {
	Fight
	repairs int       // tried, whatever became of them
	last    time.Time // of these
	next    time.Time // not before
}

func newFights() *fights { return &fights{calm: calm, of: map[apply.ID]*fight{}} }

// due reports whether an object may be repaired now. The first time it may at once,
// then with growing pauses, so that two writers who disagree do not keep the API server
// busy.
func (f *fights) due(id apply.ID, now time.Time) bool { return !now.Before(f.at(id)) }

// at is when an object may be repaired next.
func (f *fights) at(id apply.ID) time.Time {
	if one := f.of[id]; one != nil {
		return one.next
	}
	return time.Time{}
}

// tried notes a repair.
func (f *fights) tried(id apply.ID, now time.Time) {
	one := f.of[id]
	if one == nil {
		one = &fight{Fight: Fight{ID: id}}
		f.of[id] = one
	}
	one.repairs++
	one.last = now
	one.next = now.Add(min(firstRepair<<min(one.repairs-1, 10), maxRetry))
}

// corrected notes that a repair has changed the object, and reports whether that is the
// beginning of a fight.
func (f *fights) corrected(d apply.Done) bool {
	one := f.of[d.ID]
	if one.Corrections == 0 {
		one.Since = one.last
	}
	one.Corrections++
	one.Why = d.Reason
	return one.Corrections == fightAfter
}

// forget what has been calm.
func (f *fights) forget(now time.Time) {
	maps.DeleteFunc(f.of, func(_ apply.ID, one *fight) bool { return now.Sub(one.last) > f.calm })
}

// now lists the fights that go on.
func (f *fights) now(now time.Time) []Fight {
	f.forget(now)
	var out []Fight
	for _, one := range f.of {
		if one.Corrections >= fightAfter {
			out = append(out, one.Fight)
		}
	}
	slices.SortFunc(out, func(a, b Fight) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	return out
}
