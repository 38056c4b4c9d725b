package harness

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv(sshClientEnv) != "" {
		os.Exit(sshClient(os.Args[1:]))
	}
	Main(m)
}

func TestOraclesRun(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		want string
	}{
		"sops":       {[]string{"--version", "--disable-version-check"}, "sops "},
		"kubeseal":   {[]string{"--version"}, "kubeseal version"},
		"controller": {[]string{"--version"}, "controller version"},
		"helm":       {[]string{"version", "--short"}, "v3."},
	}
	for _, name := range Oracles() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test, ok := tests[name]
			if !ok {
				t.Fatal("no test for this oracle")
			}
			out, err := exec.CommandContext(t.Context(), Oracle(t, name), test.args...).CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), test.want) {
				t.Errorf("%s %q: got %q, %v; want a line that starts with %q", name, test.args, out, err, test.want)
			}
		})
	}
}

func TestUnknownOracleIsAnError(t *testing.T) {
	t.Parallel()
	if path, err := BuildOracle(t.Context(), io.Discard, "no-such"); err == nil {
		t.Errorf("got %q, want an error", path)
	}
}

// Not parallel: it changes the environment.
func TestConcurrentBuildsBuildOnce(t *testing.T) {
	t.Setenv("GITSEAL_CACHE", t.TempDir())
	const callers = 4
	var progress [callers]bytes.Buffer
	var paths [callers]string
	var errs [callers]error
	var wait sync.WaitGroup
	for i := range callers {
		wait.Go(func() { paths[i], errs[i] = buildLauncher(t.Context(), &progress[i]) })
	}
	wait.Wait()
	built := 0
	for i := range callers {
		if errs[i] != nil || paths[i] != paths[0] {
			t.Errorf("caller %d: got %q, %v; want %q", i, paths[i], errs[i], paths[0])
		}
		built += strings.Count(progress[i].String(), "building controlplane")
	}
	if built != 1 {
		t.Errorf("got %d builds, want 1", built)
	}
	if _, err := os.Stat(paths[0]); err != nil {
		t.Error(err)
	}
}

// Not parallel: it changes the environment.
func TestFailedBuildLeavesNothingThatLooksComplete(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("GITSEAL_CACHE", cache)
	build := Build{Name: "broken", Module: "test/controlplane", Targets: []Target{{Name: "x", Package: "./no-such"}}}
	for range 2 { // the second must not find the first
		if folder, err := build.Run(t.Context(), io.Discard); err == nil {
			t.Errorf("got %q, want an error", folder)
		}
	}
	found, err := filepath.Glob(filepath.Join(cache, "broken-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range found {
		if filepath.Ext(path) == "" {
			t.Errorf("got %s, want no finished folder", path)
		}
	}
}
