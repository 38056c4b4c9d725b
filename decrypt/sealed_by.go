package decrypt

import (
	"slices"

	"github.com/gitseal/gitseal/crypto"
)

// needs lists the keys, by their fingerprints, without which the values do not open. It
// opens nothing, and what it found out once it keeps for the passes to come.
func (s *sealedSecret) needs(m *Masked) []string {
	if len(m.certificates) == 1 { // what opens, opens with that; no arithmetic is needed
		return []string{m.certificates[0].Certificate().Fingerprint()}
	}
	var out []string
	add := func(text string) {
		if f := s.sealedTo(m, text); f != "" && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	for _, text := range s.encrypted {
		add(text)
	}
	if s.whole != "" {
		add(s.whole)
	}
	return out
}

// sealedTo is the fingerprint of the key that opens a value, "" where none that is held
// does. That does not change with the other keys.
func (s *sealedSecret) sealedTo(m *Masked, text string) string {
	k := keyOf([]byte(s.target.Scope), []byte(s.target.Namespace), []byte(s.target.Name), []byte(text))
	if f, ok := keep(m.cache, m.cache.sealed, k); ok && slices.ContainsFunc(m.certificates, func(c crypto.CertificateKey) bool { return c.Certificate().Fingerprint() == f }) {
		return f
	}
	f := crypto.OpenedBy(m.certificates, s.target, text)
	if f != "" {
		var uncounted int
		store(m.cache, m.cache.sealed, k, f, &uncounted)
	}
	return f
}
