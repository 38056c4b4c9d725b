// Package image makes the agent's image as docs/install.md says, with a builder that
// needs no daemon, looks at all that is in it, and runs the agent from it as a pod
// would: as its user, from a root file system that is read-only and holds nothing else.
package image

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitseal/gitseal/test/harness"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(jailVariable); config != "" {
		os.Exit(enterJail(config))
	}
	defer func() { _ = os.RemoveAll(made.folder) }()
	harness.Main(m)
}

// made is what the tests share: making it takes seconds.
var made struct {
	sync.Mutex
	done   bool
	failed bool
	folder string // with image/, as OCI lays an image out on disk
	root   string // of the repository

	config  imageConfig // of readImage
	entries []entry
}

// makeImage runs the Makefile in the repository, and returns where it is and the image.
func makeImage(t *testing.T) (root, image string) {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.failed {
		t.Fatal("the image could not be made: see the first test")
	}
	if !made.done {
		builder := harness.BuildahScript(t) // may skip
		made.failed = true
		var err error
		if made.root, err = harness.Root(); err != nil {
			t.Fatal(err)
		}
		if err := harness.NoteSources(made.root); err != nil {
			t.Fatal(err)
		}
		if made.folder, err = os.MkdirTemp("", "gitseal-image-"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		const name = "localhost/gitseal/agent"
		version := strings.TrimSpace(runMake(t, made.root, "--eval", "print-version: ; @echo '$(VERSION)'", "print-version"))
		runMake(t, made.root, "image", "sbom", "BUILDER="+builder, "IMAGE="+name, "VERSION="+version)
		push := exec.CommandContext(t.Context(), builder, "push", name+":"+version, "oci:"+filepath.Join(made.folder, "image"))
		if out, err := push.CombinedOutput(); err != nil {
			t.Fatalf("buildah push: %v\n%s", err, out)
		}
		t.Logf("made in %s", time.Since(start).Round(100*time.Millisecond))
		made.done, made.failed = true, false
	}
	return made.root, filepath.Join(made.folder, "image")
}

// runMake returns what make prints on standard output.
func runMake(t *testing.T, root string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", append([]string{"--silent", "--no-print-directory"}, args...)...)
	cmd.Dir = root
	for _, variable := range os.Environ() { // what a make that runs the tests hands on
		if !strings.HasPrefix(variable, "MAKE") && !strings.HasPrefix(variable, "MFLAGS=") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("make %s: %v\n%s%s", strings.Join(args, " "), err, out, errOut.String())
	}
	return string(out)
}

// binary is the agent that went into the image.
func binary(root string) string {
	return filepath.Join(root, fmt.Sprintf("bin/linux-%s/agent", runtime.GOARCH))
}
