package decrypt

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gitseal/gitseal/crypto"
)

// origin is a sealed leaf that a token came from.
type origin struct {
	file    string
	path    string
	binding crypto.Binding
	// objectKind is that of the object that the leaf was sealed in.
	objectKind string
	// own says that only keys of this tenant alone opened it.
	own bool
}

// values remembers what the tokens of one pass stand for.
type values struct {
	sealed  map[string]sealedValue          // by token
	whole   map[[sha256.Size]byte]wholeFile // exact masked content → exact plain content
	missing map[string]string               // token of an unopened leaf → its file
}

type sealedValue struct {
	text    crypto.Secret
	kind    string // str, int, float, bool, time
	origins []origin
}

// wholeFile lists the files with one masked content.
type wholeFile []wholeSource

type wholeSource struct {
	file    string
	content func() (wholeContent, error)
}

type wholeContent struct {
	plain  crypto.Secret
	digest string // keyed, of plain: the tokens do not tell comments apart
}

func newValues() *values {
	return &values{
		sealed: map[string]sealedValue{},
		whole:  map[[sha256.Size]byte]wholeFile{}, missing: map[string]string{},
	}
}

// clone is a copy that later reads of the tree do not change.
func (v *values) clone() *values {
	return &values{sealed: maps.Clone(v.sealed), whole: maps.Clone(v.whole), missing: maps.Clone(v.missing)}
}

func (v *values) add(token, kind string, text crypto.Secret, from origin) {
	origins := v.sealed[token].origins
	if !slices.Contains(origins, from) {
		origins = append(slices.Clip(origins), from)
	}
	v.sealed[token] = sealedValue{text, kind, origins}
}

func (v *values) addWhole(key [sha256.Size]byte, file string, content func() (wholeContent, error)) {
	v.whole[key] = append(slices.Clip(v.whole[key]), wholeSource{file, content})
}

// file names where a token came from, for messages.
func (v *values) file(token string) string {
	var files []string
	for _, o := range v.sealed[token].origins {
		if !slices.Contains(files, o.file) && len(files) < maxFilesNamed {
			files = append(files, o.file)
		}
	}
	if len(files) > 0 {
		return strings.Join(files, " or ") // equal values in equal places have one token
	}
	return v.missing[token]
}

// errFragment and errUnknown are about placeholders that do not resolve.
var (
	errFragment = errors.New("holds a part of a placeholder: something cut it (a `replacements` delimiter on a sealed value, for instance)")
	errEncoded  = errors.New("holds a placeholder as base64 within a longer text, where its value can not be put; take it from the stringData of a sealed Secret instead")
	// Not said: which of the values it is, or what of it.
	errStructure = errors.New("is YAML or JSON with a placeholder in it, and the value would not be read back as the same text there (it holds a quote, a line break or the like, or looks like a number); seal the whole text as one value")
	errUnknown   = errors.New("holds a placeholder that this pass did not make")
)

func (v *values) unresolved(token string) error {
	if f, ok := v.missing[token]; ok {
		return &unopenedError{file: f}
	}
	return errUnknown
}

// unopenedError says that a value is needed that could not be opened.
type unopenedError struct{ file string }

func (e *unopenedError) Error() string {
	return fmt.Sprintf("needs a sealed value of %s, which could not be opened", e.file)
}

// wholeOf returns the plain file that text stands for as a whole.
func (v *values) wholeOf(text string) (content wholeContent, ok bool, err error) {
	if !strings.Contains(text, openedHead) {
		return wholeContent{}, false, nil
	}
	files, ok := v.whole[sha256.Sum256([]byte(text))]
	for i, f := range files {
		c, err := f.content()
		switch {
		case err != nil:
			return wholeContent{}, true, fmt.Errorf("stands for the whole of %s: %w", f.file, err)
		case i == 0:
			content = c
		case !c.plain.Equal(content.plain):
			return wholeContent{}, true, fmt.Errorf("stands for either %s or %s: the two files differ only in their comments; change a key in one of them", files[0].file, f.file)
		}
	}
	return content, ok, nil
}
