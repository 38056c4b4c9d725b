package e2e

import (
	"context"
	"strings"
	"testing"

	"github.com/gitseal/gitseal/keys"
)

// The page is run as it stands, but for kind and the image, of which the test has none:
// the agent runs beside the control plane.
func TestTheQuickstartWorks(t *testing.T) {
	t.Parallel()
	e := openEnv(t)
	e.system = "gitseal-system"
	e.seal("", "install")
	e.logSays(e.startArgs(e.controllerArgs("--allow-git-cidr", "127.0.0.0/8")...), "leading")
	e.eventually("the keys are published", func(ctx context.Context) error {
		_, err := keys.FetchPublic(ctx, e.client, e.system)
		return err
	})
	p := newPage(t, e, "quickstart.md", 6, "URL="+e.git.RepoURL("shop"))
	p.repo.Git("config", "user.name", "Ada")
	p.repo.Git("config", "user.email", "ada@example.com")
	p.repo.Git("config", "push.autoSetupRemote", "true") // as a clone has it
	said := func(out string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if !strings.Contains(out, text) {
				t.Errorf("it does not print %q:\n%s", text, out)
			}
		}
	}
	p.step() // the public keys
	said(p.step(), "ENC[")
	said(p.step(), "condition met", "Secret/shop/db", "ConfigMap/shop/settings")
	said(p.step(), "correct horse", "db")
	said(p.step(), "change Secret/shop/db", "battery staple")
	p.step() // what leaves git
}
