package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const (
	// jailVariable holds a jail as JSON, for the process that makes it.
	jailVariable = "GITSEAL_TEST_JAIL"
	// agentID is the user and group of the image.
	agentID = 65532
	// jailFailed is the exit code when the jail could not be made; the agent has others.
	jailFailed = 125
)

// jail is what a container runtime gives a process: the image's files as its root,
// read-only, and folders mounted in it, read-only, too. The rest of it is not there:
// no /proc, /dev, /tmp or /etc. The network is the machine's; only loopback is used.
type jail struct {
	Root   string
	Mounts map[string]string // folder of the machine by path in the jail
	Env    []string          // all of it
	Args   []string
}

// newJail unpacks the image.
func newJail(t *testing.T, image string) *jail {
	t.Helper()
	_, entries := readImage(t, image)
	return &jail{Root: unpack(t, entries), Mounts: map[string]string{}}
}

// mount makes files readable at a path of the jail.
func (j *jail) mount(t *testing.T, path string, files map[string][]byte) {
	t.Helper()
	folder := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(folder, name), 0o444); err != nil { // as the agent's user is another
			t.Fatal(err)
		}
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(j.Root, path), 0o755); err != nil { // as runtimes do
		t.Fatal(err)
	}
	j.Mounts[path] = folder
}

// command is the agent in the jail; it is killed when the test ends.
func (j *jail) command(ctx context.Context, t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	in := *j
	in.Args = args
	config, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = []string{jailVariable + "=" + string(config)}
	cmd.SysProcAttr = jailAttributes(t)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run runs the agent in the jail to its end.
func (j *jail) run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := j.command(ctx, t, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if code = cmd.ProcessState.ExitCode(); code == jailFailed || code < 0 {
		t.Fatalf("no jail: %v\n%s", err, errOut.String())
	}
	return out.String(), errOut.String(), code
}
