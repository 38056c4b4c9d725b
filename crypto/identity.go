package crypto

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// MaxIdentityFile is the most that ParseIdentities reads, in bytes.
const MaxIdentityFile = 1 << 20

// ErrNoIdentity is returned where at least one age identity is needed.
var ErrNoIdentity = errors.New("no age identity")

// Recipient is an age public key, X25519 or post-quantum hybrid. Plugin and
// SSH recipients are refused: a plugin is a program that would be run.
type Recipient struct {
	text string
	age  age.Recipient
}

// ParseRecipient reads one age1… string.
func ParseRecipient(s string) (Recipient, error) {
	s = strings.TrimSpace(s)
	if strings.ContainsAny(s, " \t\r\n#") {
		return Recipient{}, errors.New("not one age recipient")
	}
	rs, err := age.ParseRecipients(strings.NewReader(s))
	if err != nil || len(rs) != 1 {
		// The text is not repeated: people paste private keys by mistake.
		return Recipient{}, errors.New("not an age recipient (expected age1…; plugins and SSH keys are not supported)")
	}
	return Recipient{text: s, age: rs[0]}, nil
}

// ParseRecipients reads recipients one a line; empty lines and lines that start
// with # are skipped. Errors name the line.
func ParseRecipients(text []byte) ([]Recipient, error) {
	var out []Recipient
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := ParseRecipient(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		out = append(out, r)
	}
	return out, nil
}

// String returns the age1… text.
func (r Recipient) String() string { return r.text }

// Fingerprint names the recipient in messages.
func (r Recipient) Fingerprint() string { return RecipientFingerprint(r.text) }

// RecipientFingerprint is the recipient itself where that is short enough to
// read, and a digest of it for post-quantum recipients, which are 2 kB long.
func RecipientFingerprint(text string) string {
	if len(text) <= 70 {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return text[:8] + "…SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])[:22]
}

// Identity is an age private key. Like a Secret, it prints as [redacted].
type Identity struct {
	age       func() age.Identity // a closure, for the reason given at Secret
	recipient Recipient
	text      Secret
}

// GenerateIdentity makes a new X25519 identity.
func GenerateIdentity() (Identity, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return Identity{}, fmt.Errorf("generate age identity: %w", err)
	}
	return newIdentity(id)
}

func newIdentity(id age.Identity) (Identity, error) {
	switch id := id.(type) {
	case *age.X25519Identity:
		r := id.Recipient()
		return Identity{age: func() age.Identity { return id }, recipient: Recipient{text: r.String(), age: r}, text: NewSecretString(id.String())}, nil
	case *age.HybridIdentity:
		r := id.Recipient()
		return Identity{age: func() age.Identity { return id }, recipient: Recipient{text: r.String(), age: r}, text: NewSecretString(id.String())}, nil
	default:
		return Identity{}, fmt.Errorf("unsupported kind of age identity (%T)", id)
	}
}

// ParseIdentities reads AGE-SECRET-KEY-1… lines, as age-keygen writes them.
// Errors never repeat the input. A file without any key is ErrNoIdentity.
func ParseIdentities(file Secret) ([]Identity, error) {
	b := file.Reveal()
	if len(b) > MaxIdentityFile {
		return nil, fmt.Errorf("age identity file is larger than %d bytes", MaxIdentityFile)
	}
	var out []Identity
	for i, line := range bytes.Split(b, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		ids, err := age.ParseIdentities(bytes.NewReader(line))
		if err != nil || len(ids) != 1 {
			return nil, fmt.Errorf("line %d: not an age identity (expected AGE-SECRET-KEY-1…)", i+1)
		}
		id, err := newIdentity(ids[0])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		out = append(out, id)
	}
	if len(out) == 0 {
		return nil, ErrNoIdentity
	}
	return out, nil
}

// Recipient returns the public half.
func (i Identity) Recipient() Recipient { return i.recipient }

// Text returns the AGE-SECRET-KEY-1… line.
func (i Identity) Text() Secret { return i.text }

// Format implements fmt.Formatter: an identity never prints.
func (Identity) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) } // fmt has no way to report it

// MarshalJSON always fails with ErrSecretEncode.
func (Identity) MarshalJSON() ([]byte, error) { return nil, ErrSecretEncode }
