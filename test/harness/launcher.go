package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// stopLimit is how long the launcher may take to stop everything, before it is
// killed; the kernel then kills its children.
const stopLimit = 40 * time.Second

// launcher is the running command test/controlplane. It ends by itself when its
// standard input closes, so also when this process is killed.
type launcher struct {
	cmd   *exec.Cmd
	log   string // path of what it prints on standard error
	stdin io.WriteCloser
	lines chan []byte   // of its standard output; closed at its end
	done  chan struct{} // closed when the process was waited for

	mu      sync.Mutex // one command at a time
	pending int        // answers that nobody waited for
}

// startLauncher starts the binary with its files in dir and returns its first
// line. On error nothing is left running.
func startLauncher(ctx context.Context, binary, bin, dir string) (*launcher, []byte, error) {
	l := &launcher{
		log:   filepath.Join(dir, "controlplane.log"),
		lines: make(chan []byte, 16),
		done:  make(chan struct{}),
	}
	// A file, not our own standard error: go test waits for whoever holds that.
	log, err := os.Create(l.log)
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	l.cmd = exec.Command(binary, "up", "--dir", dir, "--bin", bin, "--remove")
	l.cmd.Stderr = log
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us; it sees us end
	if l.stdin, err = l.cmd.StdinPipe(); err != nil {
		return nil, nil, err
	}
	stdout, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := l.cmd.Start(); err != nil {
		return nil, nil, err
	}
	go l.read(stdout)
	ready, err := l.next(ctx)
	if err != nil {
		l.stop()
		return nil, nil, err
	}
	return l, ready, nil
}

// read hands on lines until the launcher ends, and then waits for it.
func (l *launcher) read(stdout io.Reader) {
	scanner := bufio.NewScanner(stdout)
	for scanner.Scan() {
		l.lines <- append([]byte(nil), scanner.Bytes()...)
	}
	_ = l.cmd.Wait() // how it ended is in cmd.ProcessState
	close(l.lines)
	close(l.done)
}

// next returns the next line; {"error":...} becomes an error.
func (l *launcher) next(ctx context.Context) ([]byte, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case line, ok := <-l.lines:
		if !ok {
			content, err := os.ReadFile(l.log)
			return nil, errors.Join(fmt.Errorf("the launcher ended (%s)\n%s", l.cmd.ProcessState, tail(content, outputBytes)), err)
		}
		var answer struct {
			Error string `json:"error"`
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return nil, err
		}
		if answer.Error != "" {
			return nil, errors.New(answer.Error)
		}
		return line, nil
	}
}

// command sends a line and waits for its answer. When ctx ends first, the
// launcher still obeys.
func (l *launcher) command(ctx context.Context, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; l.pending > 0; l.pending-- {
		select {
		case <-l.lines:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", name, ctx.Err())
		}
	}
	if _, err := fmt.Fprintln(l.stdin, name); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	_, err := l.next(ctx)
	if err != nil {
		if ctx.Err() != nil {
			l.pending++
		}
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// stop ends the launcher and its children, and waits for it. It may be called
// again.
func (l *launcher) stop() {
	_ = l.stdin.Close() // fails when it was closed before
	select {
	case <-l.done:
		return
	case <-time.After(stopLimit):
	}
	_ = l.cmd.Process.Kill() // fails when it has ended
	<-l.done
}
