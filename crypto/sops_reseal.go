package crypto

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/pgp"
)

// ResealRequest is what ResealSOPS works on.
type ResealRequest struct {
	File   []byte
	Format Format
	Keys   Keyring
	// Recipients says to whom a unit is sealed from now on. It is told those that the
	// unit lists: age recipients as they are, "pgp FINGERPRINT", "kms ARN".
	Recipients func(listed []string) ([]Recipient, error)
	// KeepDataKey seals the old data key to the recipients and leaves the values as
	// they are. Whoever held the data key still opens the file.
	KeepDataKey bool
	// Keep says, with KeepDataKey, which of the age recipients that the unit lists keep
	// what it holds for them, unread: nothing is sealed to them. nil for none.
	Keep func(listed string) bool
	Now  time.Time // goes into the file as lastmodified
}

// ResealResult is a file that was sealed anew.
type ResealResult struct {
	File  []byte
	Units []ResealedUnit // those that are sealed
	// Reformatted is set where the file had to be written by sops: the values are the
	// same, the layout may not be.
	Reformatted bool
}

// ResealedUnit says who could open a unit, and who can from now on.
type ResealedUnit struct{ From, To []string }

// UnitError says which unit of a file of several an error is about.
type UnitError struct {
	Line int // where the unit begins
	Err  error
}

func (e *UnitError) Error() string { return fmt.Sprintf("the unit at line %d: %v", e.Line, e.Err) }

// Unwrap returns the error itself.
func (e *UnitError) Unwrap() error { return e.Err }

// UnsupportedKeyError names keys that a file is sealed to and that nothing can be
// sealed to here.
type UnsupportedKeyError struct{ Keys []string }

func (e *UnsupportedKeyError) Error() string {
	return "can not be sealed anew to " + strings.Join(e.Keys, ", ") + ": only to age recipients"
}

// ErrKeyGroups is returned for a file whose data key is split over key groups.
var ErrKeyGroups = errors.New("sealed to several key groups: that can not be sealed anew here")

var errNotTheSame = errors.New("sealed anew the file would not open to what it was; it is left as it is")

// ResealSOPS gives each sealed unit of a file a new data key. All else stays as it
// is: values, comments, order, layout, selectors, bindings. The MAC must be right,
// whatever a policy says elsewhere. What is returned was opened again and compared.
//
// Errors are those of OpenSOPS, and ErrNoRecipient, ErrKeyGroups,
// *UnsupportedKeyError; in a file of several units within a *UnitError.
func ResealSOPS(req ResealRequest) (out ResealResult, err error) {
	silenceSOPS()
	defer func() {
		if recover() != nil { // library panics must not show the content
			out, err = ResealResult{}, &FormatError{What: "not a well-formed SOPS file"}
		}
	}()
	units, err := loadUnits(req.File, req.Format)
	if err != nil {
		return ResealResult{}, err
	}
	r := resealing{req: req, units: units, anew: make([]*sealedAnew, len(units))}
	for i, u := range units {
		if !u.sealed {
			continue
		}
		if r.anew[i], err = req.reseal(u); err != nil {
			if len(units) > 1 {
				err = &UnitError{Line: u.line, Err: err}
			}
			return ResealResult{}, err
		}
		out.Units = append(out.Units, ResealedUnit{From: listedKeys(u.tree.Metadata.KeyGroups), To: listedKeys(r.anew[i].metadata.KeyGroups)})
	}
	for _, file := range r.inText() {
		if r.check(file, sameTree) {
			out.File = file
			return out, nil
		}
	}
	file, err := r.bySOPS()
	if err != nil {
		return ResealResult{}, err
	}
	if !r.check(file, sameLeaves) {
		return ResealResult{}, errNotTheSame
	}
	out.File, out.Reformatted = file, true
	return out, nil
}

// sealedAnew is what takes the place of a unit's ciphertexts and metadata.
type sealedAnew struct {
	dataKey  []byte
	texts    map[string]string // old ciphertext → new
	metadata sops.Metadata
	plain    sops.TreeBranches // decrypted
}

type resealing struct {
	req   ResealRequest
	units []unit
	anew  []*sealedAnew // nil for a unit that is not sealed
}

func (req ResealRequest) reseal(u unit) (*sealedAnew, error) {
	old := u.tree.Metadata
	if len(old.KeyGroups) != 1 || old.ShamirThreshold > 0 {
		return nil, ErrKeyGroups
	}
	kept, err := req.keptKeys(old.KeyGroups[0])
	if err != nil {
		return nil, err
	}
	to, err := req.Recipients(listedKeys(old.KeyGroups))
	if err != nil {
		return nil, err
	}
	if len(to) == 0 {
		return nil, ErrNoRecipient
	}
	cipher := &pathCipher{Cipher: aes.NewCipher(), opened: map[string]openedText{}}
	// Opening also refuses what OpenSOPS does: a wrong MAC, a binding out of its place.
	dataKey, err := (&SOPSFile{format: req.Format}).open(u, OpenRequest{Keys: req.Keys, MAC: MACRequired}, cipher)
	if err != nil {
		return nil, err
	}
	a := &sealedAnew{dataKey: dataKey, texts: map[string]string{}, metadata: old, plain: u.tree.Branches}
	if !req.KeepDataKey {
		if err := a.changeDataKey(cipher.opened, req.Now); err != nil {
			return nil, err
		}
	}
	group := kept
	for _, rec := range to {
		wrapped, err := wrapAge(rec, a.dataKey)
		if err != nil {
			return nil, errors.New("the data key could not be sealed to " + rec.Fingerprint())
		}
		group = append(group, &sopsage.MasterKey{Recipient: rec.String(), EncryptedKey: string(wrapped)})
	}
	a.metadata.KeyGroups = []sops.KeyGroup{group}
	a.metadata.DataKey = nil
	return a, nil
}

// keptKeys are the keys whose stanzas stay: OpenPGP ones, of which only the
// fingerprint is at hand, as long as the data key stays.
func (req ResealRequest) keptKeys(group sops.KeyGroup) (sops.KeyGroup, error) {
	var kept sops.KeyGroup
	var unsupported []string
	for _, k := range group {
		switch k := k.(type) {
		case *sopsage.MasterKey:
			if req.KeepDataKey && req.Keep != nil && req.Keep(k.Recipient) {
				kept = append(kept, k)
			}
			continue
		case *pgp.MasterKey:
			if req.KeepDataKey {
				kept = append(kept, k)
				continue
			}
		}
		unsupported = append(unsupported, listedKeys([]sops.KeyGroup{{k}})...)
	}
	if len(unsupported) > 0 {
		return nil, &UnsupportedKeyError{Keys: unsupported}
	}
	return kept, nil
}

// changeDataKey seals what was opened with a new data key. The MAC is a digest of
// plaintext, which stays; it is sealed together with the date.
func (a *sealedAnew) changeDataKey(opened map[string]openedText, now time.Time) error {
	mac, ok := opened[a.metadata.MessageAuthenticationCode]
	if !ok {
		return ErrMAC
	}
	delete(opened, a.metadata.MessageAuthenticationCode)
	a.dataKey = make([]byte, dataKeyBytes)
	if _, err := rand.Read(a.dataKey); err != nil {
		return errors.New("no random data key could be made")
	}
	cipher := aes.NewCipher() // one that has seen nothing: it takes over the IVs that it knows
	for old, text := range opened {
		sealed, err := cipher.Encrypt(text.plain, a.dataKey, text.with)
		if err != nil {
			return errors.New("a value could not be sealed")
		}
		a.texts[old] = sealed
	}
	a.metadata.LastModified = now.UTC().Truncate(time.Second)
	var err error
	a.metadata.MessageAuthenticationCode, err = cipher.Encrypt(mac.plain, a.dataKey, a.metadata.LastModified.Format(time.RFC3339))
	if err != nil {
		return errors.New("the MAC could not be sealed")
	}
	return nil
}

// bySOPS lets sops write the file.
func (r resealing) bySOPS() ([]byte, error) {
	var parts [][]byte
	for i, u := range r.units {
		if !u.sealed {
			parts = append(parts, u.raw)
			continue
		}
		tree, err := loadTree(u.raw, r.req.Format) // that of the unit is decrypted by now
		if err != nil {
			return nil, err
		}
		for _, b := range tree.Branches {
			replaceTexts(b, r.anew[i].texts)
		}
		tree.Metadata = r.anew[i].metadata
		part, err := r.req.Format.store().EmitEncryptedFile(tree)
		if err != nil {
			return nil, notWritable(r.req.Format)
		}
		parts = append(parts, part)
	}
	return joinDocuments(parts), nil
}

func replaceTexts(v any, texts map[string]string) any {
	switch v := v.(type) {
	case sops.TreeBranch:
		for i := range v {
			v[i].Key, v[i].Value = replaceTexts(v[i].Key, texts), replaceTexts(v[i].Value, texts)
		}
		return v
	case []any:
		for i := range v {
			v[i] = replaceTexts(v[i], texts)
		}
		return v
	case sops.Comment:
		if text, ok := texts[v.Value]; ok {
			v.Value = text
		}
		return v
	case string:
		if text, ok := texts[v]; ok {
			return text
		}
		return v
	default:
		return v
	}
}

// check opens a new file and compares it with the old one.
func (r resealing) check(file []byte, same func(a, b sops.TreeBranches) bool) bool {
	units, err := loadUnits(file, r.req.Format)
	if err != nil || len(units) != len(r.units) {
		return false
	}
	for i, u := range units {
		if !u.sealed {
			if r.anew[i] != nil || !bytes.Equal(bytes.TrimSpace(u.raw), bytes.TrimSpace(r.units[i].raw)) {
				return false
			}
			continue
		}
		if r.anew[i] == nil || !r.anew[i].opens(u, r.req.Keys) || !same(u.tree.Branches, r.anew[i].plain) {
			return false
		}
	}
	return true
}

// opens decrypts a new unit in place and says whether it is sealed as it should be.
func (a *sealedAnew) opens(u unit, ring Keyring) bool {
	if !sameMetadata(u.tree.Metadata, a.metadata) {
		return false
	}
	// Where a key of a recipient is at hand, the stanza is tried, too.
	held, err := u.tree.Metadata.GetDataKeyWithKeyServices(localKeys{ring: ring}.clients(), sops.DefaultDecryptionOrder)
	if err == nil && !bytes.Equal(held, a.dataKey) {
		return false
	}
	cipher := &pathCipher{Cipher: aes.NewCipher()}
	mac, err := u.tree.Decrypt(a.dataKey, cipher)
	return err == nil && checkMAC(u.tree.Metadata, cipher, a.dataKey, mac) == nil
}

func sameMetadata(a, b sops.Metadata) bool {
	if !a.LastModified.Equal(b.LastModified) || a.MACOnlyEncrypted != b.MACOnlyEncrypted || len(a.KeyGroups) != 1 || len(b.KeyGroups) != 1 {
		return false
	}
	text := func(m sops.Metadata) []string {
		out := []string{m.MessageAuthenticationCode, m.Version, m.EncryptedRegex, m.UnencryptedRegex, m.EncryptedSuffix, m.UnencryptedSuffix, m.EncryptedCommentRegex, m.UnencryptedCommentRegex}
		for _, k := range m.KeyGroups[0] {
			out = append(out, k.TypeToIdentifier(), k.ToString(), strings.TrimSpace(string(k.EncryptedDataKey())))
		}
		return out
	}
	return slices.Equal(text(a), text(b))
}
