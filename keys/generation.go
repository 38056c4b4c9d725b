package keys

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
)

// State is the life of a generation.
type State string

// The states. Only an active generation is sealed to; retired ones still open.
const (
	Standby State = "standby"
	Active  State = "active"
	Retired State = "retired"
)

// Names and labels of what the agent keeps in its namespace.
const (
	StateLabel    = "gitseal.io/key"
	numberLabel   = "gitseal.io/key-generation"
	secretPrefix  = "gitseal-key-"
	identityKey   = "identity.agekey"
	TokenSecret   = "gitseal-token-key"
	tokenDataKey  = "token.key"
	tokenKeyBytes = 32

	PublicConfigMap = "gitseal-keys"
	RecipientsKey   = "recipients.txt"
	CertificateKey  = "cert.pem"
)

// Generation is one age identity and one certificate key.
type Generation struct {
	Number      int
	State       State
	Identity    crypto.Identity
	Certificate crypto.CertificateKey
}

func (g Generation) secret(namespace string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: secretPrefix + strconv.Itoa(g.Number), Namespace: namespace,
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
	return Generation{Number: n, State: state, Identity: ids[0], Certificate: cert}, nil
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

// Keyring holds all keys that open SOPS files, those of the agent first.
func (r *Ring) Keyring() crypto.Keyring {
	out := crypto.Keyring{PGPKeys: r.foreign.pgp}
	for _, g := range r.Generations {
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
	for _, g := range r.Generations {
		out = append(out, g.Certificate)
	}
	return append(out, r.foreign.certificates...)
}

// Public is what is published.
type Public struct {
	Recipients []crypto.Recipient
	Cert       crypto.Certificate
}

// Public returns the public half of the active generation.
func (r *Ring) Public() (Public, error) {
	g, err := r.Active()
	if err != nil {
		return Public{}, err
	}
	return Public{Recipients: []crypto.Recipient{g.Identity.Recipient()}, Cert: g.Certificate.Certificate()}, nil
}

// data is the ConfigMap's content.
func (p Public) data() map[string]string {
	var lines strings.Builder
	for _, r := range p.Recipients {
		lines.WriteString(r.String() + "\n")
	}
	return map[string]string{RecipientsKey: lines.String(), CertificateKey: string(p.Cert.PEM())}
}

// ParsePublic reads the two texts of the ConfigMap gitseal-keys.
func ParsePublic(data map[string]string) (Public, error) {
	rs, err := crypto.ParseRecipients([]byte(data[RecipientsKey]))
	if err != nil {
		return Public{}, fmt.Errorf("%s: %w", RecipientsKey, err)
	}
	if len(rs) == 0 {
		return Public{}, fmt.Errorf("%s holds no recipient", RecipientsKey)
	}
	cert, err := crypto.ParseCertificate([]byte(data[CertificateKey]))
	if err != nil {
		return Public{}, fmt.Errorf("%s: %w", CertificateKey, err)
	}
	return Public{Recipients: rs, Cert: cert}, nil
}
