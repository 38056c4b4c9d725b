package verify

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// now is when the tests judge, and made when most of what they judge was made.
var (
	now  = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	made = now.Add(-30 * 24 * time.Hour)
)

const year = 365 * 24 * 60 * 60 // seconds

const (
	treeHash   = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
	parentHash = "1111111111111111111111111111111111111111"
)

// headersAt are the headers of a commit that was made at when.
func headersAt(when time.Time) string {
	return fmt.Sprintf("tree %s\nparent %s\nauthor Ada <ada@example.com> 1714979289 +0000\ncommitter Bob <bob@example.com> %d +0200\n", treeHash, parentHash, when.Unix())
}

const message = "\na subject\n\nand a body\n"

// withHeader puts a header with continuation lines after the others.
func withHeader(headers, key, value string) string {
	return headers + key + " " + strings.ReplaceAll(strings.TrimSuffix(value, "\n"), "\n", "\n ") + "\n"
}

// signedCommit is a commit of made that sign signs.
func signedCommit(sign func(payload string) string) []byte {
	return signedCommitAt(made, sign)
}

func signedCommitAt(when time.Time, sign func(payload string) string) []byte {
	headers := headersAt(when)
	return []byte(withHeader(headers, "gpgsig", sign(headers+message)) + message)
}

func tagHeadersOf(commit []byte, name string) string {
	return fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger Bob <bob@example.com> %d +0200\n", commitHash(commit), name, made.Unix())
}

func signedTag(commit []byte, name string, sign func(payload string) string) []byte {
	payload := tagHeadersOf(commit, name) + message
	return []byte(payload + sign(payload))
}

// pgpKey is a private key that signs.
type pgpKey struct{ *openpgp.Entity }

func pgpConfig(at time.Time) *packet.Config {
	return &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return at }}
}

func newPGP(tb testing.TB, name string, lifetimeSeconds uint32) pgpKey {
	tb.Helper()
	config := pgpConfig(made.Add(-time.Hour))
	config.KeyLifetimeSecs = lifetimeSeconds
	e, err := openpgp.NewEntity(name, "", strings.ToLower(name)+"@example.com", config)
	if err != nil {
		tb.Fatal(err)
	}
	return pgpKey{e}
}

// public is what `gpg --armor --export` gives.
func (k pgpKey) public(tb testing.TB) []byte {
	tb.Helper()
	return armored(tb, openpgp.PublicKeyType, k.binary(tb))
}

func (k pgpKey) binary(tb testing.TB) []byte {
	tb.Helper()
	var buf bytes.Buffer
	if err := k.Serialize(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func (k pgpKey) private(tb testing.TB) []byte {
	tb.Helper()
	var buf bytes.Buffer
	if err := k.SerializePrivateWithoutSigning(&buf, nil); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func (k pgpKey) keys(tb testing.TB) Keys {
	tb.Helper()
	return mustParse(tb, map[string][]byte{"key.asc": k.public(tb)})
}

func armored(tb testing.TB, kind string, data []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	w, err := armor.Encode(&buf, kind, nil)
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = w.Write(data) // a buffer takes everything
	_ = w.Close()
	return append(buf.Bytes(), '\n')
}

// packetOf makes one signature packet, by the primary key unless change says
// otherwise.
func (k pgpKey) packetOf(tb testing.TB, payload string, change func(*packet.Signature) *packet.PrivateKey) []byte {
	tb.Helper()
	key := k.PrivateKey
	sig := &packet.Signature{
		Version: 4, SigType: packet.SigTypeBinary, Hash: crypto.SHA256, CreationTime: made,
		PubKeyAlgo: key.PubKeyAlgo, IssuerKeyId: &key.KeyId, IssuerFingerprint: key.Fingerprint,
	}
	if change != nil {
		if other := change(sig); other != nil {
			key = other
			sig.PubKeyAlgo, sig.IssuerKeyId, sig.IssuerFingerprint = key.PubKeyAlgo, &key.KeyId, key.Fingerprint
		}
	}
	h, err := sig.PrepareSign(nil)
	if err != nil {
		tb.Fatal(err)
	}
	_, _ = h.Write([]byte(payload)) // a hash never fails
	if err := sig.Sign(h, key, nil); err != nil {
		tb.Fatal(err)
	}
	var buf bytes.Buffer
	if err := sig.Serialize(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// sign returns what gpg would print.
func (k pgpKey) sign(tb testing.TB, change func(*packet.Signature) *packet.PrivateKey) func(string) string {
	return func(payload string) string {
		return string(armored(tb, openpgp.SignatureType, k.packetOf(tb, payload, change)))
	}
}

// sshPair is a private key that signs.
type sshPair struct {
	ssh.Signer
	raw ed25519.PrivateKey
}

func newSSH(tb testing.TB) sshPair {
	tb.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		tb.Fatal(err)
	}
	return sshPair{signer, private}
}

// line is the key as in a .pub file, without a comment.
func (k sshPair) line() string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.PublicKey())))
}

func (k sshPair) id() string { return ssh.FingerprintSHA256(k.PublicKey()) }

func (k sshPair) keys(tb testing.TB) Keys {
	tb.Helper()
	return mustParse(tb, map[string][]byte{"key.pub": []byte(k.line())})
}

func (k sshPair) blob(tb testing.TB, payload, namespace string) []byte {
	tb.Helper()
	sig, err := sshsig.Sign(strings.NewReader(payload), k.Signer, sshsig.HashSHA512, namespace)
	if err != nil {
		tb.Fatal(err)
	}
	return sig.Marshal()
}

func (k sshPair) sign(tb testing.TB) func(string) string {
	return func(payload string) string { return sshArmored(k.blob(tb, payload, gitNamespace)) }
}

func sshArmored(blob []byte) string {
	text := base64.StdEncoding.EncodeToString(blob)
	out := "-----BEGIN SSH SIGNATURE-----\n"
	for len(text) > 70 {
		out, text = out+text[:70]+"\n", text[70:]
	}
	return out + text + "\n-----END SSH SIGNATURE-----\n"
}

func mustParse(tb testing.TB, data map[string][]byte) Keys {
	tb.Helper()
	keys, err := ParseKeys(data)
	if err != nil {
		tb.Fatal(err)
	}
	return keys
}

// lineOf is a plain line of a key that was read.
func lineOf(k sshKey) string { return string(ssh.MarshalAuthorizedKey(k.key)) }
