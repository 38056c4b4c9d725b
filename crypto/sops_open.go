package crypto

import (
	"crypto/subtle"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
)

// Leaf is one sealed value of an opened file.
type Leaf struct {
	Path string // for people: data.password, list[0], ["a.b"]
	Kind string // str, int, float, bool or time
	Text Secret // what stock sops would have written in its place
	// Place identifies the leaf within its unit, whatever the file is called.
	Place   string
	Binding Binding // of its unit; "" where that carries none
	// OpenedBy are the fingerprints of the keys that opened its unit.
	OpenedBy []string
	// ObjectKind is the kind of the Kubernetes object that the leaf was sealed in,
	// with its group: Secret, Deployment.apps. It is "" where the leaf stood in none,
	// or where no MAC says that it was this one.
	ObjectKind string
}

// SOPSFile is an opened file. It holds plaintext only as Secrets and inside
// values that do not leave this package.
type SOPSFile struct {
	Leaves []Leaf
	// NothingSealed is set where neither a value nor a comment was sealed: then
	// Plain holds nothing that does not lie in git.
	NothingSealed bool
	// Unverified says why the MAC could not be relied on, with MACWarn.
	Unverified error

	format Format
	units  []openUnit
}

type openUnit struct {
	raw     []byte            // of a unit that is not sealed
	full    sops.TreeBranches // decrypted
	sealed  map[string]int    // place → index in Leaves
	binding Binding
	opened  []string // fingerprints of the keys
	// authentic says that the MAC covers also what is not sealed.
	authentic bool
}

// MACPolicy is what happens to a file whose MAC is missing or wrong. Values
// that do not open are refused whatever it says.
type MACPolicy string

// The policies; the first is the default. Flux never checks a MAC, so people
// who come from there may have files that need MACWarn for a while.
const (
	MACRequired MACPolicy = "Required"
	MACWarn     MACPolicy = "Warn"
)

// OpenRequest is what OpenSOPS works on.
type OpenRequest struct {
	File   []byte
	Format Format
	Keys   Keyring
	MAC    MACPolicy
}

// OpenSOPS checks and opens a file with any of the keys. Errors: ErrNotSOPS,
// ErrNoMAC, ErrMAC, ErrNoIdentity, ErrBindingMoved, ErrBindingNotSealed,
// *NoKeyError, *ValueError, *LimitError, *FormatError.
func OpenSOPS(req OpenRequest) (f *SOPSFile, err error) {
	silenceSOPS()
	defer func() {
		if recover() != nil { // for example a leaf of type:bytes (sops/aes: unhashable stash key)
			f, err = nil, &FormatError{What: "not a well-formed SOPS file"}
		}
	}()
	units, err := loadUnits(req.File, req.Format)
	if err != nil {
		return nil, err
	}
	f = &SOPSFile{format: req.Format, NothingSealed: true}
	for _, u := range units {
		if !u.sealed {
			f.units = append(f.units, openUnit{raw: u.raw})
		} else if _, err := f.open(u, req, &pathCipher{Cipher: aes.NewCipher()}); err != nil {
			return nil, err
		}
	}
	f.NothingSealed = f.NothingSealed && len(f.Leaves) == 0 && len(f.Bindings()) == 0
	return f, nil
}

// Plain is the whole file as stock sops would have decrypted it, less the
// bindings. It is made when it is asked for: most files are never wanted whole.
func (f *SOPSFile) Plain() (Secret, error) {
	var parts [][]byte
	for _, u := range f.units {
		if u.sealed == nil {
			parts = append(parts, u.raw)
			continue
		}
		part, err := emit(f.format, withoutBinding(u.full, f.format))
		if err != nil {
			return Secret{}, err
		}
		parts = append(parts, part)
	}
	return NewSecret(joinDocuments(parts)), nil
}

// open opens one sealed unit, and returns its data key.
func (f *SOPSFile) open(u unit, req OpenRequest, cipher *pathCipher) (dataKey []byte, err error) {
	tree := u.tree
	var opened []string
	dataKey, err = tree.Metadata.GetDataKeyWithKeyServices(localKeys{req.Keys, &opened}.clients(), sops.DefaultDecryptionOrder)
	if err != nil || len(dataKey) != dataKeyBytes {
		wanted, supported := wantedKeys(tree.Metadata)
		return nil, &NoKeyError{Groups: groupsNeeded(tree.Metadata), Wanted: wanted, Held: req.Keys.fingerprints(), Unsupported: !supported && len(wanted) > 0}
	}
	before, err := snapshot(tree.Branches)
	if err != nil {
		return nil, err
	}
	for _, b := range tree.Branches {
		f.NothingSealed = f.NothingSealed && !sealsComments(b)
	}
	mac, err := tree.Decrypt(dataKey, cipher)
	if err != nil {
		return nil, &ValueError{Path: strings.ReplaceAll(strings.TrimSuffix(cipher.failedAt, ":"), ":", ".")}
	}
	err = checkMAC(tree.Metadata, cipher, dataKey, mac)
	if err != nil {
		if req.MAC != MACWarn {
			return nil, err
		}
		f.Unverified = err
	}
	o := openUnit{opened: opened, sealed: map[string]int{}, full: tree.Branches, authentic: err == nil && !tree.Metadata.MACOnlyEncrypted}
	if err := f.collect(&o, before); err != nil {
		return nil, err
	}
	f.units = append(f.units, o)
	return dataKey, nil
}

func checkMAC(m sops.Metadata, cipher sops.Cipher, dataKey []byte, got string) error {
	if m.MessageAuthenticationCode == "" {
		return ErrNoMAC
	}
	want, err := cipher.Decrypt(m.MessageAuthenticationCode, dataKey, m.LastModified.Format(time.RFC3339))
	if err != nil {
		return ErrMAC
	}
	text, ok := want.(string)
	if !ok || text == "" || subtle.ConstantTimeCompare([]byte(text), []byte(got)) != 1 {
		return ErrMAC
	}
	return nil
}

// snapshot remembers the text of each leaf, before sops decrypts in place. Two
// leaves in one place are refused: one could pass for the other, and an empty one
// can be added without a key, since the MAC does not see it.
func snapshot(branches sops.TreeBranches) (map[string]string, error) {
	out := map[string]string{}
	var err error
	walkLeaves(branches, func(at place, v any) any {
		if _, twice := out[at.key()]; twice && err == nil {
			err = &FormatError{What: at.path + " occurs twice"}
		}
		s, _ := v.(string)
		out[at.key()] = s
		return v
	})
	return out, err
}

// collect takes the leaves that were sealed out of a decrypted unit, and the
// binding with them.
func (f *SOPSFile) collect(u *openUnit, before map[string]string) error {
	var bindErr error
	first := len(f.Leaves)
	walkLeaves(u.full, func(at place, v any) any {
		was := before[at.key()]
		wasSealed := strings.HasPrefix(was, encPrefix) && v != any(was)
		if at.looksLikeBinding() {
			if err := u.takeBinding(f.format, at, v, wasSealed); err != nil && bindErr == nil {
				bindErr = err
			}
			return v
		}
		if !wasSealed {
			return v
		}
		kind, text := leafText(f.format, v)
		u.sealed[at.key()] = len(f.Leaves)
		leaf := Leaf{Path: at.path, Kind: kind, Text: NewSecret(text), Place: string(f.format) + "\x00" + at.key()}
		if u.authentic {
			leaf.ObjectKind = kindOf(u.full[at.doc])
		}
		f.Leaves = append(f.Leaves, leaf)
		return v
	})
	for i := range f.Leaves[first:] {
		f.Leaves[first+i].Binding, f.Leaves[first+i].OpenedBy = u.binding, u.opened
	}
	return bindErr
}

// kindOf is the kind of the object that a document is, as schema.GroupKind writes
// it.
func kindOf(b sops.TreeBranch) string {
	field := func(key string) string {
		for _, item := range b {
			if item.Key == key {
				s, _ := item.Value.(string)
				return s
			}
		}
		return ""
	}
	kind, apiVersion := field("kind"), field("apiVersion")
	if group, _, ok := strings.Cut(apiVersion, "/"); ok && kind != "" {
		return kind + "." + group
	}
	return kind
}

// OpenedBy lists the fingerprints of the keys that opened the file's units, without
// repetition.
func (f *SOPSFile) OpenedBy() []string {
	var out []string
	for _, u := range f.units {
		for _, k := range u.opened {
			if !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	return out
}

// Bindings lists those of the file's units, without repetition.
func (f *SOPSFile) Bindings() []Binding {
	var out []Binding
	for _, u := range f.units {
		if u.binding != "" && !slices.Contains(out, u.binding) {
			out = append(out, u.binding)
		}
	}
	return out
}

func (u *openUnit) takeBinding(format Format, at place, v any, sealed bool) error {
	s, ok := v.(string)
	if !at.isBinding(format) || !ok {
		return ErrBindingMoved
	}
	if !sealed {
		return ErrBindingNotSealed
	}
	b, err := ParseBinding(s)
	if err != nil {
		return ErrBindingMoved
	}
	if u.binding != "" && u.binding != b {
		return ErrBindingMoved
	}
	u.binding = b
	return nil
}

var bindingKeys = []string{"metadata", "annotations", BindingAnnotation}

const bindingKeyPath = `metadata.annotations["` + BindingAnnotation + `"]`

// looksLikeBinding goes by the joined path that sops authenticates: a leaf
// nested under a key that itself holds ":" has the same one, and so has one in a
// file that was written anew in another format.
func (p place) looksLikeBinding() bool {
	joined := strings.Join(p.keys, ":")
	return joined == strings.Join(bindingKeys, ":") || joined == BindingVariable
}

func (p place) isBinding(format Format) bool {
	// The path shows list indexes, which the joined keys leave out.
	switch format {
	case YAML, JSON:
		return p.path == bindingKeyPath && slices.Equal(p.keys, bindingKeys)
	case Dotenv:
		return p.path == BindingVariable
	default:
		return false
	}
}

// key identifies the leaf within its unit.
func (p place) key() string { return strconv.Itoa(p.doc) + "\x00" + p.path }

// Masked returns the file with token(leaf) in the place of each sealed value,
// without the comments, metadata and bindings of what was sealed.
func (f *SOPSFile) Masked(token func(Leaf) string) ([]byte, error) {
	var parts [][]byte
	for _, u := range f.units {
		if u.sealed == nil {
			parts = append(parts, u.raw)
			continue
		}
		// Of the whole tree, comments and all: places count them in lists.
		masked, err := emitMasked(f.format, walkLeaves(u.full, func(at place, v any) any {
			if at.looksLikeBinding() {
				return drop
			}
			if i, ok := u.sealed[at.key()]; ok && !isDirective(at, v) {
				return token(f.Leaves[i])
			}
			return v
		}))
		if err != nil {
			return nil, err
		}
		parts = append(parts, masked)
	}
	return joinDocuments(parts), nil
}

// isDirective reports whether the leaf tells a strategic merge what to do:
// sops seals that too, and kustomize must read it.
func isDirective(at place, v any) bool {
	return len(at.keys) > 0 && at.keys[len(at.keys)-1] == "$patch" && (v == any("replace") || v == any("merge") || v == any("delete"))
}

// MaskUnopened masks a file without keys: each sealed value becomes
// token(ciphertext). Where mark is not empty it is added to every document, so
// that whatever is rendered from this file can be recognised and refused.
// Errors: ErrNotSOPS, *LimitError, *FormatError.
func MaskUnopened(file []byte, format Format, token func(ciphertext string) string, mark string) (masked []byte, err error) {
	silenceSOPS()
	defer func() {
		if recover() != nil { // for example metadata that is a list
			masked, err = nil, &FormatError{What: "not a well-formed SOPS file"}
		}
	}()
	units, err := loadUnits(file, format)
	if err != nil {
		return nil, err
	}
	var parts [][]byte
	for _, u := range units {
		if !u.sealed && mark == "" {
			parts = append(parts, u.raw)
			continue
		}
		branches := u.tree.Branches
		if !u.sealed {
			if branches, err = format.store().LoadPlainFile(u.raw); err != nil {
				return nil, formatError(format, err)
			}
		}
		part, err := maskUnit(branches, format, token, mark)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part)
	}
	return joinDocuments(parts), nil
}

func maskUnit(branches sops.TreeBranches, format Format, token func(string) string, mark string) ([]byte, error) {
	branches = walkLeaves(branches, func(at place, v any) any {
		if at.looksLikeBinding() {
			return drop
		}
		if s, ok := v.(string); ok && strings.HasPrefix(s, encPrefix) {
			if strings.HasSuffix(s, ",type:comment]") { // stands in a list like a value
				return drop
			}
			return token(s)
		}
		return v
	})
	if mark != "" {
		for i := range branches {
			branches[i] = markBranch(branches[i], format, mark)
		}
	}
	return emitMasked(format, branches)
}

func markBranch(b sops.TreeBranch, format Format, mark string) sops.TreeBranch {
	switch format {
	case YAML, JSON:
		for _, item := range b {
			if item.Key == "kind" {
				nb, _ := b.Set([]any{"metadata", "annotations", "gitseal.io/unopened"}, mark)
				return nb
			}
		}
		return append(b, sops.TreeItem{Key: "gitseal-unopened", Value: mark})
	case INI:
		return append(b, sops.TreeItem{Key: "gitseal", Value: sops.TreeBranch{{Key: "unopened", Value: mark}}})
	case Dotenv:
		return append(b, sops.TreeItem{Key: "GITSEAL_UNOPENED", Value: mark})
	default:
		return b // its only value is a token already
	}
}

// withoutBinding keeps comments: it is what stock sops would print.
func withoutBinding(branches sops.TreeBranches, format Format) sops.TreeBranches {
	out := make(sops.TreeBranches, len(branches))
	for i, b := range branches {
		out[i] = dropKeys(b, bindingPath(format))
	}
	return out
}

func bindingPath(format Format) []string {
	switch format {
	case YAML, JSON:
		return bindingKeys
	case Dotenv:
		return []string{BindingVariable}
	default:
		return nil
	}
}

func dropKeys(b sops.TreeBranch, path []string) sops.TreeBranch {
	if len(path) == 0 {
		return b
	}
	nb := make(sops.TreeBranch, 0, len(b))
	for _, item := range b {
		if item.Key != path[0] {
			nb = append(nb, item)
			continue
		}
		if child, ok := item.Value.(sops.TreeBranch); ok && len(path) > 1 {
			rest := dropKeys(child, path[1:])
			if len(rest) > 0 || len(child) == 0 {
				nb = append(nb, sops.TreeItem{Key: item.Key, Value: rest})
			}
		}
	}
	return nb
}

// pathCipher remembers where decryption failed; sops' own error does not say.
type pathCipher struct {
	aes.Cipher
	failedAt string
	// opened is what was opened, by its ciphertext; nil where nobody asks.
	opened map[string]openedText
}

// openedText is plaintext, and what was authenticated with it.
type openedText struct {
	plain any
	with  string
}

func (c *pathCipher) Decrypt(ciphertext string, key []byte, additionalData string) (any, error) {
	v, err := c.Cipher.Decrypt(ciphertext, key, additionalData)
	if err != nil {
		c.failedAt = additionalData
		return nil, errors.New("value does not open")
	}
	if c.opened != nil && ciphertext != "" {
		c.opened[ciphertext] = openedText{plain: v, with: additionalData}
	}
	return v, nil
}
