package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/gitseal/gitseal/test/harness"
)

// jailAttributes gives the process that makes the jail mounts of its own; who is not
// root gets them in a user namespace, or the test is skipped.
func jailAttributes(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	a := mountNamespace()
	probe := exec.CommandContext(t.Context(), "true")
	probe.SysProcAttr = a
	if err := probe.Run(); err != nil {
		harness.Skip(t, fmt.Errorf("a read-only root needs root with CAP_SYS_ADMIN, or user namespaces (kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0): %w", err))
	}
	return a
}

func mountNamespace() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings, a.GidMappings = one(0, os.Geteuid()), one(0, os.Getegid())
	}
	return a
}

// one maps one user or group.
func one(inside, outside int) []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: inside, HostID: outside, Size: 1}}
}

// enterJail makes the jail, runs the agent in it and returns its exit code.
func enterJail(config string) int {
	// The kernel sends the parent-death signal when the thread that started the
	// child ends.
	runtime.LockOSThread()
	code, err := inJail(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, "jail:", err)
		return jailFailed
	}
	return code
}

func inJail(config string) (int, error) {
	var j jail
	if err := json.Unmarshal([]byte(config), &j); err != nil {
		return 0, err
	}
	if err := j.makeReadOnly(); err != nil {
		return 0, err
	}
	cmd := exec.Command("/agent", j.Args...)
	cmd.Dir, cmd.Env = "/", j.Env
	if j.Env == nil {
		cmd.Env = []string{}
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	a := &syscall.SysProcAttr{Chroot: j.Root, Pdeathsig: syscall.SIGKILL}
	if isPlainRoot() {
		a.Credential = &syscall.Credential{Uid: agentID, Gid: agentID}
	} else { // that user is known only in a further namespace
		a.Cloneflags = syscall.CLONE_NEWUSER
		a.UidMappings, a.GidMappings = one(agentID, 0), one(agentID, 0)
	}
	cmd.SysProcAttr = a
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range stop {
			_ = cmd.Process.Signal(s) // it has ended, then
		}
	}()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return 0, fmt.Errorf("the agent: %s", cmd.ProcessState)
}

// isPlainRoot reports whether other users exist here, that is, whether we are not in
// a user namespace with the one user.
func isPlainRoot() bool {
	var inside, outside, size uint64
	content, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return true
	}
	_, err = fmt.Sscan(string(content), &inside, &outside, &size)
	return err != nil || size > agentID
}

// makeReadOnly mounts the root over itself and what belongs into it, and sees that
// nobody can write there any more.
func (j jail) makeReadOnly() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	bind := func(from, to string) error {
		if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", to, err)
		}
		return nil
	}
	if err := bind(j.Root, j.Root); err != nil {
		return err
	}
	folders := []string{j.Root}
	for path, folder := range j.Mounts {
		to := filepath.Join(j.Root, path)
		if err := bind(folder, to); err != nil {
			return err
		}
		folders = append(folders, to)
	}
	for _, folder := range folders {
		var s syscall.Statfs_t
		if err := syscall.Statfs(folder, &s); err != nil {
			return err
		}
		// What the file system's mount forbids can not be allowed in a user namespace.
		keep := uintptr(s.Flags) & (syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC)
		if err := syscall.Mount("", folder, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY|keep, ""); err != nil {
			return fmt.Errorf("make %s read-only: %w", folder, err)
		}
		if err := os.WriteFile(filepath.Join(folder, "written"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			return fmt.Errorf("%s is not read-only: writing to it gave %v", folder, err)
		}
	}
	return nil
}
