package crypto

// Keyring is what a SOPS file may be opened with. The zero Keyring opens
// nothing: there is no fallback to keys of the environment.
type Keyring struct {
	Identities []Identity
	PGPKeys    []PGPKey
	// Own are the fingerprints of keys that belong to one tenant alone: what they open
	// was meant for that tenant.
	Own map[string]bool
}

// fingerprints names every key of the ring, for messages.
func (k Keyring) fingerprints() []string {
	out := make([]string, 0, len(k.Identities)+len(k.PGPKeys))
	for _, id := range k.Identities {
		out = append(out, id.Recipient().Fingerprint())
	}
	for _, p := range k.PGPKeys {
		out = append(out, "pgp "+p.Fingerprint())
	}
	return out
}

// Digest identifies the ring by its public halves, whatever their order.
func (k Keyring) Digest() string {
	names := k.fingerprints()
	for f, own := range k.Own {
		if own {
			names = append(names, "own "+f)
		}
	}
	return digestOf(names)
}
