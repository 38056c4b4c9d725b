package keys

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
)

// State is the life of a generation.
type State string

// The states. The newest active generation is published and sealed to; older active
// ones open, and so does one on standby. A retired one opens nothing: its Secret stays,
// so that it can be taken back. What is deleted is gone.
const (
	Standby State = "standby"
	Active  State = "active"
	Retired State = "retired"
)

// Names and labels of what the agent keeps in its namespace.
const (
	StateLabel = "gitseal.io/key"
	// BackedUpAnnotation says when the key was last written into a backup, in RFC 3339.
	BackedUpAnnotation = "gitseal.io/backed-up"
	// awaitsAnnotation marks a generation that becomes active once it is backed up.
	awaitsAnnotation = "gitseal.io/awaits-backup"
	numberLabel      = "gitseal.io/key-generation"
	secretPrefix     = "gitseal-key-"
	identityKey      = "identity.agekey"
	TokenSecret      = "gitseal-token-key"
	tokenDataKey     = "token.key"
	tokenKeyBytes    = 32

	PublicConfigMap = "gitseal-keys"
	RecipientsKey   = "recipients.txt"
	CertificateKey  = "cert.pem"
	GenerationsKey  = "generations.json"
)

// Generation is one age identity and one certificate key.
type Generation struct {
	Number      int
	State       State
	Identity    crypto.Identity
	Certificate crypto.CertificateKey
	BackedUp    time.Time // zero for never

	awaits  bool   // it becomes active once it is backed up
	version string // of the Secret that it was read from
}

// SecretName is where it is kept.
func (g Generation) SecretName() string { return secretPrefix + strconv.Itoa(g.Number) }

// newGeneration makes keys.
func newGeneration(number int, state State, now time.Time) (Generation, error) {
	g := Generation{Number: number, State: state}
	var err error
	if g.Identity, err = crypto.GenerateIdentity(); err != nil {
		return Generation{}, err
	}
	g.Certificate, err = crypto.GenerateCertificateKey(now)
	return g, err
}

func (g Generation) secret(namespace string) *corev1.Secret {
	var annotations map[string]string
	if g.awaits {
		annotations = map[string]string{awaitsAnnotation: "true"}
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: g.SecretName(), Namespace: namespace, Annotations: annotations,
			Labels: map[string]string{StateLabel: string(g.State), numberLabel: strconv.Itoa(g.Number)},
		},
		Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{
			identityKey:             g.Identity.Text().Reveal(),
			corev1.TLSCertKey:       g.Certificate.Certificate().PEM(),
			corev1.TLSPrivateKeyKey: g.Certificate.PEM().Reveal(),
		},
	}
}

func parseGeneration(s *corev1.Secret) (Generation, error) {
	fail := func(err error) (Generation, error) {
		return Generation{}, fmt.Errorf("key Secret %s/%s: %w", s.Namespace, s.Name, err)
	}
	n, err := strconv.Atoi(strings.TrimPrefix(s.Name, secretPrefix))
	if err != nil || n < 1 || s.Name != secretPrefix+strconv.Itoa(n) { // one name for each number
		return fail(fmt.Errorf("its name is not %s and a number", secretPrefix))
	}
	state := State(s.Labels[StateLabel])
	switch state {
	case Standby, Active, Retired:
	default:
		return fail(fmt.Errorf("label %s is not active, standby or retired", StateLabel))
	}
	ids, err := crypto.ParseIdentities(crypto.NewSecret(s.Data[identityKey]))
	if err != nil {
		return fail(fmt.Errorf("%s: %w", identityKey, err))
	}
	if len(ids) != 1 {
		return fail(fmt.Errorf("%s: %d identities, want one", identityKey, len(ids)))
	}
	cert, err := crypto.ParseCertificateKey(s.Data[corev1.TLSCertKey], crypto.NewSecret(s.Data[corev1.TLSPrivateKeyKey]))
	if err != nil {
		return fail(err)
	}
	// What somebody has written into the annotation by hand, and is no time, counts as nothing.
	backedUp, _ := time.Parse(time.RFC3339, s.Annotations[BackedUpAnnotation])
	return Generation{
		Number: n, State: state, Identity: ids[0], Certificate: cert, BackedUp: backedUp.UTC().Truncate(time.Second),
		awaits: s.Annotations[awaitsAnnotation] != "", version: s.ResourceVersion,
	}, nil
}

// Ring is the set of keys of one moment. It implements decrypt.Keys.
type Ring struct {
	Generations []Generation // newest first
	Token       crypto.Secret
	foreign     foreignKeys
}

// ErrNoActive is returned where a Ring holds no active generation.
var ErrNoActive = errors.New("no active key generation")

// Active is the newest active generation: what is published and sealed to.
func (r *Ring) Active() (Generation, error) {
	for _, g := range r.Generations {
		if g.State == Active {
			return g, nil
		}
	}
	return Generation{}, ErrNoActive
}

// Newest is the highest number of a generation, 0 for none.
func (r *Ring) Newest() int {
	n := 0
	for _, g := range r.Generations {
		n = max(n, g.Number)
	}
	return n
}

// opening are the generations that open, newest first: all but the retired ones.
func (r *Ring) opening() []Generation {
	return slices.DeleteFunc(slices.Clone(r.Generations), func(g Generation) bool { return g.State == Retired })
}

// same reports whether both hold the same generations in the same states.
func (r *Ring) same(o *Ring) bool {
	return slices.EqualFunc(r.Generations, o.Generations, func(a, b Generation) bool {
		return a.Number == b.Number && a.State == b.State && a.Identity.Recipient().String() == b.Identity.Recipient().String() &&
			a.Certificate.Certificate().Fingerprint() == b.Certificate.Certificate().Fingerprint()
	})
}

// Keyring holds all keys that open SOPS files, those of the agent first.
func (r *Ring) Keyring() crypto.Keyring {
	out := crypto.Keyring{PGPKeys: r.foreign.pgp}
	for _, g := range r.opening() {
		out.Identities = append(out.Identities, g.Identity)
	}
	shared := map[string]bool{} // a tenant who holds the agent's key does not own it
	for _, id := range out.Identities {
		shared[id.Recipient().Fingerprint()] = true
	}
	out.Identities = append(out.Identities, r.foreign.identities...)
	if r.foreign.own {
		out.Own = map[string]bool{}
		for _, id := range r.foreign.identities {
			out.Own[id.Recipient().Fingerprint()] = !shared[id.Recipient().Fingerprint()]
		}
		for _, k := range r.foreign.pgp {
			out.Own["pgp "+k.Fingerprint()] = true
		}
	}
	return out
}

// CertificateKeys are all SealedSecret keys: those of the agent, newest first,
// then those of sealed-secrets, newest first.
func (r *Ring) CertificateKeys() []crypto.CertificateKey {
	var out []crypto.CertificateKey
	for _, g := range r.opening() {
		out = append(out, g.Certificate)
	}
	return append(out, r.foreign.certificates...)
}
