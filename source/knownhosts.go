package source

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// knownHosts is a parsed known_hosts file. x/crypto/ssh/knownhosts reads files
// only, and we keep what came from a Secret in memory.
type knownHosts []knownHost

type knownHost struct {
	revoked  bool
	patterns []string
	key      ssh.PublicKey
}

func parseKnownHosts(text []byte) (knownHosts, error) {
	var known knownHosts
	for rest := text; ; {
		marker, hosts, key, _, next, err := ssh.ParseKnownHosts(rest)
		if err == io.EOF {
			break
		}
		line := 1 + bytes.Count(text[:len(text)-len(rest)], []byte("\n"))
		if err != nil {
			return nil, fmt.Errorf("%s: no valid entry at or after line %d", keyKnownHosts, line)
		}
		switch marker {
		case "", "revoked":
		default:
			return nil, fmt.Errorf("%s: markers other than @revoked are not supported, at or after line %d", keyKnownHosts, line)
		}
		known = append(known, knownHost{revoked: marker == "revoked", patterns: hosts, key: key})
		rest = next
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("%s: holds no host key", keyKnownHosts)
	}
	return known, nil
}

// algorithms are what to ask the server for, so that it does not show a key of
// a kind that we have no entry for.
func (k knownHosts) algorithms(address string) []string {
	var names []string
	seen := map[string]bool{}
	for _, h := range k {
		if h.revoked || !h.matches(address) || seen[h.key.Type()] {
			continue
		}
		seen[h.key.Type()] = true
		if h.key.Type() == ssh.KeyAlgoRSA {
			names = append(names, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		names = append(names, h.key.Type())
	}
	return names
}

// check is an ssh.HostKeyCallback for one address.
func (k knownHosts) check(address string, key ssh.PublicKey) error {
	offered := key.Type() + " " + ssh.FingerprintSHA256(key)
	blob := key.Marshal()
	known, found := false, false
	for _, h := range k {
		if !h.matches(address) {
			continue
		}
		same := bytes.Equal(h.key.Marshal(), blob)
		if h.revoked && same {
			return fmt.Errorf("%w: %s marks the offered key %s as revoked", ErrHostKey, keyKnownHosts, offered)
		}
		known = known || !h.revoked
		found = found || same
	}
	switch {
	case found:
		return nil
	case known:
		return fmt.Errorf("%w: the server offers %s, which is not its key in %s", ErrHostKey, offered, keyKnownHosts)
	}
	return fmt.Errorf("%w: %s has no entry for %s, which offers %s", ErrHostKey, keyKnownHosts, knownhosts.Normalize(address), offered)
}

func (h knownHost) matches(address string) bool {
	host := strings.ToLower(knownhosts.Normalize(address))
	matched := false
	for _, p := range h.patterns {
		negated := strings.HasPrefix(p, "!")
		if !matchesPattern(strings.TrimPrefix(p, "!"), host) {
			continue
		}
		if negated {
			return false
		}
		matched = true
	}
	return matched
}

func matchesPattern(pattern, host string) bool {
	if hashed, ok := strings.CutPrefix(pattern, "|1|"); ok {
		salt64, sum64, _ := strings.Cut(hashed, "|")
		salt, err1 := base64.StdEncoding.DecodeString(salt64)
		sum, err2 := base64.StdEncoding.DecodeString(sum64)
		if err1 != nil || err2 != nil {
			return false
		}
		mac := hmac.New(sha1.New, salt)
		mac.Write([]byte(host))
		return hmac.Equal(mac.Sum(nil), sum)
	}
	pattern = strings.ToLower(pattern)
	if !strings.ContainsAny(pattern, "*?") {
		if h, p, err := net.SplitHostPort(pattern); err == nil {
			pattern = knownhosts.Normalize(net.JoinHostPort(h, p))
		}
		return pattern == host
	}
	return matchesWildcard(pattern, host)
}

// matchesWildcard knows * and ?, and nothing else is special.
func matchesWildcard(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
