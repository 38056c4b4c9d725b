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
	// Place identifies the leaf within its file, whatever the file is called.
	Place string
}

// SOPSFile is an opened file. It holds plaintext only as Secrets and inside
// values that do not leave this package.
type SOPSFile struct {
	Leaves  []Leaf
	Binding Binding // "" where the file carries none
	// Plain is the whole file as stock sops would have decrypted it, less the
	// binding.
	Plain Secret

	format   Format
	branches sops.TreeBranches // decrypted, without comments and binding
	sealed   map[string]int    // place → index in Leaves
}

// OpenSOPS checks and opens a file with any of the identities. The MAC is always
// checked. Errors: ErrNotSOPS, ErrNoMAC, ErrMAC, ErrNoIdentity, ErrBindingMoved,
// ErrBindingNotSealed, *NoKeyError, *ValueError, *FormatError.
func OpenSOPS(file []byte, format Format, identities []Identity) (f *SOPSFile, err error) {
	silenceSOPS()
	defer func() {
		if recover() != nil { // for example a leaf of type:bytes (sops/aes: unhashable stash key)
			f, err = nil, &FormatError{What: "not a well-formed SOPS file"}
		}
	}()
	tree, err := loadEncrypted(file, format)
	if err != nil {
		return nil, err
	}
	dataKey, err := tree.Metadata.GetDataKeyWithKeyServices(ageOnly{identities}.clients(), sops.DefaultDecryptionOrder)
	if err != nil || len(dataKey) != dataKeyBytes {
		return nil, &NoKeyError{Wanted: wantedKeys(tree.Metadata), Held: heldKeys(identities)}
	}
	if tree.Metadata.MessageAuthenticationCode == "" {
		return nil, ErrNoMAC
	}
	cipher := &pathCipher{Cipher: aes.NewCipher()}
	before := snapshot(tree.Branches)
	mac, err := tree.Decrypt(dataKey, cipher)
	if err != nil {
		return nil, &ValueError{Path: strings.ReplaceAll(strings.TrimSuffix(cipher.failedAt, ":"), ":", ".")}
	}
	want, err := cipher.Decrypt(tree.Metadata.MessageAuthenticationCode, dataKey, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil {
		return nil, ErrMAC
	}
	wantMAC, ok := want.(string)
	if !ok || wantMAC == "" || subtle.ConstantTimeCompare([]byte(wantMAC), []byte(mac)) != 1 {
		return nil, ErrMAC
	}
	f = &SOPSFile{format: format, sealed: map[string]int{}}
	if err := f.collect(tree.Branches, before); err != nil {
		return nil, err
	}
	whole := withoutBinding(tree.Branches, format)
	plain, err := format.store().EmitPlainFile(whole)
	if err != nil {
		return nil, &FormatError{What: "the opened file can not be written as " + string(format)}
	}
	f.Plain = NewSecret(plain)
	return f, nil
}

// snapshot remembers the text of each leaf, before sops decrypts in place.
func snapshot(branches sops.TreeBranches) map[string]string {
	out := map[string]string{}
	walkLeaves(branches, func(at place, v any) any {
		if s, ok := v.(string); ok {
			out[at.key()] = s
		}
		return v
	})
	return out
}

// collect takes the leaves that were sealed out of the decrypted tree, and the
// binding with them.
func (f *SOPSFile) collect(decrypted sops.TreeBranches, before map[string]string) error {
	var bindErr error
	f.branches = walkLeaves(decrypted, func(at place, v any) any {
		was := before[at.key()]
		wasSealed := strings.HasPrefix(was, encPrefix) && v != any(was)
		if at.looksLikeBinding(f.format) {
			if err := f.takeBinding(at, v, wasSealed); err != nil && bindErr == nil {
				bindErr = err
			}
			return drop
		}
		if !wasSealed {
			return v
		}
		kind, text := leafText(f.format, v)
		f.sealed[at.key()] = len(f.Leaves)
		f.Leaves = append(f.Leaves, Leaf{Path: at.path, Kind: kind, Text: NewSecret(text), Place: string(f.format) + "\x00" + at.key()})
		return v
	})
	return bindErr
}

func (f *SOPSFile) takeBinding(at place, v any, sealed bool) error {
	s, ok := v.(string)
	if !at.isBinding(f.format) || !ok {
		return ErrBindingMoved
	}
	if !sealed {
		return ErrBindingNotSealed
	}
	b, err := ParseBinding(s)
	if err != nil {
		return ErrBindingMoved
	}
	if f.Binding != "" && f.Binding != b {
		return ErrBindingMoved
	}
	f.Binding = b
	return nil
}

var bindingKeys = []string{"metadata", "annotations", BindingAnnotation}

const bindingKeyPath = `metadata.annotations["` + BindingAnnotation + `"]`

// looksLikeBinding goes by the joined path that sops authenticates: a leaf
// nested under a key that itself holds ":" has the same one.
func (p place) looksLikeBinding(format Format) bool {
	joined := strings.Join(p.keys, ":")
	switch format {
	case YAML, JSON:
		return joined == strings.Join(bindingKeys, ":")
	case Dotenv:
		return joined == BindingVariable
	default:
		return false
	}
}

func (p place) isBinding(format Format) bool {
	if !p.looksLikeBinding(format) {
		return false
	}
	// The path shows list indexes, which the joined keys leave out.
	if format == Dotenv {
		return p.path == BindingVariable
	}
	return p.path == bindingKeyPath && slices.Equal(p.keys, bindingKeys)
}

// key identifies the leaf within its file.
func (p place) key() string { return strconv.Itoa(p.doc) + "\x00" + p.path }

// Masked returns the file with token(leaf) in the place of each sealed value,
// without comments, metadata and binding.
func (f *SOPSFile) Masked(token func(Leaf) string) ([]byte, error) {
	masked := walkLeaves(f.branches, func(at place, v any) any {
		if i, ok := f.sealed[at.key()]; ok {
			return token(f.Leaves[i])
		}
		return v
	})
	return emit(f.format, masked)
}

func emit(format Format, branches sops.TreeBranches) ([]byte, error) {
	out, err := format.store().EmitPlainFile(branches)
	if err != nil {
		return nil, &FormatError{What: "can not be written as " + string(format)}
	}
	return out, nil
}

// MaskUnopened masks a file without keys: each sealed value becomes
// token(ciphertext). Where mark is not empty it is added to every document, so
// that whatever is rendered from this file can be recognised and refused.
func MaskUnopened(file []byte, format Format, token func(ciphertext string) string, mark string) (masked []byte, err error) {
	silenceSOPS()
	defer func() {
		if recover() != nil { // for example metadata that is a list
			masked, err = nil, &FormatError{What: "not a well-formed SOPS file"}
		}
	}()
	tree, err := loadEncryptedSafely(file, format)
	if err != nil {
		return nil, err
	}
	branches := walkLeaves(tree.Branches, func(at place, v any) any {
		if at.looksLikeBinding(format) {
			return drop
		}
		if s, ok := v.(string); ok && strings.HasPrefix(s, encPrefix) {
			return token(s)
		}
		return v
	})
	if mark != "" {
		for i := range branches {
			branches[i] = markBranch(branches[i], format, mark)
		}
	}
	return emit(format, branches)
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
}

func (c *pathCipher) Decrypt(ciphertext string, key []byte, additionalData string) (any, error) {
	v, err := c.Cipher.Decrypt(ciphertext, key, additionalData)
	if err != nil {
		c.failedAt = additionalData
		return nil, errors.New("value does not open")
	}
	return v, nil
}
