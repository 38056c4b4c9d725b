package keys

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Errors of Retire that callers tell apart.
var (
	ErrNoSuchGeneration = errors.New("no such key generation")
	ErrSealedTo         = errors.New("it is the one that is sealed to")
	ErrNotRetired       = errors.New("it is not retired")
)

// Retire makes a generation open nothing any more. Whether anything needs it is for the
// caller to know. It refuses the one that is sealed to (ErrSealedTo).
func (s Store) Retire(ctx context.Context, number int) (PublicGeneration, error) {
	return s.setState(ctx, number, func(g Generation, r *Ring) (State, error) {
		if active, err := r.Active(); err == nil && active.Number == number {
			return "", fmt.Errorf("key generation %d: %w", number, ErrSealedTo)
		}
		return Retired, nil
	})
}

// Unretire makes a retired generation open again, without that it is sealed to.
func (s Store) Unretire(ctx context.Context, number int) (PublicGeneration, error) {
	return s.setState(ctx, number, func(g Generation, r *Ring) (State, error) {
		active, err := r.Active()
		switch {
		case g.State != Retired:
			return "", fmt.Errorf("key generation %d: %w", number, ErrNotRetired)
		case err == nil && active.Number < number:
			return Standby, nil // as an active one it would be the newest
		}
		return Active, nil
	})
}

// setState also sees to it that no generation waits for a backup to become active again.
func (s Store) setState(ctx context.Context, number int, decide func(Generation, *Ring) (State, error)) (PublicGeneration, error) {
	for try := 0; ; try++ {
		there, err := s.generations(ctx)
		if err != nil {
			return PublicGeneration{}, err
		}
		i := slices.IndexFunc(there, func(g Generation) bool { return g.Number == number })
		if i < 0 {
			return PublicGeneration{}, fmt.Errorf("%w: %d", ErrNoSuchGeneration, number)
		}
		to, err := decide(there[i], &Ring{Generations: there})
		if err != nil || to == there[i].State {
			return there[i].Public(), err
		}
		err = s.patch(ctx, there[i], to, map[string]any{awaitsAnnotation: nil})
		if err == nil {
			there[i].State = to
			return there[i].Public(), nil
		}
		if !apierrors.IsConflict(err) || try == maxConflicts {
			return PublicGeneration{}, s.apiError(fmt.Sprintf("make key generation %d %s", number, to), err)
		}
	}
}
