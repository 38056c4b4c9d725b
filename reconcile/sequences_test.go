package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/test/harness"
)

// Sequences of events that ended badly once.

func (w *world) within(d time.Duration, check func() error) error {
	return harness.Until(w.t.Context(), d, 50*time.Millisecond, "audit", func(context.Context) error { return check() })
}

func (w *world) backTo(commit string) {
	w.repo.Git("reset", "-q", "--hard", commit)
	w.repo.Git("push", "-q", "--force", "origin", "HEAD")
}

// Commit B fails in part; the branch goes back to A.
func TestABranchThatIsPutBackAfterAPartialFailureIsApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configMap("a", "1")
	first := w.repo.Commit("A")
	w.start()
	w.eventually("A", func() error { return w.holds("a", "1") })
	w.configMap("a", "2")
	w.repo.Write("bad.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {not a key: x}\n")
	w.repo.Commit("B")
	w.eventually("B in part", func() error { return errors.Join(w.holds("a", "2"), w.says("msg=failed")) })
	w.backTo(first)
	if err := w.within(15*time.Second, func() error { return w.holds("a", "1") }); err != nil {
		t.Errorf("git is at A again, the cluster is not: %v", err)
	}
}

// Commit B waits for a wave; the branch goes back to A.
func TestABranchThatIsPutBackWhileAWaveWaitsIsApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = 5 * time.Second
	w.configMap("a", "1")
	first := w.repo.Commit("A")
	w.start()
	w.eventually("A", func() error { return w.holds("a", "1") })
	w.configMap("a", "2")
	w.twoWaves("B")
	w.eventually("B waits", func() error { return errors.Join(w.holds("a", "2"), w.says("msg=\"waves wait\"")) })
	w.backTo(first)
	if err := w.within(15*time.Second, func() error { return w.holds("a", "1") }); err != nil {
		t.Errorf("git is at A again, the cluster is not: %v", err)
	}
}

// B waits for a wave; C can not be built; the branch goes back to B.
func TestAWaveIsWaitedForAgainAfterABrokenCommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = time.Minute
	b := w.twoWaves("B")
	w.start()
	w.eventually("B waits", func() error { return w.says("msg=\"waves wait\"") })
	w.repo.Write("kustomization.yaml", "resources: [nothing.yaml]\n")
	w.repo.Commit("C")
	w.eventually("C fails", func() error { return w.says("error=\"build:") })
	w.backTo(b)
	time.Sleep(3 * time.Second)
	if err := w.bind("pending"); err != nil {
		t.Fatal(err)
	}
	if err := w.within(20*time.Second, func() error { return w.holds("later", "1") }); err != nil {
		t.Errorf("all is ready, and the second wave never comes: %v", err)
	}
}

// The agent starts while git can not be built; drift is told, and forgotten.
func TestDriftThatIsToldWhileGitIsBrokenIsRepairedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Audit = 2 * time.Second
	w.configMap("a", "1")
	w.repo.Commit("one")
	if r := w.once().Pass(t.Context()); r.Err() != nil {
		t.Fatal(r.Err())
	}
	if err := w.edit("a", "theirs"); err != nil {
		t.Fatal(err)
	}
	w.repo.Write("kustomization.yaml", "resources: [nothing.yaml]\n")
	w.repo.Commit("broken")
	w.start()
	w.eventually("it fails", func() error { return w.says("error=\"build:") })
	time.Sleep(2 * time.Second)
	w.repo.Remove("kustomization.yaml")
	w.configMap("b", "1")
	w.repo.Commit("mended")
	w.eventually("mended", func() error { return w.holds("b", "1") })
	if err := w.within(20*time.Second, func() error { return w.holds("a", "1") }); err != nil {
		t.Errorf("drift was lost: %v", err)
	}
}

// A Secret's file does not open for a while; it drifts meanwhile.
func TestDriftOfARefusedObjectIsRepairedOnceItIsLetIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Audit = 2 * time.Second
	mine, other := identity(t), identity(t)
	w.keys.set([]crypto.Identity{mine}, nil)
	w.secret("s", "good", mine)
	w.configMap("a", "1")
	good := w.repo.Commit("good")
	w.start()
	value := func(want string) error {
		s, err := w.admin.CoreV1().Secrets(w.app).Get(t.Context(), "s", metav1.GetOptions{})
		if err == nil && string(s.Data["v"]) != want {
			err = fmt.Errorf("holds %q", s.Data["v"])
		}
		return err
	}
	w.eventually("applied", func() error { return value("good") })
	w.secret("s", "good", other)
	w.configMap("a", "2")
	w.repo.Commit("sealed to the wrong key")
	w.eventually("refused", func() error { return errors.Join(w.holds("a", "2"), w.says("msg=failed")) })
	if _, err := w.admin.CoreV1().Secrets(w.app).Patch(t.Context(), "s", types.MergePatchType, []byte(`{"stringData":{"v":"theirs"}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	w.repo.Git("revert", "--no-edit", "HEAD")
	w.repo.Git("push", "-q", "origin", "HEAD")
	_ = good
	w.eventually("reverted", func() error { return w.holds("a", "1") })
	if err := w.within(20*time.Second, func() error { return value("good") }); err != nil {
		t.Errorf("drift was lost: %v", err)
	}
}

func TestDriftWhileNothingCanBeWrittenIsRepairedLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Audit = 0
	w.configMap("a", "1")
	w.repo.Commit("one")
	var on atomic.Bool
	w.wrap = func(rt http.RoundTripper) http.RoundTripper { return harness.NoWrites(rt, &on) }
	w.start()
	w.eventually("applied", func() error { return w.holds("a", "1") })
	on.Store(true)
	if err := w.edit("a", "theirs"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the repair fails", func() error { return w.says("msg=failed") })
	time.Sleep(100 * time.Millisecond)
	on.Store(false)
	if err := w.within(20*time.Second, func() error { return w.holds("a", "1") }); err != nil {
		t.Errorf("drift was lost: %v", err)
	}
}

// slowWatch makes the look at claims take longer than a pass has for it.
type slowWatch struct{ http.RoundTripper }

func (s slowWatch) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/persistentvolumeclaims") && r.Method == http.MethodGet {
		time.Sleep(1200 * time.Millisecond)
	}
	return s.RoundTripper.RoundTrip(r)
}

func TestASlowLookAtAWaveIsEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = 10 * time.Second
	w.twoWaves("two waves")
	w.wrap = func(rt http.RoundTripper) http.RoundTripper { return slowWatch{rt} }
	mark := w.cp.Mark()
	w.start()
	w.eventually("the claim is there", func() error { return w.bind("pending") })
	if err := w.within(25*time.Second, func() error { return w.holds("later", "1") }); err != nil {
		t.Errorf("the first wave is ready, and the second never comes: %v; %d looks at the claims", err, w.requests(mark, "persistentvolumeclaims", "list", "watch"))
	}
}

func TestAnEndedSinglePassIsNotReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = time.Minute
	w.twoWaves("two waves")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(4*time.Second, cancel)
	r := w.once().Once(ctx)
	if r.Err() == nil {
		t.Errorf("later was not applied (%v), and the report says no failure: `agent sync --once` says ready: true and exits 0", r.Pending)
	}
}

// Drift of an object of a later wave, while a pass looks at the earlier one.
func TestDriftDoesNotOvertakeAWave(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = time.Minute
	w.repo.Write("later.yaml", fmt.Sprintf(laterMap, "1"))
	w.configMap("a", "1")
	w.repo.Commit("A")
	w.start()
	w.eventually("A", func() error { return errors.Join(w.holds("later", "1"), w.holds("a", "1")) })
	w.repo.Write("pending.yaml", pending)
	w.repo.Write("later.yaml", fmt.Sprintf(laterMap, "2"))
	w.repo.Commit("B")
	for {
		if _, err := w.admin.CoreV1().PersistentVolumeClaims(w.app).Get(t.Context(), "pending", metav1.GetOptions{}); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := w.edit("later", "theirs"); err != nil {
		t.Fatal(err)
	}
	w.eventually("B waits", func() error { return w.says("msg=\"waves wait\"") })
	if err := w.within(4*time.Second, func() error { return w.holds("later", "2") }); err == nil {
		t.Error("wave 1 of B was applied, though wave 0 is not ready")
	}
}

// What a controller says of an object with sealed values.
func TestAConditionThatQuotesASealedValueIsNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Wait = 20 * time.Second
	w.cfg.Policy.Outside = decrypt.OutsideAllow
	id := identity(t)
	w.keys.set([]crypto.Identity{id}, nil)
	plain := "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\n  namespace: " + w.app + "\nspec:\n  replicas: 1\n  selector:\n    matchLabels:\n      a: b\n  template:\n    metadata:\n      labels:\n        a: b\n    spec:\n      containers:\n        - name: c\n          image: x\n          env:\n            - name: PW\n              value: hunter2-very-secret\n"
	sealed, err := crypto.SealSOPS(crypto.SealRequest{
		Plain: crypto.NewSecretString(plain), Format: crypto.YAML, Now: time.Now(),
		Rule: crypto.Rule{Recipients: []crypto.Recipient{id.Recipient()}, EncryptedRegex: "^value$"},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.repo.Write("d.yaml", string(sealed))
	w.repo.Commit("one")
	s := w.once()
	r := s.Pass(t.Context())
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	stop := make(chan struct{})
	go func() { // the controller
		for {
			_, _ = w.admin.AppsV1().Deployments(w.app).Patch(t.Context(), "d", types.MergePatchType, []byte(`{"status":{"observedGeneration":99,"conditions":[{"type":"Stalled","status":"True","reason":"X","message":"admission webhook quota denied env PW=hunter2-very-secret","lastUpdateTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`), metav1.PatchOptions{}, "status")
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	s.AwaitReady(t.Context(), &r)
	close(stop)
	t.Log(r.Err())
	if r.Err() != nil && strings.Contains(r.Err().Error(), "hunter2") {
		t.Error("the report holds the sealed value")
	}
}

func TestWhatTurnsOutToChangeNothingCountsAsUnchanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := identity(t)
	w.keys.set([]crypto.Identity{id}, nil)
	w.repo.Write("note.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: note}\ndata: {v: '1'}\n")
	w.repo.Commit("one")
	s := w.once()
	if r := s.Pass(t.Context()); r.Err() != nil {
		t.Fatal(r.Err())
	}
	w.repo.Write("later.yaml", strings.Replace(fmt.Sprintf(laterMap, "1"), "gitseal.io/wave: '1'", "gitseal.io/ssa: Ignore", 1))
	w.repo.Commit("two")
	r := w.once().Pass(t.Context())
	t.Logf("objects %d, left %d, done %v", r.Objects, r.Left, r.Done)
	if r.Left+len(r.Done) != r.Objects {
		t.Errorf("objects %d, left %d, done %d", r.Objects, r.Left, len(r.Done))
	}
}

// noClaims forbids to look at claims.
type noClaims struct{ http.RoundTripper }

func (s noClaims) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, "/persistentvolumeclaims") && r.Method == http.MethodGet && r.URL.Query().Get("labelSelector") != "" {
		body := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403,"message":"forbidden"}`
		return &http.Response{StatusCode: 403, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	return s.RoundTripper.RoundTrip(r)
}

func TestAWaveOfAKindThatMayNotBeWatchedIsPolled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = 5 * time.Second
	w.twoWaves("two waves")
	w.wrap = func(rt http.RoundTripper) http.RoundTripper { return noClaims{rt} }
	w.start()
	w.eventually("the claim is there", func() error { return w.bind("pending") })
	if err := w.within(20*time.Second, func() error { return w.holds("later", "1") }); err != nil {
		t.Errorf("the first wave is ready, its metadata may be got one by one, and the second never comes: %v", err)
	}
}

// A single pass goes round for ever where a look takes more than a second.
func TestASinglePassEndsAlsoWhereLooksAreSlow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.WaveTimeout = 5 * time.Second
	w.twoWaves("two waves")
	w.wrap = func(rt http.RoundTripper) http.RoundTripper { return slowWatch{rt} }
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second)
	defer cancel()
	done := make(chan Report, 1)
	go func() { done <- w.once().Once(ctx) }()
	w.eventually("the claim is there", func() error { return w.bind("pending") })
	r := <-done
	if ctx.Err() != nil {
		t.Errorf("after 25 s, with a wave timeout of 5 s, it had not ended: failures %v", r.Failures)
	}
}

// Two Syncs of one agent each: as in apply's test, with both running.
func TestTwoRunningSyncsDoNotFightOverAnObject(t *testing.T) {
	t.Parallel()
	a := newWorld(t)
	a.configMap("x", "first")
	a.repo.Commit("one")
	if r := a.once().Pass(t.Context()); r.Err() != nil {
		t.Fatal(r.Err())
	}
	b := newWorld(t)
	b.app, b.cfg.TargetNamespace = a.app, a.app
	b.configMap("x", "second")
	b.repo.Commit("one")
	if err := a.admin.CoreV1().ConfigMaps(a.app).Delete(t.Context(), "x", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	b.start() // while a is away
	b.eventually("b has made it", func() error { return b.holds("x", "second") })
	mark := a.cp.Mark()
	a.start()
	a.eventually("a names b", func() error { return a.says("x: the Sync " + b.system + "/test has applied it already") })
	time.Sleep(2 * time.Second) // some passes of both
	if n := b.requests(mark, "configmaps", "patch"); n > 0 {
		t.Errorf("b had to repair it %d times", n)
	}
	if err := b.holds("x", "second"); err != nil {
		t.Error(err)
	}
}
