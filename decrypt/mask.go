package decrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/gitseal/gitseal/crypto"
)

// Keys is where private keys come from. An implementation may return others
// from call to call; one pass should use one.
type Keys interface {
	Identities() []crypto.Identity
	CertificateKeys() []crypto.CertificateKey // newest first
}

// Problem is a sealed file that could not be opened. Its values render as
// placeholders that are never applied.
type Problem struct {
	File string
	Err  error // never holds content
}

func (p Problem) Error() string { return p.File + ": " + p.Err.Error() }

// Masker is a read-only tree in which sealed values are placeholders. A file is
// masked when it is first read, so files that no render touches are never
// opened. Safe for concurrent use.
type Masker struct {
	tree     fs.FS
	keys     Keys // nil: nothing can be opened, and nothing is reported for it
	digester Digester

	mu       sync.Mutex
	files    map[string][]byte
	values   *values
	problems []Problem
	fatal    error
}

// NewMasker masks tree with the keys; without keys (nil) the placeholders are
// made from ciphertext, and nothing rendered from them can be applied.
func NewMasker(tree fs.FS, keys Keys, digester Digester) *Masker {
	return &Masker{tree: tree, keys: keys, digester: digester, files: map[string][]byte{}, values: newValues()}
}

// Problems lists the files that were read and could not be opened, in the order
// of reading.
func (m *Masker) Problems() []Problem {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.problems)
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
	if err != nil {
		if m.fatal == nil {
			m.fatal = err
		}
		return nil, err
	}
	m.files[name] = masked
	return masked, nil
}

func (m *Masker) mask(name string, raw []byte) ([]byte, error) {
	if holdsForgery(raw) {
		return nil, &ForgeryError{File: name}
	}
	format := crypto.FormatOf(name)
	if !crypto.IsSOPS(raw, format) {
		return raw, nil
	}
	if m.keys == nil {
		return m.maskUnopened(name, raw, format, "")
	}
	file, err := crypto.OpenSOPS(raw, format, m.keys.Identities())
	if err == nil {
		for _, leaf := range file.Leaves {
			if holdsForgery(leaf.Text.Reveal()) {
				return nil, &ForgeryError{File: name, Opened: true}
			}
		}
		return m.maskOpened(name, file)
	}
	m.problems = append(m.problems, Problem{File: name, Err: err})
	mark := unopened(name)
	m.values.missing[mark] = name
	return m.maskUnopened(name, raw, format, mark)
}

func (m *Masker) maskOpened(name string, file *crypto.SOPSFile) ([]byte, error) {
	dotenv := crypto.FormatOf(name) == crypto.Dotenv
	masked, err := file.Masked(func(leaf crypto.Leaf) string {
		end := ""
		if text := leaf.Text.Reveal(); dotenv && bytes.HasSuffix(text, []byte("\r")) {
			// To sops it belongs to the value, to whoever reads the lines it does not.
			leaf.Text, end = crypto.NewSecret(text[:len(text)-1]), "\r"
		}
		token := m.digester.opened(leaf, file.Binding)
		m.values.add(token, leaf.Text, origin{file: name, path: leaf.Path, binding: file.Binding})
		return token + end
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	m.values.addWhole(masked, name, file.Plain, m.digester.Digest("whole", file.Plain.Reveal()))
	return masked, nil
}

// maskUnopened never fails for a file that can be parsed at all. One that can
// not is left as it is: the build or the gate will refuse what comes of it.
func (m *Masker) maskUnopened(name string, raw []byte, format crypto.Format, mark string) (masked []byte, err error) {
	defer func() {
		if recover() != nil { // the library panics where the mark should go, if metadata is a list, say
			masked, err = raw, nil
		}
	}()
	masked, err = crypto.MaskUnopened(raw, format, func(ciphertext string) string {
		token := unopened(ciphertext)
		m.values.missing[token] = name
		return token
	}, mark)
	var fe *crypto.FormatError
	if errors.As(err, &fe) {
		return raw, nil
	}
	if err != nil || mark == "" || format != crypto.YAML && format != crypto.JSON {
		return masked, err
	}
	return markItems(masked, mark), nil
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
