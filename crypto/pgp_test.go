package crypto

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	"github.com/getsops/sops/v3/pgp"
)

func pgpEntity(t *testing.T, c *packet.Config) (*openpgp.Entity, Secret) {
	t.Helper()
	e, err := openpgp.NewEntity("somebody", "", "who@example.com", c)
	if err != nil {
		t.Fatal(err)
	}
	return e, armored(t, openpgp.PrivateKeyType, func(w *bytes.Buffer) error { return e.SerializePrivateWithoutSigning(w, nil) })
}

func armored(t *testing.T, kind string, write func(*bytes.Buffer) error) Secret {
	t.Helper()
	var raw, out bytes.Buffer
	if err := write(&raw); err != nil {
		t.Fatal(err)
	}
	w, err := armor.Encode(&out, kind, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return NewSecret(out.Bytes())
}

// sealPGP seals as stock sops does, with a key service that has OpenPGP.
func sealPGP(t *testing.T, plain string, e *openpgp.Entity) []byte {
	t.Helper()
	branches, err := YAML.store().LoadPlainFile([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	dataKey := make([]byte, dataKeyBytes)
	if _, err := rand.Read(dataKey); err != nil {
		t.Fatal(err)
	}
	message := armored(t, "PGP MESSAGE", func(buf *bytes.Buffer) error {
		w, err := openpgp.Encrypt(buf, []*openpgp.Entity{e}, nil, &openpgp.FileHints{IsBinary: true}, nil)
		if err != nil {
			return err
		}
		_, err = w.Write(dataKey)
		return errors.Join(err, w.Close())
	})
	key := &pgp.MasterKey{Fingerprint: strings.ToUpper(hex.EncodeToString(e.PrimaryKey.Fingerprint)), EncryptedKey: string(message.Reveal()), CreationDate: testTime}
	tree := sops.Tree{Branches: branches, Metadata: sops.Metadata{
		KeyGroups: []sops.KeyGroup{{key}}, EncryptedRegex: "^(data|stringData)$", LastModified: testTime, Version: sopsVersion,
	}}
	cipher := aes.NewCipher()
	mac, err := tree.Encrypt(dataKey, cipher)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Metadata.MessageAuthenticationCode, err = cipher.Encrypt(mac, dataKey, testTime.Format(time.RFC3339)); err != nil {
		t.Fatal(err)
	}
	out, err := YAML.store().EmitEncryptedFile(tree)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOpenPGPKeysOpenWhatWasSealedToThem(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*packet.Config{
		"RSA":        {Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048},
		"Curve25519": {Algorithm: packet.PubKeyAlgoEdDSA},
		"version 6":  {Algorithm: packet.PubKeyAlgoEd25519, V6Keys: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, private := pgpEntity(t, c)
			_, other := pgpEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
			keys, err := ParsePGPKeys(NewSecret(append(append(other.Reveal(), '\n'), private.Reveal()...)))
			if err != nil || len(keys) != 2 {
				t.Fatal(len(keys), err)
			}
			file := sealPGP(t, secretDoc("a", "hunter2"), e)
			f, err := OpenSOPS(OpenRequest{File: file, Format: YAML, Keys: Keyring{Identities: []Identity{testIdentity(t)}, PGPKeys: keys}})
			if err != nil || string(f.Leaves[0].Text.Reveal()) != "hunter2" {
				t.Fatalf("got %v", err)
			}
			_, err = OpenSOPS(OpenRequest{File: file, Format: YAML, Keys: Keyring{PGPKeys: keys[:1]}})
			var nk *NoKeyError
			if !errors.As(err, &nk) || nk.Unsupported || !strings.Contains(err.Error(), "pgp "+keys[1].Fingerprint()) || !strings.Contains(err.Error(), "held: pgp "+keys[0].Fingerprint()) {
				t.Errorf("got %v, want both fingerprints", err)
			}
		})
	}
}

func TestOpenPGPKeysThatCanNotBeUsedAreRefused(t *testing.T) {
	t.Parallel()
	e, private := pgpEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	public := armored(t, openpgp.PublicKeyType, func(w *bytes.Buffer) error { return e.Serialize(w) })
	wrong := armored(t, openpgp.PrivateKeyType, func(w *bytes.Buffer) error { return e.Serialize(w) })
	if err := e.EncryptPrivateKeys([]byte("hunter2"), nil); err != nil {
		t.Fatal(err)
	}
	locked := armored(t, openpgp.PrivateKeyType, func(w *bytes.Buffer) error { return e.SerializePrivateWithoutSigning(w, nil) })
	for name, c := range map[string]struct {
		file Secret
		want string
	}{
		"nothing":                         {NewSecretString(""), "not an armored"},
		"no key":                          {NewSecretString("hunter2"), "not an armored"},
		"a public key":                    {public, "not an armored OpenPGP private key"},
		"a public key that says private":  {wrong, "only its public half"},
		"with a passphrase":               {locked, "passphrase"},
		"cut":                             {NewSecret(private.Reveal()[:len(private.Reveal())/2]), "can not be read"},
		"too large":                       {NewSecret(make([]byte, MaxPGPFile+1)), "larger than"},
		"a good one, then something else": {NewSecret(append(append(private.Reveal(), '\n'), public.Reveal()...)), "not an armored"},
	} {
		keys, err := ParsePGPKeys(c.file)
		if err == nil || keys != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestOpenPGPKeysNeverPrint(t *testing.T) {
	t.Parallel()
	_, private := pgpEntity(t, &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	keys, err := ParsePGPKeys(private)
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %#v %q", keys[0], keys[0], keys[0], keys[0]); strings.ReplaceAll(s, Redacted, "") != "   " {
		t.Errorf("it prints as %s", s)
	}
	if _, err := json.Marshal(Keyring{PGPKeys: keys}); !errors.Is(err, ErrSecretEncode) {
		t.Errorf("it is encoded: %v", err)
	}
}
