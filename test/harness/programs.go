package harness

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// programs are those of this test process: a global for the same reason as shared.
var programs struct {
	sync.Mutex
	folder string
	err    error // of the first build; it is not tried again
}

// Programs returns the folder of seal and agent, which are built from this tree at
// first use, with the race detector where there is a C compiler. TestMain has to call
// [Main], which removes them.
func Programs(t testing.TB) string {
	t.Helper()
	programs.Lock()
	defer programs.Unlock()
	if programs.folder == "" && programs.err == nil {
		if programs.folder, programs.err = os.MkdirTemp("", "gitseal-programs-"); programs.err == nil {
			programs.err = buildPrograms(t.Context(), programs.folder)
		}
	}
	if programs.err != nil {
		t.Fatal(programs.err)
	}
	return programs.folder
}

func removePrograms() {
	programs.Lock()
	defer programs.Unlock()
	if programs.folder != "" {
		_ = os.RemoveAll(programs.folder) // a temporary folder
	}
}

func buildPrograms(ctx context.Context, folder string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	if err := noteSources(root); err != nil {
		return err
	}
	args := []string{"build", "-o", folder + "/"}
	if _, err := exec.LookPath("gcc"); err == nil {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/seal", "./cmd/agent")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build seal and agent: %w\n%s", err, tail(out, outputBytes))
	}
	return nil
}

// noteSources looks at every source file, so that `go test` does not take an old
// result for one of the programs as they are now: it sees what a test opens, not
// what a test has built.
func noteSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return fs.SkipDir
		}
		if name := d.Name(); strings.HasSuffix(name, ".go") || name == "go.mod" || name == "go.sum" {
			_, err = os.Stat(path)
		}
		return err
	})
}
