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

// ageOnly is a key service that opens and wraps data keys with age and nothing
// else. The metadata of a file in git picks the kind of key and, for KMS and
// Vault, the address that would be called: those are refused here, before any
// network use. It never falls back to keys of the environment.
type ageOnly struct{ identities []Identity }

func (s ageOnly) Decrypt(_ context.Context, req *keyservice.DecryptRequest) (*keyservice.DecryptResponse, error) {
	if _, ok := req.Key.KeyType.(*keyservice.Key_AgeKey); !ok {
		return nil, errUnsupportedKey
	}
	if len(s.identities) == 0 {
		return nil, ErrNoIdentity
	}
	ids := make([]age.Identity, len(s.identities))
	for i, id := range s.identities {
		ids[i] = id.age()
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(req.Ciphertext)), ids...)
	if err != nil {
		return nil, err
	}
	key, err := io.ReadAll(io.LimitReader(r, dataKeyBytes+1))
	if err != nil {
		return nil, err
	}
	return &keyservice.DecryptResponse{Plaintext: key}, nil
}

func (ageOnly) Encrypt(_ context.Context, req *keyservice.EncryptRequest) (*keyservice.EncryptResponse, error) {
	k, ok := req.Key.KeyType.(*keyservice.Key_AgeKey)
	if !ok {
		return nil, errUnsupportedKey
	}
	rec, err := ParseRecipient(k.AgeKey.Recipient)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	aw := armor.NewWriter(&buf)
	w, err := age.Encrypt(aw, rec.age)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(req.Plaintext); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), aw.Close()); err != nil {
		return nil, err
	}
	return &keyservice.EncryptResponse{Ciphertext: buf.Bytes()}, nil
}

func (s ageOnly) clients() []keyservice.KeyServiceClient {
	return []keyservice.KeyServiceClient{keyservice.NewCustomLocalClient(ageService{s})}
}

// ageService adds what the generated server interface wants.
type ageService struct{ ageOnly }

// wantedKeys names every key that the file is sealed to.
func wantedKeys(m sops.Metadata) []string {
	var out []string
	for _, group := range m.KeyGroups {
		for _, k := range group {
			switch k := k.(type) {
			case *sopsage.MasterKey:
				out = append(out, RecipientFingerprint(k.Recipient))
			default:
				out = append(out, k.TypeToIdentifier()+" "+k.ToString()+" (not supported)")
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func heldKeys(ids []Identity) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.Recipient().Fingerprint()
	}
	return out
}
