package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitseal/gitseal/test/harness"
)

// What can not work ends at once, and says what to do.
func TestAControllerThatCanNotStartSaysWhy(t *testing.T) {
	t.Parallel()
	e := newEnvOn(t, harness.NewControlPlane(t)) // without the CRD
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no CRD":              {nil, "the cluster does not know Syncs: install the CRDs first"},
		"a protection":        {[]string{"--protect", "Secret"}, `--protect: "Secret" is not KIND[.GROUP]/[NAMESPACE/]NAME`},
		"a floor":             {[]string{"--tenant-mac", "Ignore"}, `mac: "Ignore" is not Required or Warn`},
		"a network":           {[]string{"--allow-git-cidr", "10.0.0"}, `--allow-git-cidr: "10.0.0" is not a network such as 10.0.0.0/8`},
		"a selector":          {[]string{"--watch-label-selector", "a in"}, "--watch-label-selector"},
		"no passes":           {[]string{"--concurrent", "0"}, "--concurrent must be 1 or more"},
		"leases":              {[]string{"--leader-election-renew-deadline", "1h"}, "--leader-election-lease-duration must be longer"},
		"a log level":         {[]string{"--log-level", "loud"}, `--log-level: "loud" is not`},
		"an argument":         {[]string{"run"}, `unknown command "run"`},
		"two things at once":  {[]string{"--concurrent", "0", "--audit-interval", "1s"}, "--audit-interval must be one minute or more"},
		"a context not there": {[]string{"--context", "nowhere"}, "nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, stderr, code := e.run("", filepath.Join(e.bin, "agent"), e.controllerArgs(c.args...)...)
			if code != 2 || !strings.Contains(stderr, c.says) || strings.Contains(stderr, "panic") {
				t.Errorf("exit code %d, want 2, with %s:\n%s", code, c.says, stderr)
			}
		})
	}
}
