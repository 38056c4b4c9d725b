package source

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
)

// Tree is the content of a commit, in memory, read-only and safe for concurrent
// use. It implements fs.FS, fs.ReadFileFS, fs.ReadDirFS, fs.StatFS and
// fs.ReadLinkFS.
//
// Symbolic links behave as on a disk: opening one, or a path through one, opens
// what it points to, while ReadDir shows the link itself, so that fs.WalkDir
// meets every file once. A link out of the repository never gets into a Tree; a
// dangling one is an error (*SymlinkError, also fs.ErrNotExist) when it is
// opened. A submodule is an empty folder. A file beyond Limits.FileBytes is
// there, and opening it is a *LimitError.
//
// Modes are 0444, 0555 for executables and folders. Times are zero.
type Tree struct {
	nodes map[string]*node // by real path; "." is the root
	files []string         // real paths of regular files, sorted
	limit int64            // Limits.FileBytes, for messages
}

type node struct {
	path     string
	mode     fs.FileMode
	hash     plumbing.Hash // git's name of what it holds; of a folder, all below
	data     []byte        // content, or the target of a link
	size     int64
	dropped  bool
	parent   *node
	children []*node // of a folder, by name
}

func (n *node) name() string { return path.Base(n.path) }

// objectStore is where a tree is loaded from: a pack, or a repository on this
// machine.
type objectStore interface {
	// get returns the object, without content if it is a blob bigger than
	// Limits.FileBytes.
	get(hash plumbing.Hash, kind plumbing.ObjectType) (object, error)
}

// treeLoader builds a Tree. Every entry is counted as it is visited: a small
// pack can describe a huge tree by using the same folder many times.
type treeLoader struct {
	store   objectStore
	limits  Limits
	tree    *Tree
	used    objects // everything the tree consists of
	entries int
	bytes   int64
}

func loadTree(ctx context.Context, store objectStore, root plumbing.Hash, limits Limits) (*Tree, objects, error) {
	l := &treeLoader{
		store:  store,
		limits: limits,
		tree:   &Tree{nodes: map[string]*node{}, limit: limits.FileBytes},
		used:   objects{},
	}
	top := &node{path: ".", mode: fs.ModeDir | 0o555, hash: root}
	l.tree.nodes["."] = top
	if err := l.loadFolder(ctx, top, root, 0); err != nil {
		return nil, nil, err
	}
	slices.Sort(l.tree.files)
	if err := l.tree.refuseEscapes(ctx); err != nil {
		return nil, nil, err
	}
	return l.tree, l.used, nil
}

func (l *treeLoader) loadFolder(ctx context.Context, dir *node, hash plumbing.Hash, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > maxPathDepth {
		return &LimitError{What: "the depth of folder " + printable(dir.path), Limit: maxPathDepth, Unit: "folders"}
	}
	obj, err := l.object(hash, plumbing.TreeObject)
	if err != nil {
		return err
	}
	entries, err := parseTree(obj.data)
	if err != nil {
		return fmt.Errorf("folder %s: %w", printable(dir.path), err)
	}
	for _, e := range entries {
		if l.entries++; l.entries > l.limits.TreeEntries {
			return &LimitError{What: "the tree", Limit: int64(l.limits.TreeEntries), Unit: "files and folders"}
		}
		if err := l.loadEntry(ctx, dir, e, depth); err != nil {
			return err
		}
	}
	slices.SortFunc(dir.children, func(a, b *node) int { return cmp.Compare(a.path, b.path) })
	return nil
}

func (l *treeLoader) loadEntry(ctx context.Context, dir *node, e treeEntry, depth int) error {
	n := &node{path: path.Join(dir.path, e.name), parent: dir, hash: e.hash}
	if len(n.path) > maxPathBytes {
		return &LimitError{What: "the length of a path in folder " + printable(dir.path[:min(len(dir.path), 200)]), Limit: maxPathBytes, Unit: "bytes"}
	}
	if l.tree.nodes[n.path] != nil {
		return fmt.Errorf("folder %s holds %s twice", printable(dir.path), printable(e.name))
	}
	l.tree.nodes[n.path] = n
	dir.children = append(dir.children, n)
	switch e.mode {
	case filemode.Dir:
		n.mode = fs.ModeDir | 0o555
		return l.loadFolder(ctx, n, e.hash, depth+1)
	case filemode.Submodule:
		n.mode = fs.ModeDir | 0o555
		return nil
	case filemode.Symlink:
		n.mode = fs.ModeSymlink | 0o777
	case filemode.Executable:
		n.mode = 0o555
	case filemode.Regular, filemode.Deprecated:
		n.mode = 0o444
	default:
		return fmt.Errorf("%s has the unknown git mode %o", printable(n.path), uint32(e.mode))
	}
	obj, err := l.object(e.hash, plumbing.BlobObject)
	if err != nil {
		return fmt.Errorf("file %s: %w", printable(n.path), err)
	}
	n.data, n.size, n.dropped = obj.data, obj.size, obj.dropped
	if l.bytes += int64(len(obj.data)); l.bytes > l.limits.TreeBytes {
		return &LimitError{What: "the tree", Limit: l.limits.TreeBytes, Unit: "bytes"}
	}
	if n.mode&fs.ModeSymlink != 0 {
		if n.dropped || n.size > maxLinkBytes {
			return &LimitError{What: "the target of symlink " + printable(n.path), Limit: maxLinkBytes, Unit: "bytes"}
		}
		return nil
	}
	l.tree.files = append(l.tree.files, n.path)
	return nil
}

func (l *treeLoader) object(hash plumbing.Hash, kind plumbing.ObjectType) (object, error) {
	if obj, ok := l.used[hash]; ok && obj.kind == kind {
		return obj, nil
	}
	obj, err := l.store.get(hash, kind)
	if err != nil {
		return object{}, err
	}
	l.used[hash] = obj
	return obj, nil
}

type treeEntry struct {
	name string
	mode filemode.FileMode
	hash plumbing.Hash
}

// parseTree reads a tree object: "MODE NAME\0HASH" again and again.
func parseTree(data []byte) ([]treeEntry, error) {
	const malformed = "malformed git tree"
	var entries []treeEntry
	for len(data) > 0 {
		mode, rest, ok := bytes.Cut(data, []byte(" "))
		if !ok || len(mode) > 7 {
			return nil, fmt.Errorf("%w: %s", ErrProtocol, malformed)
		}
		bits, err := strconv.ParseUint(string(mode), 8, 32)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", ErrProtocol, malformed)
		}
		name, rest, ok := bytes.Cut(rest, []byte{0})
		e := treeEntry{name: string(name), mode: filemode.FileMode(bits)}
		if !ok || len(rest) < len(e.hash) {
			return nil, fmt.Errorf("%w: %s", ErrProtocol, malformed)
		}
		copy(e.hash[:], rest)
		data = rest[len(e.hash):]
		if err := checkName(e.name); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// checkName refuses what is not one plain element of a path. git's own tools do
// not make such names; a NUL can not get here.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, `/\`) || !utf8.ValidString(name) {
		return fmt.Errorf("refused file name %s", strconv.Quote(name))
	}
	return nil
}

// Files returns the paths of all regular files, sorted. Symbolic links, and
// what is reached only through them, are not among them: see Links.
func (t *Tree) Files() []string { return slices.Clone(t.files) }

// ChangedSince returns the paths of files and symbolic links that are not the same
// in both trees: those that are new, gone, or differ in content, mode or kind;
// sorted. Without an old tree they are all there are. Content is compared by hash,
// so folders that are the same cost nothing. What changed behind a symbolic link is
// listed where it lies, not under the link; a submodule never is.
func (t *Tree) ChangedSince(old *Tree) []string {
	var changed []string
	var before *node
	if old != nil {
		before = old.nodes["."]
	}
	compare(before, t.nodes["."], &changed)
	slices.Sort(changed)
	return changed
}

// compare adds what differs between two nodes of one path, each of which may be nil.
func compare(a, b *node, changed *[]string) {
	if a != nil && b != nil && a.hash == b.hash && a.mode == b.mode {
		return
	}
	file := func(n *node) bool { return n != nil && !n.mode.IsDir() }
	if file(a) || file(b) {
		if file(b) {
			*changed = append(*changed, b.path)
		} else {
			*changed = append(*changed, a.path)
		}
	}
	var left, right []*node
	if a != nil {
		left = a.children
	}
	if b != nil {
		right = b.children
	}
	for len(left) > 0 || len(right) > 0 {
		switch {
		case len(right) == 0 || len(left) > 0 && left[0].path < right[0].path:
			compare(left[0], nil, changed)
			left = left[1:]
		case len(left) == 0 || right[0].path < left[0].path:
			compare(nil, right[0], changed)
			right = right[1:]
		default:
			compare(left[0], right[0], changed)
			left, right = left[1:], right[1:]
		}
	}
}

// Open implements fs.FS.
func (t *Tree) Open(name string) (fs.File, error) {
	n, err := t.find("open", name, followLinks)
	if err != nil {
		return nil, err
	}
	if n.mode.IsDir() {
		return &openFolder{node: n, name: path.Base(name)}, nil
	}
	if err := t.readable(n); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &openFile{Reader: *bytes.NewReader(n.data), info: info{n, path.Base(name)}}, nil
}

// ReadFile implements fs.ReadFileFS. The bytes are the caller's.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	n, err := t.find("read", name, followLinks)
	if err != nil {
		return nil, err
	}
	if n.mode.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errIsFolder}
	}
	if err := t.readable(n); err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return bytes.Clone(n.data), nil
}

// ReadDir implements fs.ReadDirFS. Links show as links.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	n, err := t.find("readdir", name, followLinks)
	if err != nil {
		return nil, err
	}
	if !n.mode.IsDir() {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: errNotFolder}
	}
	return n.entries(), nil
}

// Stat implements fs.StatFS.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	n, err := t.find("stat", name, followLinks)
	if err != nil {
		return nil, err
	}
	return info{n, path.Base(name)}, nil
}

// Lstat implements fs.ReadLinkFS.
func (t *Tree) Lstat(name string) (fs.FileInfo, error) {
	n, err := t.find("lstat", name, keepLastLink)
	if err != nil {
		return nil, err
	}
	return info{n, path.Base(name)}, nil
}

func (t *Tree) readable(n *node) error {
	if n.dropped {
		return &LimitError{What: "file " + printable(n.path), Limit: t.limit, Unit: "bytes"}
	}
	return nil
}

func (n *node) entries() []fs.DirEntry {
	entries := make([]fs.DirEntry, len(n.children))
	for i, c := range n.children {
		entries[i] = fs.FileInfoToDirEntry(info{c, c.name()})
	}
	return entries
}

// info is a node under the name it was asked for by.
type info struct {
	node *node
	base string
}

func (i info) Name() string       { return i.base }
func (i info) Size() int64        { return i.node.size }
func (i info) Mode() fs.FileMode  { return i.node.mode }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.node.mode.IsDir() }
func (i info) Sys() any           { return nil }

type openFile struct {
	bytes.Reader
	info info
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openFolder struct {
	node   *node
	name   string
	offset int
}

func (f *openFolder) Stat() (fs.FileInfo, error) { return info{f.node, f.name}, nil }
func (f *openFolder) Close() error               { return nil }

func (f *openFolder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: f.name, Err: errIsFolder}
}

// ReadDir implements fs.ReadDirFile.
func (f *openFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	left := f.node.entries()[f.offset:]
	if n <= 0 {
		f.offset += len(left)
		return left, nil
	}
	if len(left) == 0 {
		return nil, io.EOF
	}
	left = left[:min(n, len(left))]
	f.offset += len(left)
	return left, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
