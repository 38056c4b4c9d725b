package decrypt

import (
	"bytes"
	"context"
	"testing"
	"testing/fstest"

	"github.com/gitseal/gitseal/crypto"
)

func TestASecondPassOpensNothing(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, sealedSecretYAML+`-- sealed a.env for prod/app --
A=hunter2canary
-- foreign other.yaml --
apiVersion: v1
kind: Secret
metadata: {name: other, namespace: prod}
stringData: {k: hunter2canary}
-- plain.yaml --
# speaks of sops and is not sealed
apiVersion: v1
kind: ConfigMap
metadata: {name: c, namespace: prod}
-- kustomization.yaml --
resources: [secret.yaml, other.yaml, plain.yaml]
secretGenerator: [{name: app, namespace: prod, envs: [a.env]}]
`)
	cache := NewCache()
	first := run(t, sealed, passOption{cache: cache})
	opened := cache.Opened()
	if opened.Files != 4 { // the one that mentions sops was looked at
		t.Errorf("the first pass opened %d files, want 4", opened.Files)
	}
	for range 4 {
		again := run(t, sealed, passOption{cache: cache})
		if again.yaml != first.yaml || len(again.masker.Problems()) != 1 {
			t.Errorf("the second pass differs:\n%s", again.yaml)
		}
		again.bodies(t)
	}
	if got := cache.Opened(); got != opened {
		t.Errorf("opened %+v, want %+v as after the first pass", got, opened)
	}
	t.Log("one file changed: only that is opened")
	id := identityOf(t)
	changed := fstest.MapFS{}
	for k, v := range sealed {
		changed[k] = v
	}
	changed["a.env"] = &fstest.MapFile{Data: seal(t, "a.env", "A=hunter2canary new\n", "prod/app", id)}
	if run(t, changed, passOption{cache: cache}).yaml == first.yaml {
		t.Error("the new value does not show in the placeholders")
	}
	if got := cache.Opened().Files; got != opened.Files+1 {
		t.Errorf("%d files were opened, want one", got-opened.Files)
	}
	t.Log("other keys: everything is opened again")
	p := run(t, sealed, passOption{cache: cache, keys: &fakeKeys{ids: []crypto.Identity{id, otherIdentityOf(t)}}})
	if len(p.masker.Problems()) != 0 {
		t.Errorf("the key that came is not used: %v", p.masker.Problems())
	}
	t.Log("what is not used any more is forgotten")
	for range 4 {
		run(t, fstest.MapFS{"plain.yaml": sealed["plain.yaml"]}, passOption{cache: cache})
	}
	if len(cache.files) != 1 {
		t.Errorf("%d files are kept, want the one that is there", len(cache.files))
	}
}

func TestPrefetchOpensAheadAndReportsNothing(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, `-- sealed apps/a.env --
A=hunter2canary
-- foreign apps/unused.yaml --
a: hunter2canary
-- sealed elsewhere/b.env --
B=hunter2canary
-- apps/kustomization.yaml --
secretGenerator: [{name: app, namespace: prod, envs: [a.env, ../elsewhere/b.env]}]
`)
	cache := NewCache()
	m := NewMasker(MaskerConfig{Tree: sealed, Keys: &fakeKeys{ids: []crypto.Identity{identityOf(t)}}, Digester: digesterOf(t), Cache: cache})
	m.Prefetch(t.Context(), "apps")
	if got := cache.Opened().Files; got != 2 || len(m.Problems()) != 0 {
		t.Errorf("opened %d files, want those of the folder; problems %v", got, m.Problems())
	}
	ahead, err := m.ReadFile("apps/a.env")
	if err != nil || cache.Opened().Files != 2 {
		t.Errorf("opened again: %v", err)
	}
	alone := NewMasker(MaskerConfig{Tree: sealed, Keys: &fakeKeys{ids: []crypto.Identity{identityOf(t)}}, Digester: digesterOf(t)})
	if b, err := alone.ReadFile("apps/a.env"); err != nil || !bytes.Equal(b, ahead) {
		t.Errorf("another result than without looking ahead: %v", err)
	}
	if p := run(t, sealed, passOption{cache: cache, dir: "apps"}); len(p.gated.Refused) > 0 || len(p.masker.Problems()) > 0 {
		t.Errorf("refused %v, problems %v", p.gated.Refused, p.masker.Problems())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	NewMasker(MaskerConfig{Tree: sealed, Keys: &fakeKeys{}}).Prefetch(ctx, "apps") // ends
	m.Prefetch(t.Context(), "no/such/folder")
}
