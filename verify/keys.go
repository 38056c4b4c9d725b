package verify

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxEntryBytes = 1 << 20 // one entry of the Secret
	maxKeys       = 1000    // of all entries
)

// Keys are the signers that are trusted. The zero Keys trust nobody. They are
// never changed, and safe for concurrent use.
type Keys struct {
	certificates []certificate
	ssh          []sshKey
}

// Len is how many OpenPGP certificates and lines of ssh keys there are.
func (k Keys) Len() int { return len(k.certificates) + len(k.ssh) }

// ParseKeys reads the data of a Kubernetes Secret. The names of its entries are
// free; each holds, as its content tells,
//
//   - OpenPGP public keys, armored or binary, as `gpg --export` writes them, or
//   - lines as in ssh's allowed_signers (principals, the options namespaces,
//     valid-after and valid-before, a key) or plain public keys (id_ed25519.pub),
//     also mixed. A time without Z is UTC.
//
// A private key is refused, and so is a cert-authority: certificates of ssh are
// not followed. An error names entry and line and repeats nothing of them. A
// Secret without entries is ErrNoKeys.
func ParseKeys(data map[string][]byte) (Keys, error) {
	var k Keys
	for _, name := range slices.Sorted(maps.Keys(data)) {
		before := k.Len()
		if err := k.add(name, data[name]); err != nil {
			return Keys{}, fmt.Errorf("%s: %w", printable(name), err)
		}
		if k.Len() == before {
			return Keys{}, fmt.Errorf("%s: holds no key", printable(name))
		}
		if k.Len() > maxKeys {
			return Keys{}, fmt.Errorf("%s: more than %d keys of trusted signers", printable(name), maxKeys)
		}
	}
	if k.Len() == 0 {
		return Keys{}, ErrNoKeys
	}
	return k, nil
}

var errPrivateKey = errors.New("this is a private key; only public keys belong here")

// privateKey finds what nobody should have put here, so that the message says so.
var privateKey = regexp.MustCompile(`(?i)-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File|AGE-SECRET-KEY-`)

func (k *Keys) add(name string, data []byte) error {
	if len(data) > maxEntryBytes {
		return fmt.Errorf("larger than %d bytes", maxEntryBytes)
	}
	if at := privateKey.FindIndex(data); at != nil {
		return fmt.Errorf("line %d: %w", bytes.Count(data[:at[0]], []byte("\n"))+1, errPrivateKey)
	}
	if len(data) > 0 && data[0]&0x80 != 0 && !utf8.Valid(data) {
		found, err := readCertificates(data)
		k.certificates = append(k.certificates, found...)
		return err
	}
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		switch {
		case line == "" || line[0] == '#':
		case line == armorBegin+pgpPublicArmor+armorDashes:
			first := i
			for i < len(lines) && strings.TrimSpace(lines[i]) != armorEnd+pgpPublicArmor+armorDashes {
				i++
			}
			if i == len(lines) {
				return fmt.Errorf("line %d: the armored OpenPGP key has no end", first+1)
			}
			found, err := dearmorCertificates(lines[first+1 : i])
			if err != nil {
				return fmt.Errorf("line %d: %w", first+1, err)
			}
			k.certificates = append(k.certificates, found...)
		default:
			key, err := parseSSHLine(line, name)
			if err != nil {
				return fmt.Errorf("line %d: %w", i+1, err)
			}
			k.ssh = append(k.ssh, key)
		}
	}
	return nil
}

// printable is the name of an entry in a message.
func printable(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return strconv.Quote(s)
		}
	}
	return s
}
