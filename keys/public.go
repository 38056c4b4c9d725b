package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/gitseal/gitseal/crypto"
)

// Public is what is published: what to seal to, and what there is.
type Public struct {
	Recipients  []crypto.Recipient
	Cert        crypto.Certificate
	Generations []PublicGeneration // newest first; nil where an older agent published
}

// PublicGeneration is what everybody may know of a generation.
type PublicGeneration struct {
	Number      int       `json:"number"`
	State       State     `json:"state"`
	Recipient   string    `json:"recipient"`
	Certificate string    `json:"certificateFingerprint"`
	Created     time.Time `json:"created"`
	NotAfter    time.Time `json:"notAfter"`
	BackedUp    time.Time `json:"backedUp,omitzero"`
}

// Public returns the public half of the active generation, and facts about all.
func (r *Ring) Public() (Public, error) {
	g, err := r.Active()
	if err != nil {
		return Public{}, err
	}
	p := Public{Recipients: []crypto.Recipient{g.Identity.Recipient()}, Cert: g.Certificate.Certificate()}
	for _, g := range r.Generations {
		p.Generations = append(p.Generations, g.Public())
	}
	return p, nil
}

// Public is what everybody may know of it.
func (g Generation) Public() PublicGeneration {
	cert := g.Certificate.Certificate()
	return PublicGeneration{
		Number: g.Number, State: g.State, Recipient: g.Identity.Recipient().String(), Certificate: cert.Fingerprint(),
		Created: cert.NotBefore().UTC(), NotAfter: cert.NotAfter().UTC(), BackedUp: g.BackedUp,
	}
}

// Newest is the highest number of a generation, 0 for none.
func (p Public) Newest() int {
	n := 0
	for _, g := range p.Generations {
		n = max(n, g.Number)
	}
	return n
}

// published is the form of generations.json.
type published struct {
	Version     int                `json:"version"`
	Generations []PublicGeneration `json:"generations"`
}

const (
	publishedVersion = 1
	maxPublished     = 1 << 20 // bytes; a ConfigMap holds no more
)

// data is the ConfigMap's content.
func (p Public) data() map[string]string {
	var lines strings.Builder
	for _, r := range p.Recipients {
		lines.WriteString(r.String() + "\n")
	}
	out := map[string]string{RecipientsKey: lines.String(), CertificateKey: string(p.Cert.PEM())}
	if len(p.Generations) > 0 {
		b, err := json.MarshalIndent(published{publishedVersion, p.Generations}, "", "  ")
		if err != nil {
			panic("keys: internal error: " + err.Error())
		}
		out[GenerationsKey] = string(b) + "\n"
	}
	return out
}

// ParsePublic reads the texts of the ConfigMap gitseal-keys.
func ParsePublic(data map[string]string) (Public, error) {
	rs, err := crypto.ParseRecipients([]byte(data[RecipientsKey]))
	if err != nil {
		return Public{}, fmt.Errorf("%s: %w", RecipientsKey, err)
	}
	if len(rs) == 0 {
		return Public{}, fmt.Errorf("%s holds no recipient", RecipientsKey)
	}
	cert, err := crypto.ParseCertificate([]byte(data[CertificateKey]))
	if err != nil {
		return Public{}, fmt.Errorf("%s: %w", CertificateKey, err)
	}
	p := Public{Recipients: rs, Cert: cert}
	if text, ok := data[GenerationsKey]; ok {
		if p.Generations, err = parseGenerations([]byte(text)); err != nil {
			return Public{}, fmt.Errorf("%s: %w", GenerationsKey, err)
		}
	}
	return p, nil
}

// parseGenerations reads generations.json. Its errors do not repeat the input.
func parseGenerations(text []byte) ([]PublicGeneration, error) {
	if len(text) > maxPublished {
		return nil, fmt.Errorf("larger than %d bytes", maxPublished)
	}
	var p published
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, errors.New("not the JSON that an agent of this version writes")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	if p.Version != publishedVersion {
		return nil, fmt.Errorf("version %d is not known; use a newer seal", p.Version)
	}
	last := 0
	for i, g := range p.Generations {
		switch {
		case g.Number < 1 || i > 0 && g.Number >= last:
			return nil, fmt.Errorf("entry %d: its number is out of order", i+1)
		case g.State != Standby && g.State != Active && g.State != Retired:
			return nil, fmt.Errorf("entry %d: its state is not known", i+1)
		}
		if _, err := crypto.ParseRecipient(g.Recipient); err != nil {
			return nil, fmt.Errorf("entry %d: not an age recipient", i+1)
		}
		last = g.Number
	}
	return p.Generations, nil
}
