package image

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/gitseal/gitseal/internal/version"
)

// versionOf runs the agent of an image, outside of it.
func versionOf(t *testing.T, entries []entry) version.Info {
	t.Helper()
	return runVersion(t, filepath.Join(unpack(t, entries), "agent"))
}

func runVersion(t *testing.T, program string) version.Info {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program, "version", "-o", "json").Output()
	if err != nil {
		t.Fatalf("%s version: %v", program, err)
	}
	return parseVersion(t, out)
}

func parseVersion(t *testing.T, out []byte) version.Info {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	var v version.Info
	if err := d.Decode(&v); err != nil {
		t.Fatalf("version -o json: %v\n%s", err, out)
	}
	return v
}

func TestProgramsSayWhatTheyWereBuiltFrom(t *testing.T) {
	root, _ := makeImage(t)
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "log", "-1", "--format=%H %cI").Output()
	if err != nil {
		t.Skipf("not a checkout of git: %v", err) // a release's sources; nothing is known then
	}
	for _, program := range []string{"bin/seal", "bin/agent"} {
		v := runVersion(t, filepath.Join(root, program))
		if got := v.Commit + " " + v.Date + "\n"; got != string(out) {
			t.Errorf("%s is of %q, want %q", program, got, out)
		}
		if v.Version == "" || v.Version == "dev" || v.GoVersion != runtime.Version() || v.Platform != runtime.GOOS+"/"+runtime.GOARCH {
			t.Errorf("%s: %+v", program, v)
		}
	}
}
