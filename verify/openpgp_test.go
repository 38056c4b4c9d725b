package verify

import (
	"bytes"
	"crypto"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

func TestOpenPGPSignatures(t *testing.T) {
	t.Parallel()
	ada, eve := newPGP(t, "Ada", 0), newPGP(t, "Eve", 0)
	short := newPGP(t, "Short", 7*24*60*60)  // was valid when it signed, is not now
	tomorrow := newPGP(t, "Tomorrow", year)  // still valid
	subkeyed := newPGP(t, "Subkeyed", 0)     // has a second signing key
	revoked := newPGP(t, "Revoked", 0)       // compromised
	retired := newPGP(t, "Retired", 0)       // no longer used
	lostSubkey := newPGP(t, "LostSubkey", 0) // only its signing subkey is revoked
	for _, k := range []pgpKey{subkeyed, lostSubkey} {
		if err := k.AddSigningSubkey(pgpConfig(made.Add(-time.Minute))); err != nil {
			t.Fatal(err)
		}
	}
	signing := func(k pgpKey) *openpgp.Subkey { return &k.Subkeys[len(k.Subkeys)-1] }
	if err := errors.Join(
		revoked.Revoke(packet.KeyCompromised, "", pgpConfig(now.Add(-time.Hour))),
		retired.Revoke(packet.KeyRetired, "", pgpConfig(now.Add(-time.Hour))),
		signing(lostSubkey).Revoke(packet.KeyRetired, "", pgpConfig(now.Add(-time.Hour))),
	); err != nil {
		t.Fatal(err)
	}
	plain := func(*packet.Signature) *packet.PrivateKey { return nil }
	expiresAfter := func(seconds uint32) func(*packet.Signature) *packet.PrivateKey {
		return func(s *packet.Signature) *packet.PrivateKey { s.SigLifetimeSecs = &seconds; return nil }
	}
	dated := func(when time.Time) func(*packet.Signature) *packet.PrivateKey {
		return func(s *packet.Signature) *packet.PrivateKey { s.CreationTime = when; return nil }
	}
	with := func(k *packet.PrivateKey) func(*packet.Signature) *packet.PrivateKey {
		return func(*packet.Signature) *packet.PrivateKey { return k }
	}
	tests := map[string]struct {
		by     pgpKey
		change func(*packet.Signature) *packet.PrivateKey
		want   error // ErrRefused stands for itself, a *KeyError for its fault
		text   string
	}{
		"a good one":                     {ada, plain, nil, ""},
		"a good one by a subkey":         {subkeyed, with(signing(subkeyed).PrivateKey), nil, ""},
		"by the primary beside a subkey": {subkeyed, plain, nil, ""},
		"by a key that will expire":      {tomorrow, plain, nil, ""},
		"a clock two minutes ahead":      {ada, dated(now.Add(2 * time.Minute)), nil, ""},
		"SHA-512":                        {ada, func(s *packet.Signature) *packet.PrivateKey { s.Hash = crypto.SHA512; return nil }, nil, ""},
		"by a stranger":                  {eve, plain, &UnknownSignerError{}, "which is not trusted"},
		"by a key that expired since":    {short, plain, &KeyError{Fault: Expired}, "expired at 2026-06-01T12:00:00Z"},
		"by a compromised key":           {revoked, plain, &KeyError{Fault: Revoked}, "which is revoked"},
		"by a retired key, made before":  {retired, plain, &KeyError{Fault: Revoked}, "which is revoked"},
		"by a revoked subkey":            {lostSubkey, with(signing(lostSubkey).PrivateKey), &KeyError{Fault: Revoked}, "which is revoked"},
		"by the primary of such":         {lostSubkey, plain, nil, ""},
		"that expired itself":            {ada, expiresAfter(60), ErrRefused, "the signature itself expired"},
		"dated in the future":            {ada, dated(now.Add(time.Hour)), ErrRefused, "in the future"},
		"older than its key":             {ada, dated(made.Add(-2 * time.Hour)), ErrRefused, "older than its key"},
		"SHA-224":                        {ada, func(s *packet.Signature) *packet.PrivateKey { s.Hash = crypto.SHA224; return nil }, ErrRefused, ""},
		"of a text":                      {ada, func(s *packet.Signature) *packet.PrivateKey { s.SigType = packet.SigTypeText; return nil }, ErrRefused, "another type"},
		"with a critical notation":       {ada, func(s *packet.Signature) *packet.PrivateKey { s.Notations = critical(); return nil }, ErrRefused, "something unknown"},
	}
	trusted := map[string][]byte{"all.gpg": bytes.Join([][]byte{ada.binary(t), short.binary(t), tomorrow.binary(t)}, nil)}
	for name, k := range map[string]pgpKey{"subkeyed.asc": subkeyed, "revoked": revoked, "retired": retired, "lost": lostSubkey} {
		trusted[name] = k.public(t)
	}
	keys := mustParse(t, trusted)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sign := tt.by.sign(t, tt.change)
			commit := signedCommit(sign)
			for what, verify := range map[string]func() (Signer, error){
				"commit": func() (Signer, error) { return keys.Commit(commit, now) },
				"tag":    func() (Signer, error) { return keys.Tag(signedTag(commit, "v1", sign), now) },
			} {
				signer, err := verify()
				checkVerdict(t, err, tt.want, tt.text)
				if err != nil {
					if signer != (Signer{}) || !strings.HasPrefix(err.Error(), what+": ") {
						t.Errorf("got %v beside %v, want nothing beside an error of the %s", signer, err, what)
					}
					continue
				}
				key := tt.by.PrimaryKey
				if k := tt.change(&packet.Signature{}); k != nil {
					key = &k.PublicKey
				}
				want := Signer{Kind: OpenPGP, Fingerprint: fingerprint(key.Fingerprint), Primary: fingerprint(tt.by.PrimaryKey.Fingerprint), Identity: sortedKeys(tt.by.Identities)[0]}
				if signer != want || !strings.Contains(signer.Identity, "@example.com>") {
					t.Errorf("got %+v, want %+v", signer, want)
				}
			}
			if tt.want != nil {
				return
			}
			for what, altered := range map[string][]byte{
				"message":   bytes.Replace(commit, []byte("a body"), []byte("a bodY"), 1),
				"tree":      bytes.Replace(commit, []byte(treeHash), []byte(parentHash), 1),
				"committer": bytes.Replace(commit, []byte("+0200"), []byte("+0300"), 1),
				"a header":  bytes.Replace(commit, []byte("gpgsig "), []byte("encoding x\ngpgsig "), 1),
			} {
				if _, err := keys.Commit(altered, now); !errors.Is(err, ErrBadSignature) {
					t.Errorf("%s altered: got %v, want ErrBadSignature", what, err)
				}
			}
		})
	}
}

func critical() []*packet.Notation {
	return []*packet.Notation{{Name: "x@example.com", Value: []byte("1"), IsCritical: true, IsHumanReadable: true}}
}

func checkVerdict(t *testing.T, err, want error, text string) {
	t.Helper()
	switch want := want.(type) {
	case nil:
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
	case *KeyError:
		var got *KeyError
		if !errors.As(err, &got) || got.Fault != want.Fault || got.KeyID == "" || got.At.IsZero() {
			t.Errorf("got %v, want a KeyError: %s", err, want.Fault)
		}
	case *UnknownSignerError:
		var got *UnknownSignerError
		if !errors.As(err, &got) || got.KeyID == "" || got.Kind == "" {
			t.Errorf("got %v, want an UnknownSignerError", err)
		}
	default:
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err != nil && !strings.Contains(err.Error(), text) {
		t.Errorf("got %q, want it to say %q", err, text)
	}
}

// A key without the flag to sign, as those for encryption or certification only.
func TestOpenPGPKeyThatMayNotSign(t *testing.T) {
	t.Parallel()
	ada := newPGP(t, "Ada", 0)
	for _, id := range ada.Identities {
		sig := id.SelfCertifications[0].Packet
		sig.FlagSign = false
		if err := sig.SignUserId(id.Name, ada.PrimaryKey, ada.PrivateKey, pgpConfig(made)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := ada.keys(t).Commit(signedCommit(ada.sign(t, nil)), now)
	checkVerdict(t, err, &KeyError{Fault: Unfit}, "which is not fit to sign")
}

func TestOpenPGPWeakKey(t *testing.T) {
	t.Parallel()
	config := pgpConfig(made.Add(-time.Hour))
	config.Algorithm, config.RSABits = packet.PubKeyAlgoRSA, 1024
	e, err := openpgp.NewEntity("Weak", "", "weak@example.com", config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = pgpKey{e}.keys(t).Commit(signedCommit(pgpKey{e}.sign(t, nil)), now)
	checkVerdict(t, err, &KeyError{Fault: Unfit}, "which is not fit to sign")
}

// Whoever puts the same key into two entries, one of them older, means all that
// both say.
func TestOpenPGPCopiesOfOneKey(t *testing.T) {
	t.Parallel()
	ada := newPGP(t, "Ada", 7*24*60*60)
	expired := ada.public(t)
	commit := signedCommit(ada.sign(t, nil))
	for _, id := range ada.Identities {
		sig := *id.SelfCertifications[0].Packet
		longer := uint32(10 * year)
		sig.KeyLifetimeSecs, sig.CreationTime = &longer, made.Add(time.Hour)
		if err := sig.SignUserId(id.Name, ada.PrimaryKey, ada.PrivateKey, pgpConfig(made.Add(time.Hour))); err != nil {
			t.Fatal(err)
		}
		id.SelfCertifications = []*packet.VerifiableSignature{packet.NewVerifiableSig(&sig)}
	}
	renewed := ada.public(t)
	if err := ada.Revoke(packet.KeyRetired, "", pgpConfig(now.Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}
	revoked := ada.public(t)
	for _, id := range ada.Identities {
		sig := id.SelfCertifications[0].Packet
		gone := uint32(60)
		sig.SigLifetimeSecs = &gone
		if err := sig.SignUserId(id.Name, ada.PrimaryKey, ada.PrivateKey, pgpConfig(made)); err != nil {
			t.Fatal(err)
		}
	}
	nobody := ada.public(t)
	for name, tt := range map[string]struct {
		data map[string][]byte
		want error
	}{
		"expired":               {map[string][]byte{"a": expired}, &KeyError{Fault: Expired}},
		"renewed":               {map[string][]byte{"a": renewed}, nil},
		"expired, then renewed": {map[string][]byte{"a": expired, "b": renewed}, nil},
		"renewed, then expired": {map[string][]byte{"b": expired, "a": renewed}, nil},
		"renewed, then revoked": {map[string][]byte{"a": renewed, "b": revoked}, &KeyError{Fault: Revoked}},
		"revoked with its name": {map[string][]byte{"a": nobody}, &KeyError{Fault: Revoked}},
		"and then renewed":      {map[string][]byte{"a": nobody, "b": renewed}, &KeyError{Fault: Revoked}},
		"revoked, then renewed": {map[string][]byte{"b": renewed, "a": revoked}, &KeyError{Fault: Revoked}},
	} {
		_, err := mustParse(t, tt.data).Commit(commit, now)
		t.Run(name, func(t *testing.T) { checkVerdict(t, err, tt.want, "") })
	}
}

func TestOpenPGPSignaturesOfAnotherForm(t *testing.T) {
	t.Parallel()
	ada := newPGP(t, "Ada", 0)
	keys := ada.keys(t)
	tests := map[string]struct {
		sign func(payload string) string
		text string
	}{
		"two packets": {func(p string) string {
			one := ada.packetOf(t, p, nil)
			return string(armored(t, openpgp.SignatureType, append(one, one...)))
		}, "there are several"},
		"a packet that is unknown behind it": {func(p string) string {
			return string(armored(t, openpgp.SignatureType, append(ada.packetOf(t, p, nil), 0xfc, 1, 0)))
		}, "something follows it"},
		"half a packet behind it": {func(p string) string {
			return string(armored(t, openpgp.SignatureType, append(ada.packetOf(t, p, nil), 0xc2)))
		}, "something follows it"},
		"cut short": {func(p string) string {
			one := ada.packetOf(t, p, nil)
			return string(armored(t, openpgp.SignatureType, one[:len(one)-3]))
		}, "malformed"},
		"a key instead":    {func(string) string { return string(armored(t, openpgp.SignatureType, ada.binary(t))) }, "malformed"},
		"nothing":          {func(string) string { return string(armored(t, openpgp.SignatureType, nil)) }, "malformed"},
		"two blocks":       {func(p string) string { return ada.sign(t, nil)(p) + ada.sign(t, nil)(p) }, "several signatures"},
		"text before":      {func(p string) string { return "x\n" + ada.sign(t, nil)(p) }, "neither an OpenPGP nor an SSH signature"},
		"text behind":      {func(p string) string { return ada.sign(t, nil)(p) + "x\n" }, "something follows it"},
		"of S/MIME":        {func(string) string { return "-----BEGIN SIGNED MESSAGE-----\nAAAA\n-----END SIGNED MESSAGE-----\n" }, "neither an OpenPGP nor an SSH signature"},
		"an armored key":   {func(string) string { return string(ada.public(t)) }, "neither an OpenPGP nor an SSH signature"},
		"no blank line":    {func(p string) string { return strings.Replace(ada.sign(t, nil)(p), "\n\n", "\n", 1) }, "malformed"},
		"not base64":       {func(p string) string { return strings.Replace(ada.sign(t, nil)(p), "\n\n", "\n\n!", 1) }, "malformed"},
		"much too large":   {func(string) string { return string(armored(t, openpgp.SignatureType, make([]byte, maxSignatureBytes))) }, "larger than 65536 bytes"},
		"mixed with ssh's": {func(p string) string { return strings.ReplaceAll(ada.sign(t, nil)(p), "PGP", "SSH") }, "malformed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := keys.Commit(signedCommit(tt.sign), now)
			checkVerdict(t, err, ErrRefused, tt.text)
		})
	}
	// GitHub ends what it signs with an empty line.
	commit := signedCommit(func(p string) string { return ada.sign(t, nil)(p) + "\n\n" })
	if _, err := keys.Commit(commit, now); err != nil || !bytes.Contains(commit, []byte("\n \n")) {
		t.Errorf("an empty line behind it: got %v", err)
	}
}

func TestKeysAreSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	ada := newPGP(t, "Ada", 0)
	keys := ada.keys(t)
	commit := signedCommit(ada.sign(t, nil))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			at := now.Add(time.Duration(i-4) * 24 * 365 * time.Hour) // of which the first are before the key
			if _, err := keys.Commit(commit, at); (err == nil) != (i >= 4) {
				t.Errorf("judged at %s: %v", at, err)
			}
		})
	}
	wg.Wait()
}
