package e2e

import (
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"filippo.io/age/plugin"

	"github.com/gitseal/gitseal/test/harness"
)

// The trap itself must be able to catch something.
func TestTheTrapCatches(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	tr := newTrap(t)
	args := []string{"sync", "--once", "--kubeconfig", e.cp.Kubeconfig, "--namespace", e.system, "--url", "http://git.example/x.git"}
	if _, errOut, code := e.run("", "env", tr.env(e, args...)...); code == 0 || tr.calls.Load() == 0 {
		t.Errorf("exit code %d, caught %d calls; %s", code, tr.calls.Load(), errOut)
	}
	_, errOut, _ := e.run("a: b\n", "env", "PATH="+tr.path, harness.Oracle(t, "sops"), "--config", os.DevNull, "encrypt", "--age", pluginRecipient(), "--filename-override", "a.yaml")
	if !tr.pluginStarted() {
		t.Errorf("no plugin was started: %s", errOut)
	}
}

// trap counts what leaves for anything but this machine, by being everybody's
// proxy, and the plugins that are started.
type trap struct {
	calls atomic.Int64
	addr  string
	path  string
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr := &trap{addr: l.Addr().String(), path: t.TempDir()}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			tr.calls.Add(1)
			_ = c.Close()
		}
	}()
	plugin := "#!/bin/sh\n: >" + filepath.Join(tr.path, "started") + "\nexit 1\n"
	if err := os.WriteFile(filepath.Join(tr.path, "age-plugin-yubikey"), []byte(plugin), 0o755); err != nil {
		t.Fatal(err)
	}
	return tr
}

// pluginRecipient is one for which age starts a plugin.
func pluginRecipient() string { return plugin.EncodeRecipient("yubikey", make([]byte, 33)) }

// pluginStarted reports whether a plugin was run.
func (tr *trap) pluginStarted() bool {
	_, err := os.Stat(filepath.Join(tr.path, "started"))
	return err == nil
}

// env are the arguments of the program env that run the agent in the trap, with
// credentials that cloud libraries would use.
func (tr *trap) env(e *env, args ...string) []string {
	return append([]string{"HTTP_PROXY=http://" + tr.addr, "HTTPS_PROXY=http://" + tr.addr, "PATH=" + tr.path + ":" + os.Getenv("PATH"),
		"AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none", "AWS_REGION=us-east-1", "VAULT_TOKEN=none",
		filepath.Join(e.bin, "agent")}, args...)
}
