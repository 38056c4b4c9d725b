package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/konfig"
)

// Limits of one build.
const (
	MaxFileBytes = 10 << 20 // of one file that is rendered
	MaxObjects   = 100_000
)

// Order says how the objects of a build are sorted.
type Order string

// The orders.
const (
	AsWritten Order = "none"   // the order of the files; what the agent uses
	ByKind    Order = "legacy" // the order that `kustomize build` prints
)

// ErrNoObjects is returned for a folder that renders to nothing.
var ErrNoObjects = errors.New("renders no objects")

// PathError says that the folder to render is not there.
type PathError struct{ Path string }

func (e *PathError) Error() string {
	return fmt.Sprintf("path %s is not a folder of the repository", e.Path)
}

// Run renders the folder dir of tree; "" and "." are its root. The same tree
// always gives the same objects in the same order. Errors name the file.
// Safe for concurrent use.
func Run(ctx context.Context, tree fs.FS, dir string, order Order) ([]*unstructured.Unstructured, error) {
	dir, err := folderOf(tree, dir)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	if kustomizationIn(tree, dir) != "" {
		objects, err = runKustomize(ctx, newRecord(tree), dir, order)
	} else {
		objects, err = runPlain(ctx, tree, dir)
	}
	if err != nil {
		return nil, err
	}
	return limited(objects, dir)
}

func limited(objects []*unstructured.Unstructured, dir string) ([]*unstructured.Unstructured, error) {
	switch n := len(objects); {
	case n == 0:
		return nil, fmt.Errorf("path %s %w", dir, ErrNoObjects)
	case n > MaxObjects:
		return nil, fmt.Errorf("path %s renders %d objects, more than %d", dir, n, MaxObjects)
	}
	return objects, nil
}

// folderOf cleans and checks the path to render.
func folderOf(tree fs.FS, dir string) (string, error) {
	if dir = path.Clean(strings.Trim(dir, "/")); dir == "" {
		dir = "."
	}
	if !fs.ValidPath(dir) {
		return "", &PathError{Path: dir}
	}
	if info, err := fs.Stat(tree, dir); err != nil || !info.IsDir() {
		return "", &PathError{Path: dir}
	}
	return dir, nil
}

// kustomizationIn returns the path of the folder's kustomization file, or "".
func kustomizationIn(tree fs.FS, dir string) string {
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		p := path.Join(dir, name)
		if info, err := fs.Stat(tree, p); err == nil && !info.IsDir() {
			return p
		}
	}
	return ""
}
