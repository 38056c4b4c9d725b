package crypto

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/getsops/sops/v3"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/keyservice"
	"github.com/getsops/sops/v3/logging"
	"github.com/getsops/sops/v3/pgp"
)

// silenceSOPS stops the loggers of the sops library, which write file content
// to stderr ("Found possibly unencrypted comment").
var silenceSOPS = sync.OnceFunc(func() {
	for _, l := range logging.Loggers {
		l.SetOutput(io.Discard)
	}
})

const dataKeyBytes = 32

var errUnsupportedKey = errors.New("unsupported kind of key")

// localKeys is a key service that opens data keys with age and OpenPGP, wraps
// them with age, and does nothing else. The metadata of a file in git picks the
// kind of key and, for KMS and Vault, the address that would be called: those
// are refused here, before any network use. It never falls back to keys of the
// environment.
type localKeys struct {
	ring   Keyring
	opened *[]string // fingerprints of the keys that opened something; nil where nobody asks
}

func (s localKeys) Decrypt(_ context.Context, req *keyservice.DecryptRequest) (*keyservice.DecryptResponse, error) {
	var key []byte
	var by string
	var err error
	switch req.Key.KeyType.(type) {
	case *keyservice.Key_AgeKey:
		key, by, err = openAge(s.ring.Identities, req.Ciphertext)
	case *keyservice.Key_PgpKey:
		key, by, err = openPGP(s.ring.PGPKeys, req.Ciphertext)
	default:
		err = errUnsupportedKey
	}
	if err != nil {
		return nil, err
	}
	if s.opened != nil {
		*s.opened = append(*s.opened, by)
	}
	return &keyservice.DecryptResponse{Plaintext: key}, nil
}

func openAge(identities []Identity, message []byte) (key []byte, by string, err error) {
	if len(identities) == 0 {
		return nil, "", ErrNoIdentity
	}
	ids := make([]age.Identity, len(identities))
	for i, id := range identities {
		ids[i] = telling{id.age(), func() { by = id.Recipient().Fingerprint() }}
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(message)), ids...)
	if err != nil {
		return nil, "", err
	}
	key, err = io.ReadAll(io.LimitReader(r, dataKeyBytes+1))
	return key, by, err
}

// telling is an identity that says when it opened something.
type telling struct {
	age.Identity
	opened func()
}

func (t telling) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	key, err := t.Identity.Unwrap(stanzas)
	if err == nil {
		t.opened()
	}
	return key, err
}

func (localKeys) Encrypt(_ context.Context, req *keyservice.EncryptRequest) (*keyservice.EncryptResponse, error) {
	k, ok := req.Key.KeyType.(*keyservice.Key_AgeKey)
	if !ok {
		return nil, errUnsupportedKey
	}
	rec, err := ParseRecipient(k.AgeKey.Recipient)
	if err != nil {
		return nil, err
	}
	wrapped, err := wrapAge(rec, req.Plaintext)
	if err != nil {
		return nil, err
	}
	return &keyservice.EncryptResponse{Ciphertext: wrapped}, nil
}

// wrapAge seals a data key to one recipient.
func wrapAge(to Recipient, key []byte) ([]byte, error) {
	var buf bytes.Buffer
	aw := armor.NewWriter(&buf)
	w, err := age.Encrypt(aw, to.age)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(key); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), aw.Close()); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (s localKeys) clients() []keyservice.KeyServiceClient {
	return []keyservice.KeyServiceClient{keyservice.NewCustomLocalClient(localService{s})}
}

// localService adds what the generated server interface wants.
type localService struct{ localKeys }

// wantedKeys names every key that the file is sealed to, and says whether one
// of them is of a kind that could be opened here.
func wantedKeys(m sops.Metadata) (names []string, supported bool) {
	for _, group := range m.KeyGroups {
		for _, k := range group {
			switch k := k.(type) {
			case *sopsage.MasterKey:
				if _, err := ParseRecipient(k.Recipient); err != nil { // a plugin is a program
					names = append(names, RecipientFingerprint(k.Recipient)+" (age plugins and SSH keys are not supported)")
					continue
				}
				names, supported = append(names, RecipientFingerprint(k.Recipient)), true
			case *pgp.MasterKey:
				names, supported = append(names, "pgp "+k.Fingerprint), true
			default:
				names = append(names, k.TypeToIdentifier()+" "+k.ToString()+" (not supported)")
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), supported
}

// listedKeys names every key of the groups in full: an age recipient as it is,
// others by their kind.
func listedKeys(groups []sops.KeyGroup) []string {
	var out []string
	for _, group := range groups {
		for _, k := range group {
			switch k := k.(type) {
			case *sopsage.MasterKey:
				out = append(out, k.Recipient)
			case *pgp.MasterKey:
				out = append(out, "pgp "+k.Fingerprint)
			default:
				out = append(out, k.TypeToIdentifier()+" "+k.ToString())
			}
		}
	}
	return out
}

// groupsNeeded is how many key groups of a file must be held: the threshold of
// Shamir's secret sharing, or all.
func groupsNeeded(m sops.Metadata) int {
	if m.ShamirThreshold > 0 {
		return m.ShamirThreshold
	}
	return len(m.KeyGroups)
}
