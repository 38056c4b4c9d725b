package decrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gitseal/gitseal/crypto"
)

// Keys is where private keys come from. An implementation may return others
// from call to call; one pass should use one.
type Keys interface {
	Keyring() crypto.Keyring
	CertificateKeys() []crypto.CertificateKey // newest first
}

// MaskerConfig is what a Masker works on.
type MaskerConfig struct {
	Tree fs.FS
	// Keys may be nil: then nothing can be opened and nothing is reported for it,
	// placeholders are made from ciphertext, and nothing rendered from them can be
	// applied.
	Keys     Keys
	Digester Digester
	Policy   Policy
	Cache    *Cache // of the passes before this one; nil for a single pass
}

// Masker is a read-only tree in which sealed values are placeholders. A file is
// masked when it is first read, so files that no render touches are never
// reported. Safe for concurrent use.
type Masker struct {
	opener
	tree         fs.FS
	keys         Keys
	certificates []crypto.CertificateKey

	mu       sync.Mutex
	files    map[string][]byte
	values   *values
	problems []Problem
	warnings []Problem
	opened   map[string]int // files by the fingerprint of the key
	fatal    error
}

// NewMasker begins a pass.
func NewMasker(c MaskerConfig) *Masker {
	m := &Masker{opener: opener{digester: c.Digester, policy: c.Policy, cache: c.Cache}, tree: c.Tree, keys: c.Keys, files: map[string][]byte{}, values: newValues(), opened: map[string]int{}}
	if m.cache == nil {
		m.cache = NewCache()
	}
	if m.keys != nil {
		m.ring, m.certificates = m.keys.Keyring(), m.keys.CertificateKeys()
		m.ringDigest = m.ring.Digest()
	}
	m.cache.begin()
	return m
}

// Problems lists the files that were read and could not be opened, in the order
// of reading.
func (m *Masker) Problems() []Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.problems)
}

// Opened counts the files that were read, by the fingerprint of the key that opened
// them.
func (m *Masker) Opened() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.opened)
}

// Warnings lists the files that were opened although their MAC could not be
// relied on.
func (m *Masker) Warnings() []Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.warnings)
}

// Err is a *ForgeryError if a file that was read holds one. A build over such
// a tree must not be used, whatever it returned itself.
func (m *Masker) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fatal
}

// ForgeryError says that a file holds text of a placeholder's shape.
type ForgeryError struct {
	File   string
	Opened bool // inside an opened value, not in the file as it lies in git
}

func (e *ForgeryError) Error() string {
	where := "it holds"
	if e.Opened {
		where = "one of its opened values holds"
	}
	return fmt.Sprintf("%s: %s text that looks like a gitseal placeholder (gitseal0… or gitseal1…); remove it: placeholders are never written by hand", e.File, where)
}

// ReadFile returns the masked file.
func (m *Masker) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, ok := m.files[name]; ok {
		return b, nil
	}
	raw, err := fs.ReadFile(m.tree, name)
	if err != nil {
		return nil, err
	}
	masked, err := m.mask(name, raw)
	var forgery *ForgeryError
	if errors.As(err, &forgery) && m.fatal == nil {
		m.fatal = err
	}
	if err != nil {
		return nil, err
	}
	m.files[name] = masked
	return masked, nil
}

func (m *Masker) mask(name string, raw []byte) ([]byte, error) {
	var f *openedFile
	var format crypto.Format
	sealed := crypto.MayBeSOPS(raw)
	if sealed {
		format = crypto.FormatOfFile(name, raw)
	}
	if sealed && m.keys != nil {
		f = m.open(raw, format)
		if f.forged != nil {
			return nil, &ForgeryError{File: name, Opened: f.forged.Opened}
		}
	} else if holdsForgery(raw) {
		return nil, &ForgeryError{File: name}
	}
	if err := checkAliases(raw); err != nil {
		m.problems = append(m.problems, Problem{File: name, Reason: reasonOf(err), Err: err})
		return m.instead(name, crypto.FormatOf(name)), nil
	}
	switch {
	case !sealed:
		return raw, nil
	case f == nil:
		return m.maskUnopened(name, raw, format, "")
	case f.notSealed():
		return raw, nil
	case f.err != nil:
		m.problems = append(m.problems, Problem{File: name, Reason: reasonOf(f.err), Err: f.err})
		mark := unopened(name)
		m.values.missing[mark] = name
		return m.maskUnopened(name, raw, format, mark)
	}
	if f.unverified != nil {
		m.warnings = append(m.warnings, Problem{File: name, Reason: reasonOf(f.unverified), Err: f.unverified})
	}
	for _, k := range f.openedBy {
		m.opened[k]++
	}
	f.addTo(m.values, name)
	return f.masked, nil
}

// instead stands for a file that nobody may read: no objects where it is
// rendered, and what is generated from it is refused.
func (m *Masker) instead(name string, format crypto.Format) []byte {
	mark := unopened(name)
	m.values.missing[mark] = name
	switch format {
	case crypto.Dotenv:
		return fmt.Appendf(nil, "GITSEAL_UNOPENED=%s\n", mark)
	case crypto.INI:
		return fmt.Appendf(nil, "[gitseal]\nunopened = %s\n", mark)
	default: // YAML is a superset of JSON
		return fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "List", "metadata": {"annotations": {"gitseal.io/unopened": %q}}, "items": []}`+"\n", mark)
	}
}

// checkAliases refuses a file, sealed or not, that a build would expand without
// a bound. Its name does not matter: kustomize reads any file as YAML.
func checkAliases(raw []byte) error {
	if !crypto.MayHaveAliases(raw) {
		return nil
	}
	err := crypto.CheckYAML(raw)
	var limit *crypto.LimitError
	if errors.As(err, &limit) {
		return err
	}
	return nil // what else is wrong with it the build says
}

// maskUnopened never fails for a file that can be parsed at all. One that can
// not becomes one without objects if it is known to be sealed, so that the rest
// can be built; else it is left as it is.
func (m *Masker) maskUnopened(name string, raw []byte, format crypto.Format, mark string) (masked []byte, err error) {
	defer func() {
		if recover() != nil { // the library panics where the mark should go, if metadata is a list, say
			if masked, err = raw, nil; mark != "" {
				masked = m.instead(name, format)
			}
		}
	}()
	masked, err = crypto.MaskUnopened(raw, format, func(ciphertext string) string {
		token := unopened(ciphertext)
		m.values.missing[token] = name
		return token
	}, mark)
	var fe *crypto.FormatError
	var le *crypto.LimitError
	broken := errors.As(err, &fe) || errors.As(err, &le)
	switch {
	case broken && mark != "":
		return m.instead(name, format), nil
	case broken, errors.Is(err, crypto.ErrNotSOPS):
		return raw, nil
	}
	if err != nil || mark == "" || format != crypto.YAML && format != crypto.JSON {
		return masked, err
	}
	return markItems(masked, mark), nil
}

// Masks reports whether text holds a placeholder or a piece of one, plain or as
// base64.
func (m *Masker) Masks(text string) bool {
	return headPattern.MatchString(text) || findToken(text) != ""
}

// Open implements fs.FS.
func (m *Masker) Open(name string) (fs.File, error) {
	f, err := m.tree.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		return f, err
	}
	defer f.Close()
	b, err := m.ReadFile(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &maskedFile{Reader: bytes.NewReader(b), info: maskedInfo{FileInfo: info, size: int64(len(b))}}, nil
}

// ReadDir implements fs.ReadDirFS. Sizes are those of the files in git.
func (m *Masker) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(m.tree, name) }

// Stat implements fs.StatFS without opening anything. The size is that in git.
func (m *Masker) Stat(name string) (fs.FileInfo, error) { return fs.Stat(m.tree, name) }

type maskedFile struct {
	io.Reader
	info fs.FileInfo
}

func (f *maskedFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *maskedFile) Close() error               { return nil }

type maskedInfo struct {
	fs.FileInfo
	size int64
}

func (i maskedInfo) Size() int64        { return i.size }
func (i maskedInfo) ModTime() time.Time { return i.FileInfo.ModTime() }
