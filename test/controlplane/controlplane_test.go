package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// endedChild returns a child that has ended and whose log says this.
func endedChild(t *testing.T, log string) *child {
	t.Helper()
	c := &child{name: "etcd", log: filepath.Join(t.TempDir(), "etcd.log"), done: make(chan struct{})}
	close(c.done)
	if err := os.WriteFile(c.log, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPortsAreRetriedOnlyWhenLost(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		log   string
		fails int // how often, before it works
		want  int // attempts
		ok    bool
	}{
		"works at once":               {want: 1, ok: true},
		"lost its port twice":         {log: "listen tcp 127.0.0.1:1: bind: address already in use", fails: 2, want: 3, ok: true},
		"always loses its port":       {log: "bind: address already in use", fails: 100, want: portAttempts},
		"fails for some other reason": {log: "unknown flag: --x", fails: 100, want: 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attempts := 0
			err := retryPorts(func() (*child, error) {
				attempts++
				if attempts > test.fails {
					return &child{}, nil
				}
				return endedChild(t, test.log), errors.New("did not start")
			})
			if attempts != test.want || (err == nil) != test.ok {
				t.Errorf("got %d attempts and error %v, want %d and success %t", attempts, err, test.want, test.ok)
			}
		})
	}
}

func TestAChildThatCanNotStartIsReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var stdout bytes.Buffer
	stdin, keepOpen := io.Pipe()
	defer keepOpen.Close()
	code := run([]string{"up", "--dir", dir, "--bin", t.TempDir()}, stdin, &stdout, io.Discard)
	if code != exitFailed || !strings.Contains(stdout.String(), `{"error":"start etcd: `) {
		t.Errorf("got code %d and %q, want %d and an error about etcd", code, stdout.String(), exitFailed)
	}
	if _, err := os.Stat(filepath.Join(dir, "etcd.log")); err != nil {
		t.Errorf("the log: %v", err)
	}
}

func TestBadArgumentsAreAUsageError(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"down"}, {"up"}, {"up", "--dir", "x"}, {"up", "--dir", "x", "--bin", "y", "z"}} {
		if code := run(args, strings.NewReader(""), io.Discard, io.Discard); code != exitUsage {
			t.Errorf("%q: got code %d, want %d", args, code, exitUsage)
		}
	}
}
