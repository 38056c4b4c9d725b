package decrypt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"path"
	"runtime"
	"slices"
	"sync"

	"github.com/gitseal/gitseal/crypto"
)

// openedFile is a sealed file as one pass after another can use it.
type openedFile struct {
	masked     []byte
	maskedSum  [sha256.Size]byte
	leaves     []openedLeaf
	whole      func() (wholeContent, error) // made when it is asked for
	unverified error
	openedBy   []string      // fingerprints of keys
	forged     *ForgeryError // where it holds text of a placeholder's shape; without the name
	err        error         // why it does not open; crypto.ErrNotSOPS for one that is not sealed
}

type openedLeaf struct {
	token string
	kind  string
	text  crypto.Secret
	from  origin // without the file
}

// opener opens sealed files with the keys of one pass.
type opener struct {
	ring       crypto.Keyring
	ringDigest string
	digester   Digester
	policy     Policy
	cache      *Cache
}

// open returns the opened file from the cache or opens it. Safe for concurrent
// use.
func (o *opener) open(raw []byte, format crypto.Format) *openedFile {
	k := keyOf([]byte(format), raw, []byte(o.ringDigest), []byte(o.policy.MAC))
	if f, ok := keep(o.cache, o.cache.files, k); ok {
		return f
	}
	f := o.openNow(raw, format)
	store(o.cache, o.cache.files, k, f, &o.cache.opened.Files)
	return f
}

func (o *opener) openNow(raw []byte, format crypto.Format) *openedFile {
	if holdsForgery(raw) {
		return &openedFile{forged: &ForgeryError{}}
	}
	file, err := crypto.OpenSOPS(crypto.OpenRequest{File: raw, Format: format, Keys: o.ring, MAC: o.policy.MAC})
	if err != nil {
		return &openedFile{err: err}
	}
	out := &openedFile{unverified: file.Unverified, openedBy: file.OpenedBy(), whole: sync.OnceValues(func() (wholeContent, error) {
		plain, err := file.Plain()
		if err != nil {
			return wholeContent{}, err
		}
		return wholeContent{plain, o.digester.Digest("whole", plain.Reveal())}, nil
	})}
	for _, leaf := range file.Leaves {
		if holdsForgery(leaf.Text.Reveal()) {
			out.forged = &ForgeryError{Opened: true}
		}
	}
	if file.NothingSealed {
		var plain crypto.Secret
		plain, out.err = file.Plain()
		out.masked = plain.Reveal()
		return out
	}
	out.masked, out.err = file.Masked(func(leaf crypto.Leaf) string {
		end := ""
		if text := leaf.Text.Reveal(); format == crypto.Dotenv && bytes.HasSuffix(text, []byte("\r")) {
			// To sops it belongs to the value, to whoever reads the lines it does not.
			leaf.Text, end = crypto.NewSecret(text[:len(text)-1]), "\r"
		}
		token := o.digester.opened(leaf)
		out.leaves = append(out.leaves, openedLeaf{token: token, kind: leaf.Kind, text: leaf.Text,
			from: origin{path: leaf.Path, binding: leaf.Binding, objectKind: leaf.ObjectKind, own: o.own(leaf.OpenedBy)}})
		return token + end
	})
	if len(out.leaves) == 0 && out.err == nil {
		out.err = o.maskComments(out, file)
	}
	out.maskedSum = sha256.Sum256(out.masked)
	return out
}

// own reports whether all of the keys are the tenant's own.
func (o *opener) own(keys []string) bool {
	return len(keys) > 0 && !slices.ContainsFunc(keys, func(k string) bool { return !o.ring.Own[k] })
}

// maskComments gives a file of which only comments are sealed a placeholder in a
// comment, for all of it: as the content of a generator it is put back whole.
func (o *opener) maskComments(out *openedFile, file *crypto.SOPSFile) error {
	plain, err := file.Plain()
	if err != nil {
		return err
	}
	leaf := crypto.Leaf{Place: "comments", Text: plain}
	for _, b := range file.Bindings() {
		leaf.Binding = b
	}
	token := o.digester.opened(leaf)
	out.leaves = append(out.leaves, openedLeaf{token: token, text: crypto.NewSecretString(""), from: origin{path: "comments", binding: leaf.Binding, own: o.own(file.OpenedBy())}})
	out.masked = slices.Concat([]byte("# "+token+"\n"), out.masked)
	return nil
}

// Prefetch opens the sealed files below dir on all processors, for a build of
// dir that will read most of them. What it finds wrong is said only when a file
// is read.
func (m *Masker) Prefetch(ctx context.Context, dir string) {
	if m.keys == nil {
		return
	}
	files := make(chan string)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for name := range files {
				if raw, err := fs.ReadFile(m.tree, name); err == nil && crypto.MayBeSOPS(raw) {
					m.open(raw, crypto.FormatOfFile(name, raw))
				}
			}
		})
	}
	_ = fs.WalkDir(m.tree, path.Clean(dir), func(name string, d fs.DirEntry, err error) error { // what can not be read is reported by the build
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fs.SkipDir
		case d.Type().IsRegular():
			files <- name
		}
		return nil
	})
	close(files)
	workers.Wait()
}

// addTo records what the tokens of the file stand for.
func (f *openedFile) addTo(v *values, name string) {
	for _, leaf := range f.leaves {
		from := leaf.from
		from.file = name
		v.add(leaf.token, leaf.kind, leaf.text, from)
	}
	if len(f.leaves) > 0 {
		v.addWhole(f.maskedSum, name, f.whole)
	}
}

// notSealed reports whether the file is none that could be opened, with or
// without keys.
func (f *openedFile) notSealed() bool { return errors.Is(f.err, crypto.ErrNotSOPS) }

// bindings lists those of its values, "" for values without one, each once.
func (f *openedFile) bindings() []crypto.Binding {
	var out []crypto.Binding
	for _, leaf := range f.leaves {
		if !slices.Contains(out, leaf.from.binding) {
			out = append(out, leaf.from.binding)
		}
	}
	return out
}
