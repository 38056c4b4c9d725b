package crypto

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// MaxPGPFile is the most that ParsePGPKeys reads, in bytes.
const MaxPGPFile = 1 << 20

// PGPKey is an OpenPGP private key, for files that were sealed before gitseal
// came. It only opens; nothing is sealed to it. Like a Secret, it prints as
// [redacted].
type PGPKey struct {
	entity      func() *openpgp.Entity // a closure, for the reason given at Secret
	fingerprint string
}

// ParsePGPKeys reads armored private keys, as `gpg --armor --export-secret-keys`
// writes them. A key with a passphrase is refused: nobody could type it.
// Errors never repeat the input.
func ParsePGPKeys(file Secret) ([]PGPKey, error) {
	if len(file.Reveal()) > MaxPGPFile {
		return nil, fmt.Errorf("OpenPGP key file is larger than %d bytes", MaxPGPFile)
	}
	var out []PGPKey
	rest := bufio.NewReader(bytes.NewReader(file.Reveal())) // armor reads ahead, unless it is handed a bufio.Reader
	for {
		block, err := armor.Decode(rest)
		if errors.Is(err, io.EOF) && len(out) > 0 {
			return out, nil
		}
		if err != nil || block.Type != openpgp.PrivateKeyType {
			return nil, errors.New("not an armored OpenPGP private key (expected -----BEGIN PGP PRIVATE KEY BLOCK-----)")
		}
		entities, err := openpgp.ReadKeyRing(block.Body)
		if err != nil || len(entities) == 0 {
			return nil, errors.New("the OpenPGP private key can not be read")
		}
		for _, e := range entities {
			k, err := newPGPKey(e)
			if err != nil {
				return nil, err
			}
			out = append(out, k)
		}
	}
}

func newPGPKey(e *openpgp.Entity) (PGPKey, error) {
	fingerprint := fingerprintOf(e)
	if e.PrivateKey == nil {
		return PGPKey{}, fmt.Errorf("OpenPGP key %s: only its public half is there", fingerprint)
	}
	locked := e.PrivateKey.Encrypted
	for _, s := range e.Subkeys {
		locked = locked || s.PrivateKey != nil && s.PrivateKey.Encrypted
	}
	if locked {
		return PGPKey{}, fmt.Errorf("OpenPGP key %s is protected by a passphrase; export it without one", fingerprint)
	}
	return PGPKey{entity: func() *openpgp.Entity { return e }, fingerprint: fingerprint}, nil
}

// Fingerprint of the primary key, in upper-case hex.
func (k PGPKey) Fingerprint() string { return k.fingerprint }

// Format implements fmt.Formatter: a private key never prints.
func (PGPKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) } // fmt has no way to report it

// MarshalJSON always fails with ErrSecretEncode.
func (PGPKey) MarshalJSON() ([]byte, error) { return nil, ErrSecretEncode }

func fingerprintOf(e *openpgp.Entity) string {
	return strings.ToUpper(hex.EncodeToString(e.PrimaryKey.Fingerprint))
}

// openPGP opens an armored message in this process; no gpg is run.
func openPGP(keys []PGPKey, message []byte) (key []byte, by string, err error) {
	block, err := armor.Decode(bytes.NewReader(message))
	if err != nil {
		return nil, "", err
	}
	ring := make(openpgp.EntityList, len(keys))
	for i, k := range keys {
		ring[i] = k.entity()
	}
	m, err := openpgp.ReadMessage(block.Body, ring, nil, nil)
	if err != nil {
		return nil, "", err
	}
	if with := m.DecryptedWith.Entity; with != nil {
		by = "pgp " + fingerprintOf(with)
	}
	key, err = io.ReadAll(io.LimitReader(m.UnverifiedBody, dataKeyBytes+1))
	return key, by, err
}

// digestOf is the same for the same texts in any order.
func digestOf(texts []string) string {
	sorted := slices.Sorted(slices.Values(texts))
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\x00")))
	return hex.EncodeToString(sum[:16])
}
