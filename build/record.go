package build

import (
	"crypto/sha256"
	"io/fs"
	"strings"
	"sync"
)

// record is a tree that remembers what was read of it, and what was looked for.
// Safe for concurrent use.
type record struct {
	fs.FS

	mu    sync.Mutex
	files map[string][sha256.Size]byte // content
	stats map[string]entryKind
	dirs  map[string][sha256.Size]byte // names
}

type entryKind int

const (
	missing entryKind = iota
	aFile
	aFolder
)

func newRecord(tree fs.FS) *record {
	return &record{FS: tree, files: map[string][sha256.Size]byte{}, stats: map[string]entryKind{}, dirs: map[string][sha256.Size]byte{}}
}

// ReadFile implements fs.ReadFileFS.
func (r *record) ReadFile(name string) ([]byte, error) {
	b, err := fs.ReadFile(r.FS, name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.files[name] = sha256.Sum256(b)
	} else {
		r.stats[name] = missing
	}
	return b, err
}

// Stat implements fs.StatFS.
func (r *record) Stat(name string) (fs.FileInfo, error) {
	info, err := fs.Stat(r.FS, name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats[name] = kindOf(info, err)
	return info, err
}

func kindOf(info fs.FileInfo, err error) entryKind {
	switch {
	case err != nil:
		return missing
	case info.IsDir():
		return aFolder
	default:
		return aFile
	}
}

// ReadDir implements fs.ReadDirFS.
func (r *record) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(r.FS, name)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.dirs[name] = sumOf(entries)
	}
	return entries, err
}

func sumOf(entries []fs.DirEntry) [sha256.Size]byte {
	var names strings.Builder
	for _, e := range entries {
		names.WriteString(e.Name() + "\x00" + e.Type().String() + "\x00")
	}
	return sha256.Sum256([]byte(names.String()))
}

// holds reports whether the tree would answer everything as it did.
func (r *record) holds(tree fs.FS) bool {
	for name, sum := range r.files {
		if b, err := fs.ReadFile(tree, name); err != nil || sha256.Sum256(b) != sum {
			return false
		}
	}
	for name, kind := range r.stats {
		if info, err := fs.Stat(tree, name); kindOf(info, err) != kind {
			return false
		}
	}
	for name, sum := range r.dirs {
		if entries, err := fs.ReadDir(tree, name); err != nil || sumOf(entries) != sum {
			return false
		}
	}
	return true
}
