package build

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// kustomizeFS shows a tree to kustomize as a file system rooted at "/", read
// only and without copying it.
type kustomizeFS struct{ tree fs.FS }

var errReadOnly = errors.New("the repository is read-only")

func absolute(p string) string { return path.Join("/", p) }

// relative is p as fs.FS wants it; kustomize passes absolute paths, and ones
// relative to the root.
func relative(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(p)), "/")
	if p == "" {
		return "."
	}
	return p
}

func (k kustomizeFS) ReadFile(p string) ([]byte, error) { return readLimited(k.tree, relative(p)) }

func (k kustomizeFS) IsDir(p string) bool {
	info, err := fs.Stat(k.tree, relative(p))
	return err == nil && info.IsDir()
}

func (k kustomizeFS) Exists(p string) bool {
	_, err := fs.Stat(k.tree, relative(p))
	return err == nil
}

func (k kustomizeFS) ReadDir(p string) ([]string, error) {
	entries, err := fs.ReadDir(k.tree, relative(p))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (k kustomizeFS) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	rel := relative(p)
	info, err := fs.Stat(k.tree, rel)
	if err != nil {
		return "", "", fmt.Errorf("%s does not exist in the repository", rel)
	}
	if info.IsDir() {
		return filesys.ConfirmedDir(absolute(rel)), "", nil
	}
	dir, file := path.Split(absolute(rel))
	return filesys.ConfirmedDir(path.Clean(dir)), file, nil
}

func (k kustomizeFS) Glob(pattern string) ([]string, error) {
	names, err := fs.Glob(k.tree, relative(pattern))
	for i := range names {
		names[i] = absolute(names[i])
	}
	return names, err
}

func (k kustomizeFS) Walk(root string, walk filepath.WalkFunc) error {
	return fs.WalkDir(k.tree, relative(root), func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return walk(absolute(p), nil, err)
		}
		info, err := d.Info()
		return walk(absolute(p), info, err)
	})
}

func (k kustomizeFS) Open(string) (filesys.File, error)   { return nil, errReadOnly }
func (k kustomizeFS) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (k kustomizeFS) Mkdir(string) error                  { return errReadOnly }
func (k kustomizeFS) MkdirAll(string) error               { return errReadOnly }
func (k kustomizeFS) RemoveAll(string) error              { return errReadOnly }
func (k kustomizeFS) WriteFile(string, []byte) error      { return errReadOnly }
