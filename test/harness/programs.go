package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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
	if err := NoteSources(root); err != nil {
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
