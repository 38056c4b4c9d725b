package crypto

// Keyring is what a SOPS file may be opened with. The zero Keyring opens
// nothing: there is no fallback to keys of the environment.
type Keyring struct {
	Identities []Identity
	PGPKeys    []PGPKey
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
func (k Keyring) Digest() string { return digestOf(k.fingerprints()) }
