package reconcile

import (
	"errors"
	"fmt"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/decrypt"
)

// OutsideError says that git holds objects where this Sync must not write.
type OutsideError struct {
	Within  string // the namespace that it may write to
	Objects []apply.ID
}

func (e *OutsideError) Error() string {
	more := ""
	if n := len(e.Objects) - 1; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("%s%s: this Sync may hold objects of namespace %s only, so nothing of it was applied", e.Objects[0], more, e.Within)
}

// outside finds the objects that are not in the one namespace, those that the gate did
// not let through among them.
func outside(desired []apply.Desired, refused []decrypt.Refusal, within string) error {
	if within == "" {
		return nil
	}
	e := &OutsideError{Within: within}
	for _, d := range desired {
		if d.ID.Namespace != within {
			e.Objects = append(e.Objects, d.ID)
		}
	}
	for _, r := range refused {
		if r.Target.Namespace != within && r.Target.Namespace != "" {
			e.Objects = append(e.Objects, apply.ID(r.Target))
		}
	}
	if len(e.Objects) == 0 {
		return nil
	}
	return e
}

// ErrProtected says that an object must not be changed by this Sync.
var ErrProtected = errors.New("is protected")

// protected takes out the objects that must not be changed.
func protected(desired []apply.Desired, why func(apply.ID) string) (rest []apply.Desired, kept []apply.Failure) {
	if why == nil {
		return desired, nil
	}
	for _, d := range desired {
		if reason := why(d.ID); reason != "" {
			kept = append(kept, apply.Failure{ID: d.ID, Err: fmt.Errorf("%w: %s", ErrProtected, reason), Wave: apply.WaveOf(d.Object.Masked.GetAnnotations())})
			continue
		}
		rest = append(rest, d)
	}
	return rest, kept
}
