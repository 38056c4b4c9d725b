package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// child is one running process of the cluster. Its output is appended to
// DIR/NAME.log, its process id is in DIR/NAME.pid.
type child struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed after the process has ended and was waited for
}

// startChild starts bin with args and dir as its working directory. It returns
// when the process exists, not when it is ready to serve.
func startChild(name, bin, dir string, args []string) (*child, error) {
	c := &child{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	c.cmd = exec.Command(bin, args...)
	c.cmd.Dir = dir
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = processAttributes()
	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when the *thread* that
		// started the child ends, so this thread waits for as long as it lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.done)
		defer log.Close()
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait() // how it ended is in cmd.ProcessState
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	pid := strconv.Itoa(c.cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(dir, name+".pid"), []byte(pid+"\n"), 0o600); err != nil {
		return nil, errors.Join(err, c.stop(0))
	}
	return c, nil
}

// exited is closed when the process has ended; for a nil child, one that was
// stopped on purpose, it is a channel that never is.
func (c *child) exited() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.done
}

// died describes an end that nobody asked for, with the tail of the log. Call it
// after done is closed.
func (c *child) died() error {
	return fmt.Errorf("%s ended (%s):\n%s", c.name, c.cmd.ProcessState, c.tail())
}

// couldNotBind says whether a child that ended lost its port to another process.
func (c *child) couldNotBind() bool {
	select {
	case <-c.done:
		return strings.Contains(c.tail(), "address already in use")
	default:
		return false
	}
}

// tailBytes is how much of a log goes into an error.
const tailBytes = 4 << 10

func (c *child) tail() string {
	f, err := os.Open(c.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > tailBytes {
		_, _ = f.Seek(-tailBytes, io.SeekEnd) // else: the head, better than nothing
	}
	tail, err := io.ReadAll(io.LimitReader(f, tailBytes))
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(tail))
}

// stop asks the process to end, kills it after grace, and waits for it. A nil
// or ended child is no error.
func (c *child) stop(grace time.Duration) error {
	if c == nil {
		return nil
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-c.done:
		return nil
	case <-time.After(grace):
	}
	_ = c.cmd.Process.Kill() // fails only if it has ended
	select {
	case <-c.done:
		return nil
	case <-time.After(5 * time.Second):
		return fmt.Errorf("%s (process %d) does not end, not even when killed", c.name, c.cmd.Process.Pid)
	}
}
