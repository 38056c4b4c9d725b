package keys

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/gitseal/gitseal/crypto"
)

// Pair is a key that somebody brings. Without a certificate key one is made.
type Pair struct {
	Identity    crypto.Identity
	Certificate *crypto.CertificateKey
}

// Errors of Import that callers tell apart.
var (
	ErrHeld              = errors.New("the key is there already")
	ErrFirstMustBeActive = errors.New("it holds no keys yet, and the first one must be active")
)

// Import makes a pair the newest generation. The very first one must be active: there is
// nothing else to seal to.
func (s Store) Import(ctx context.Context, p Pair, state State) (PublicGeneration, error) {
	if err := s.ensureNamespace(ctx); err != nil {
		return PublicGeneration{}, err
	}
	there, err := s.generations(ctx)
	if err != nil {
		return PublicGeneration{}, err
	}
	if len(there) == 0 && state != Active {
		return PublicGeneration{}, fmt.Errorf("namespace %s: %w", s.Namespace, ErrFirstMustBeActive)
	}
	g := Generation{Number: (&Ring{Generations: there}).Newest() + 1, State: state, Identity: p.Identity}
	for _, h := range there {
		if h.Identity.Recipient().String() == p.Identity.Recipient().String() || p.Certificate != nil && h.Certificate.Certificate().Fingerprint() == p.Certificate.Certificate().Fingerprint() {
			return PublicGeneration{}, fmt.Errorf("%w, as generation %d (%s)", ErrHeld, h.Number, h.State)
		}
	}
	if p.Certificate != nil {
		g.Certificate = *p.Certificate
	} else if g.Certificate, err = crypto.GenerateCertificateKey(s.Now()); err != nil {
		return PublicGeneration{}, err
	}
	if err := s.create(ctx, g); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return PublicGeneration{}, fmt.Errorf("generation %d was made by somebody else meanwhile; run it again", g.Number)
		}
		return PublicGeneration{}, s.apiError(fmt.Sprintf("create key generation %d", g.Number), err)
	}
	return g.Public(), nil
}
