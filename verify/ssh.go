package verify

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

const (
	gitNamespace = "git" // of the signatures that git makes
	minRSABits   = 2048
	dsaKeyType   = "ssh-dss"
)

// sshKey is a line of allowed_signers, or a plain public key.
type sshKey struct {
	key        ssh.PublicKey
	identity   string
	namespaces string    // pattern-list; empty for any
	after      time.Time // zero for always
	before     time.Time // zero for ever
}

// sshKeyTypes are what a key may be. ssh-dss is SHA-1, and certificates are not
// followed.
var sshKeyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSA,
}

// parseSSHLine reads a line of allowed_signers, ssh-keygen(1), or of a .pub file.
func parseSSHLine(line, entry string) (sshKey, error) {
	first, rest := cutField(line)
	if slices.Contains(sshKeyTypes, first) {
		encoded, comment := cutField(rest)
		key, err := parseSSHKey(first, encoded)
		if comment == "" {
			comment = entry
		}
		return sshKey{key: key, identity: comment}, err
	}
	principals, err := unquote(first)
	if err != nil || principals == "" || rest == "" {
		return sshKey{}, errors.New("neither a public key nor a line of allowed_signers")
	}
	if strings.EqualFold(principals, "cert-authority") { // a line of authorized_keys
		return sshKey{}, errCertAuthority
	}
	k := sshKey{identity: principals}
	kind, encoded := cutField(rest)
	if !slices.Contains(sshKeyTypes, kind) && !refusedKeyType(kind) {
		if err := k.parseOptions(kind); err != nil {
			return sshKey{}, err
		}
		kind, encoded = cutField(encoded)
	}
	encoded, _ = cutField(encoded) // a comment may follow
	k.key, err = parseSSHKey(kind, encoded)
	return k, err
}

var errCertAuthority = errors.New("cert-authority is not supported: list the keys of the signers themselves")

func refusedKeyType(kind string) bool {
	return kind == dsaKeyType || strings.HasSuffix(kind, "-cert-v01@openssh.com")
}

func parseSSHKey(kind, encoded string) (ssh.PublicKey, error) {
	switch {
	case strings.HasSuffix(kind, "-cert-v01@openssh.com"):
		return nil, errors.New("certificates of ssh are not supported: give the public key itself")
	case kind == dsaKeyType:
		return nil, errors.New("keys of type ssh-dss are not accepted")
	case !slices.Contains(sshKeyTypes, kind):
		return nil, errors.New("neither a public key nor a line of allowed_signers")
	}
	blob, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("the ssh key is malformed")
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil || key.Type() != kind {
		return nil, errors.New("the ssh key is malformed")
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if r, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("an ssh key of RSA must have %d bits", minRSABits)
		}
	}
	return key, nil
}

func (k *sshKey) parseOptions(text string) error {
	seen := map[string]bool{}
	for text != "" {
		var option string
		option, text = cutOption(text)
		name, value, ok := strings.Cut(option, "=")
		name = strings.ToLower(name)
		if seen[name] {
			return errors.New("an option is there twice")
		}
		seen[name] = true
		value, err := unquote(value)
		switch {
		case name == "cert-authority":
			return errCertAuthority
		case name != "namespaces" && name != "valid-after" && name != "valid-before":
			return errors.New("neither a key nor the options namespaces, valid-after and valid-before follow the principals")
		case err != nil || !ok || value == "":
			return fmt.Errorf("option %s is malformed", name)
		case name == "namespaces":
			k.namespaces = value
		case name == "valid-after":
			k.after, err = parseSSHTime(value)
		default:
			k.before, err = parseSSHTime(value)
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
	}
	if !k.after.IsZero() && !k.before.IsZero() && !k.after.Before(k.before) {
		return errors.New("valid-before is not after valid-after")
	}
	return nil
}

func parseSSHTime(text string) (time.Time, error) {
	digits := strings.TrimSuffix(text, "Z")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) != len(layout) {
			continue
		}
		if t, err := time.Parse(layout, digits); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("want a time as YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS")
}

// cutField takes the first field; a space within double quotes does not end it.
func cutField(s string) (field, rest string) {
	quoted := false
	for i, r := range s {
		switch {
		case r == '"':
			quoted = !quoted
		case (r == ' ' || r == '\t') && !quoted:
			return s[:i], strings.TrimLeft(s[i:], " \t")
		}
	}
	return s, ""
}

// cutOption takes what comes before the first comma that is not quoted.
func cutOption(s string) (option, rest string) {
	quoted := false
	for i, r := range s {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// unquote takes a text that is quoted as a whole or not at all.
func unquote(s string) (string, error) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if strings.ContainsRune(s, '"') {
		return "", errors.New("a quote is out of place")
	}
	return s, nil
}

// sshSigner verifies a signature as PROTOCOL.sshsig of OpenSSH has it.
func (k Keys) sshSigner(o signedObject, body []byte, now time.Time) (Signer, error) {
	sig, err := sshsig.ParseSignature(body)
	if err != nil || len(sig.Signature.Rest) > 0 && !strings.HasPrefix(sig.PublicKey.Type(), "sk-") {
		return Signer{}, refuse("it is malformed, or of a version, key or hash that is not accepted")
	}
	if sig.Namespace != gitNamespace {
		return Signer{}, refuse("it was made for another purpose than git")
	}
	if o.when.IsZero() {
		return Signer{}, refuse("the tag has no date")
	}
	id := ssh.FingerprintSHA256(sig.PublicKey)
	var bad error = &UnknownSignerError{Kind: SSH, KeyID: id}
	for _, key := range k.ssh {
		if !bytes.Equal(key.key.Marshal(), sig.PublicKey.Marshal()) {
			continue
		}
		if sshsig.Verify(bytes.NewReader(o.payload), sig, key.key, sig.HashAlgorithm, gitNamespace) != nil {
			return Signer{}, ErrBadSignature
		}
		if f, at := key.fault(o.when, now); f != "" {
			bad = &KeyError{Kind: SSH, KeyID: id, Fault: f, At: at}
			continue // another line may have it, too
		}
		return Signer{Kind: SSH, Fingerprint: id, Identity: key.identity}, nil
	}
	return Signer{}, bad
}

// fault judges the line for a commit that says it was made at signed.
func (k sshKey) fault(signed, now time.Time) (Fault, time.Time) {
	if k.namespaces != "" && !matchList(gitNamespace, k.namespaces) {
		return Unfit, now
	}
	for _, at := range []time.Time{now, signed} {
		switch {
		case !k.before.IsZero() && at.After(k.before):
			return Expired, at
		case !k.after.IsZero() && at.Before(k.after):
			return NotYetValid, at
		}
	}
	return "", time.Time{}
}

// matchList is a pattern-list of ssh_config(5): any of it, and none with a "!".
func matchList(s, list string) bool {
	found := false
	for pattern := range strings.SplitSeq(list, ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if match(s, pattern) {
			if negated {
				return false
			}
			found = true
		}
	}
	return found
}

// match knows * and ?.
func match(s, pattern string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '*':
			star, mark = j, i
			j++
		case j < len(pattern) && (pattern[j] == '?' || pattern[j] == s[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[j:], "*") == ""
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
