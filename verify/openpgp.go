package verify

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const pgpPublicArmor = "PGP PUBLIC KEY BLOCK"

// maxClockSkew is how far ahead of ours the clock of a signer may be.
const maxClockSkew = 5 * time.Minute

// Tags of packets, RFC 9580 section 5.
const (
	tagSignature     = 2
	tagSecretKey     = 5
	tagPublicKey     = 6
	tagSecretSubkey  = 7
	tagMarker        = 10
	tagTrust         = 12
	tagUserID        = 13
	tagPublicSubkey  = 14
	tagUserAttribute = 17
	tagPadding       = 21
)

// certificate is an OpenPGP public key with its subkeys. It is read anew for each
// signature: the library notes in what it read what was valid at the first time
// that somebody asked.
type certificate struct {
	ids     []uint64 // of the primary key and all subkeys
	packets []byte
}

func (c certificate) read() (*openpgp.Entity, error) {
	e, err := openpgp.ReadEntity(packet.NewReader(bytes.NewReader(c.packets)))
	if err != nil {
		return nil, errors.New("an OpenPGP key can not be read")
	}
	return e, nil
}

func dearmorCertificates(lines []string) ([]certificate, error) {
	trimmed := make([]string, len(lines))
	for i, line := range lines {
		trimmed[i] = strings.TrimSpace(line)
	}
	body, err := pgpArmorBody(trimmed)
	if err != nil {
		return nil, errors.New("the armor of the OpenPGP key is malformed")
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(body, ""))
	if err != nil {
		return nil, errors.New("the armor of the OpenPGP key is malformed")
	}
	return readCertificates(data)
}

// readCertificates takes all of data or nothing; the library's own way skips what
// it does not understand.
func readCertificates(data []byte) ([]certificate, error) {
	var out []certificate
	r := packet.NewOpaqueReader(bytes.NewReader(data))
	var buf *bytes.Buffer
	flush := func() error {
		if buf == nil {
			return nil
		}
		c := certificate{packets: bytes.Clone(buf.Bytes())}
		e, err := c.read()
		if err != nil {
			return err
		}
		c.ids = append(c.ids, e.PrimaryKey.KeyId)
		for _, s := range e.Subkeys {
			c.ids = append(c.ids, s.PublicKey.KeyId)
		}
		out = append(out, c)
		return nil
	}
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.New("an OpenPGP key can not be read")
		}
		switch p.Tag {
		case tagSecretKey, tagSecretSubkey:
			return nil, errPrivateKey
		case tagPublicKey:
			if err := flush(); err != nil {
				return nil, err
			}
			buf = &bytes.Buffer{}
		case tagMarker, tagTrust, tagPadding:
			continue
		case tagSignature, tagUserID, tagPublicSubkey, tagUserAttribute:
		default:
			return nil, errors.New("this is OpenPGP, but no public key")
		}
		if buf == nil {
			return nil, errors.New("this is OpenPGP, but no public key")
		}
		if err := p.Serialize(buf); err != nil {
			return nil, errors.New("an OpenPGP key can not be read")
		}
	}
	return out, flush()
}

// pgpSigner verifies one detached signature. First comes whether it fits, then
// whether the key counts: so that a *KeyError can not be had by naming a key.
func (k Keys) pgpSigner(payload, body []byte, now time.Time) (Signer, error) {
	sig, err := parsePGPSignature(body)
	if err != nil {
		return Signer{}, err
	}
	var bad error = &UnknownSignerError{Kind: OpenPGP, KeyID: pgpIssuer(sig)}
	var good *Signer
	for _, c := range k.certificates {
		if !slices.Contains(c.ids, *sig.IssuerKeyId) {
			continue
		}
		e, err := c.read()
		if err != nil {
			return Signer{}, err
		}
		s, err := checkPGP(e, sig, payload, now)
		var key *KeyError
		switch {
		case err == nil:
			good = &s
		case errors.As(err, &key) && key.Fault == Revoked:
			return Signer{}, err // another copy may be older
		default:
			if !errors.Is(bad, ErrBadSignature) && !errors.As(bad, new(*KeyError)) {
				bad = err
			}
		}
	}
	if good != nil {
		return *good, nil
	}
	return Signer{}, bad
}

// parsePGPSignature takes one signature packet and nothing beside it.
func parsePGPSignature(body []byte) (*packet.Signature, error) {
	r := packet.NewOpaqueReader(bytes.NewReader(body))
	first, err := r.Next()
	if err != nil || first.Tag != tagSignature {
		return nil, refuse("it is malformed")
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		return nil, refuse("there are several, or something follows it")
	}
	p, err := first.Parse()
	sig, ok := p.(*packet.Signature)
	if err != nil || !ok || sig.IssuerKeyId == nil {
		return nil, refuse("it is malformed, names no key, or asks for something unknown")
	}
	switch {
	case sig.Version != 4 && sig.Version != 6:
		return nil, refuse("it is of version %d of OpenPGP signatures", sig.Version)
	case sig.SigType != packet.SigTypeBinary:
		return nil, refuse("it is of another type than a signature of a file")
	case !slices.Contains(pgpHashes, sig.Hash):
		return nil, refuse("its hash is %s", sig.Hash)
	}
	for _, n := range sig.Notations {
		if n.IsCritical {
			return nil, refuse("it asks for something unknown")
		}
	}
	return sig, nil
}

var pgpHashes = []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA3_256, crypto.SHA3_512}

func pgpIssuer(sig *packet.Signature) string {
	if len(sig.IssuerFingerprint) > 0 {
		return fingerprint(sig.IssuerFingerprint)
	}
	return fmt.Sprintf("%016X", *sig.IssuerKeyId)
}

func fingerprint(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// checkPGP verifies sig with the key of e that it names.
func checkPGP(e *openpgp.Entity, sig *packet.Signature, payload []byte, now time.Time) (Signer, error) {
	keys := []*packet.PublicKey{e.PrimaryKey}
	for _, s := range e.Subkeys {
		keys = append(keys, s.PublicKey)
	}
	var err error = &UnknownSignerError{Kind: OpenPGP, KeyID: pgpIssuer(sig)}
	for _, key := range keys {
		if key.KeyId != *sig.IssuerKeyId || len(sig.IssuerFingerprint) > 0 && !bytes.Equal(key.Fingerprint, sig.IssuerFingerprint) {
			continue
		}
		h, prepareErr := sig.PrepareVerify()
		if prepareErr != nil {
			return Signer{}, refuse("its hash is %s", sig.Hash)
		}
		_, _ = h.Write(payload) // a hash never fails
		if key.VerifySignature(h, sig) != nil {
			err = ErrBadSignature
			continue
		}
		return judgePGP(e, key, sig, now)
	}
	return Signer{}, err
}

// judgePGP says whether a key of e counts, now.
func judgePGP(e *openpgp.Entity, key *packet.PublicKey, sig *packet.Signature, now time.Time) (Signer, error) {
	at := now
	if sig.CreationTime.After(at) {
		if at = sig.CreationTime; at.After(now.Add(maxClockSkew)) {
			return Signer{}, refuse("it is dated %s, in the future", at.UTC().Format(time.RFC3339))
		}
	}
	switch {
	case sig.SigExpired(at):
		return Signer{}, refuse("the signature itself expired")
	case sig.CreationTime.Before(key.CreationTime):
		return Signer{}, refuse("it is older than its key")
	}
	fault := func(f Fault) error {
		return &KeyError{Kind: OpenPGP, KeyID: fingerprint(key.Fingerprint), Fault: f, At: at}
	}
	config := &packet.Config{Time: func() time.Time { return at }}
	if e.Revoked(at) { // also without a user id that counts
		return Signer{}, fault(Revoked)
	}
	if key.CreationTime.After(at) {
		return Signer{}, fault(NotYetValid)
	}
	_, err := e.VerifyPrimaryKey(at, config)
	if err == nil && key != e.PrimaryKey {
		for _, s := range e.Subkeys {
			if s.PublicKey == key {
				_, err = s.Verify(at, config)
			}
		}
	}
	switch {
	case errors.Is(err, pgperrors.ErrKeyRevoked):
		return Signer{}, fault(Revoked)
	case errors.Is(err, pgperrors.ErrKeyExpired):
		return Signer{}, fault(Expired)
	case err != nil:
		return Signer{}, fault(Unfit)
	}
	if fit, ok := e.SigningKeyById(at, key.KeyId, config); !ok || fit.PublicKey != key {
		return Signer{}, fault(Unfit)
	}
	s := Signer{Kind: OpenPGP, Fingerprint: fingerprint(key.Fingerprint), Primary: fingerprint(e.PrimaryKey.Fingerprint)}
	s.Identity = userID(e, at, config)
	return s, nil
}

// userID is the user id that is marked as primary, else the newest, else the
// first by name.
func userID(e *openpgp.Entity, at time.Time, config *packet.Config) string {
	var best string
	var bestSig *packet.Signature
	for _, name := range sortedKeys(e.Identities) {
		sig, err := e.Identities[name].Verify(at, config)
		if err != nil {
			continue
		}
		primary := func(s *packet.Signature) bool { return s.IsPrimaryId != nil && *s.IsPrimaryId }
		if bestSig == nil || primary(sig) && !primary(bestSig) ||
			primary(sig) == primary(bestSig) && sig.CreationTime.After(bestSig.CreationTime) {
			best, bestSig = name, sig
		}
	}
	return best
}
