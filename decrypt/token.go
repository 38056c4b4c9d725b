package decrypt

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"io"
	"strings"

	"github.com/gitseal/gitseal/crypto"
)

// A placeholder (token) is a head and 28 characters of lower-case base32, 140
// bits. The shape survives YAML, base64 and kustomize; DESIGN.md section 4 and
// docs/adr/0003-placeholders.md say why each property of it is there.
const (
	openedHead   = "gitseal0" // stands for an opened value: resolves in the pass that made it
	unopenedHead = "gitseal1" // made from ciphertext, without a key: never resolves
	tokenTail    = 28
	tokenLength  = len(openedHead) + tokenTail // 36, a multiple of 4
)

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Digester makes tokens and keyed digests for one Sync. Equal values in two
// Syncs give different tokens and digests.
type Digester struct{ key func() []byte } // a closure, so that it never prints

// NewDigester derives the Sync's key from the token key of the installation
// (32 bytes) and whatever identifies the Sync.
func NewDigester(tokenKey crypto.Secret, sync ...string) (Digester, error) {
	key, err := hkdf.Key(sha256.New, tokenKey.Reveal(), nil, "gitseal token v1\x00"+strings.Join(sync, "\x00"), sha256.Size)
	if err != nil {
		return Digester{}, err
	}
	return Digester{key: func() []byte { return key }}, nil
}

func (d Digester) sum(domain string, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, d.key())
	_, _ = io.WriteString(h, domain) // a hash never fails
	for _, p := range parts {
		n := len(p)
		_, _ = h.Write([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		_, _ = h.Write(p)
	}
	return h.Sum(nil)
}

// Digest is a keyed digest of 128 bits in hex: safe to store and print, since
// nobody without the token key can test a guess against it.
func (d Digester) Digest(domain string, parts ...[]byte) string {
	return hex.EncodeToString(d.sum(domain, parts...)[:16])
}

// opened is the token of an opened leaf. It depends on the value, its place in
// its unit and the unit's binding, but not on the file's path: moving a file
// must not rename anything.
func (d Digester) opened(leaf crypto.Leaf) string {
	sum := d.sum("token", []byte(leaf.Place), []byte(leaf.Kind), []byte(leaf.Binding), leaf.Text.Reveal())
	return openedHead + tokenEncoding.EncodeToString(sum)[:tokenTail]
}

// unopened is the token of a leaf whose value nobody at hand can read.
func unopened(ciphertext string) string {
	sum := sha256.Sum256([]byte("gitseal unopened v1\x00" + ciphertext))
	return unopenedHead + tokenEncoding.EncodeToString(sum[:])[:tokenTail]
}
