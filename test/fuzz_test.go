package test

import (
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFuzzTargetsHaveSeeds: each target asks for its seeds, and each folder of
// seeds belongs to a target. `go test` says nothing of either.
func TestFuzzTargetsHaveSeeds(t *testing.T) {
	t.Parallel()
	targets := map[string]bool{} // folder of seeds → whether the target asks for it
	var folders []string
	err := filepath.WalkDir("..", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && p != "..":
			return fs.SkipDir
		case d.IsDir() && filepath.Base(filepath.Dir(p)) == "fuzz":
			folders = append(folders, p)
			return fs.SkipDir
		case d.IsDir():
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != ".." {
				return fs.SkipDir // another module
			}
		case strings.HasSuffix(p, "_test.go"):
			addTargets(targets, filepath.Dir(p), parse(t, p))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(targets) < 20 {
		t.Fatalf("found only %d targets: the test looks at the wrong place", len(targets))
	}
	for folder, asks := range targets {
		if !asks {
			t.Errorf("%s does not begin with corpus.Of: nothing would say that it lost its seeds", filepath.Base(folder))
		}
		if !slices.Contains(folders, folder) {
			t.Errorf("%s is not there", folder)
		}
	}
	for _, folder := range folders {
		if _, ok := targets[folder]; !ok {
			t.Errorf("%s belongs to no target; was one renamed?", folder)
		}
	}
}

// addTargets finds the targets of a file, and whether they ask for their seeds.
func addTargets(targets map[string]bool, dir string, file *ast.File) {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") {
			continue
		}
		asks := false
		ast.Inspect(f.Body.List[0], func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Of" {
				x, _ := sel.X.(*ast.Ident)
				asks = asks || x != nil && x.Name == "corpus"
			}
			return true
		})
		targets[filepath.Join(dir, "testdata", "fuzz", f.Name.Name)] = asks
	}
}
