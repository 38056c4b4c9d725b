package harness

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// NoteSources looks at every source file below root, so that `go test` does not take
// an old result for one of the programs as they are now: it sees what a test opens,
// not what a test has built.
func NoteSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin") {
			return fs.SkipDir
		}
		switch name := d.Name(); {
		case strings.HasSuffix(name, ".go"), name == "go.mod", name == "go.sum", name == "Makefile", name == "Dockerfile", name == ".dockerignore":
			_, err = os.Stat(path)
		}
		return err
	})
}
