package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/source"
	"github.com/gitseal/gitseal/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// fakeGit hands out commits of a repository on this machine, or fails.
type fakeGit struct {
	*source.Source
	mu   sync.Mutex
	down error
}

func (g *fakeGit) set(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = err
}

func (g *fakeGit) Fetch(ctx context.Context) (*source.Commit, bool, error) {
	g.mu.Lock()
	err := g.down
	g.mu.Unlock()
	if err != nil {
		return nil, false, err
	}
	return g.Source.Fetch(ctx)
}

// fakeKeys is a key store in memory.
type fakeKeys struct {
	mu   sync.Mutex
	ring keys.Ring
	err  error
}

func (k *fakeKeys) set(ids []crypto.Identity, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err, k.ring.Generations = err, nil
	for i, id := range ids {
		k.ring.Generations = append(k.ring.Generations, keys.Generation{Number: i + 1, State: keys.Active, Identity: id})
	}
}

func (k *fakeKeys) Load(context.Context) (*keys.Ring, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return nil, k.err
	}
	r := k.ring
	return &r, nil
}

// world is a Sync over a real cluster, with git and keys of the test's.
type world struct {
	t      *testing.T
	cp     *harness.ControlPlane
	admin  kubernetes.Interface
	system string
	app    string
	repo   *harness.Repo
	git    *fakeGit
	keys   *fakeKeys
	cfg    Config
	log    *harness.Log
	wrap   func(http.RoundTripper) http.RoundTripper
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cp := harness.Shared(t)
	cfg, err := cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, cp: cp, admin: admin, system: cp.Namespace(t, "system"), app: cp.Namespace(t, "app"),
		repo: harness.NewRepo(t, t.TempDir(), "shop"), keys: &fakeKeys{}, log: &harness.Log{},
	}
	w.keys.ring.Token = crypto.NewSecretString(strings.Repeat("t", 32))
	src, err := source.New(source.Config{URL: "file://" + w.repo.Bare})
	if err != nil {
		t.Fatal(err)
	}
	w.git = &fakeGit{Source: src}
	w.cfg = Config{Owner: apply.Owner{Namespace: w.system, Name: "test"}, SourceName: "shop", Path: ".", TargetNamespace: w.app, Prune: true, Interval: time.Second}
	return w
}

// runner is what a new process has.
func (w *world) runner() *apply.Runner {
	w.t.Helper()
	cfg, err := w.cp.RESTConfig()
	if err != nil {
		w.t.Fatal(err)
	}
	cfg.UserAgent = w.system
	if w.wrap != nil {
		cfg.Wrap(w.wrap)
	}
	c, err := apply.Connect(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return &apply.Runner{Cluster: c, Store: apply.NewInventoryStore(c, w.cfg.Owner), Owner: w.cfg.Owner}
}

// once is a Sync that does not watch.
func (w *world) once() *Sync {
	w.t.Helper()
	return New(w.cfg, w.git, w.keys, w.runner(), slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

// start runs a Sync that watches, for the length of the test.
func (w *world) start() (reports func() []Report) {
	w.t.Helper()
	return w.startWith(func(*Sync) {})
}

func (w *world) startWith(change func(*Sync)) (reports func() []Report) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	r := w.runner()
	r.Drift = apply.NewDrift(ctx, r.Cluster, w.cfg.Owner)
	s := New(w.cfg, w.git, w.keys, r, slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	change(s)
	var mu sync.Mutex
	var seen []Report
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx, func(r Report) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, r)
		})
	}()
	w.t.Cleanup(func() {
		cancel()
		<-done
		if w.t.Failed() {
			w.t.Logf("log:\n%s", w.log)
		}
	})
	w.eventually("the watches have begun", func() error {
		if r.Drift.Synced() && strings.Contains(w.log.String(), "msg=") {
			return nil
		}
		return errors.New("not yet")
	})
	return func() []Report {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(seen)
	}
}

func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	harness.Eventually(w.t, what, func(context.Context) error { return check() })
}

func (w *world) configMap(name, value string) {
	w.repo.Write(name+".yaml", fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {v: %q}\n", name, value))
}

func (w *world) secret(name, value string, to crypto.Identity) {
	w.t.Helper()
	plain, err := crypto.NewManifest{Name: name, Namespace: w.app, Values: map[string]crypto.Secret{"v": crypto.NewSecretString(value)}}.YAML()
	if err != nil {
		w.t.Fatal(err)
	}
	sealed, err := crypto.SealSOPS(crypto.SealRequest{
		Plain: plain, Format: crypto.YAML, Now: time.Now(),
		Rule: crypto.Rule{Recipients: []crypto.Recipient{to.Recipient()}, EncryptedRegex: "^(data|stringData)$"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.repo.Write(name+".yaml", string(sealed))
}

func (w *world) edit(name, value string) error {
	_, err := w.admin.CoreV1().ConfigMaps(w.app).Patch(w.t.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"data":{"v":%q}}`, value), metav1.PatchOptions{FieldManager: "somebody"})
	return err
}

// label gives a ConfigMap another value of our label, in JSON.
func (w *world) label(name, value string) error {
	_, err := w.admin.CoreV1().ConfigMaps(w.app).Patch(w.t.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, apply.SyncLabel, value), metav1.PatchOptions{FieldManager: "somebody"})
	return err
}

func (w *world) holds(name, value string) error {
	cm, err := w.admin.CoreV1().ConfigMaps(w.app).Get(w.t.Context(), name, metav1.GetOptions{})
	if err == nil && cm.Data["v"] != value {
		err = fmt.Errorf("ConfigMap %s holds %q, want %q", name, cm.Data["v"], value)
	}
	return err
}

// requests counts what the Sync asked about a kind.
func (w *world) requests(since harness.Mark, resource string, verbs ...string) int {
	w.t.Helper()
	ev, err := w.cp.Requests(w.t.Context(), since, func(e harness.AuditEvent) bool {
		return e.UserAgent == w.system && e.Resource == resource && slices.Contains(verbs, e.Verb)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return len(ev)
}

func (w *world) inventory() map[string]apply.Phase {
	w.t.Helper()
	inv, err := w.runner().Store.Load(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]apply.Phase{}
	for id, e := range inv.Entries {
		out[id.Kind+"/"+id.Name] = e.Phase
	}
	return out
}

func identity(t *testing.T) crypto.Identity {
	t.Helper()
	id, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// stagesOf lists in which stages a pass failed.
func stagesOf(r Report) []Stage {
	var out []Stage
	for _, f := range r.Failures {
		var s *StageError
		if !errors.As(f, &s) {
			out = append(out, "not a StageError: "+Stage(f.Error()))
			continue
		}
		out = append(out, s.Stage)
	}
	return out
}

func TestReportSaysWhatAPassDid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		w.configMap(name, "1")
	}
	first := w.repo.Commit("three of them\n\nmore text")
	s := w.once()
	r := s.Pass(t.Context())
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	type counts struct{ Objects, Created, Changed, Pruned, Left, Done, Requests int }
	got := func(r Report) counts {
		return counts{r.Objects, r.Count(apply.Create), r.Count(apply.Change), r.Count(apply.Prune), r.Left, len(r.Done), r.Requests}
	}
	if diff := cmp.Diff(got(r), counts{Objects: 3, Created: 3, Done: 3, Requests: 3}); diff != "" {
		t.Errorf("first pass: got -, want +:\n%s", diff)
	}
	if r.Commit != first || r.Ref != "main@sha1:"+first || r.Subject != "three of them" || r.Idle || r.Took <= 0 {
		t.Errorf("commit %s, ref %s, subject %q, idle %v, took %s", r.Commit, r.Ref, r.Subject, r.Idle, r.Took)
	}
	if stages := slices.Sorted(maps.Keys(r.Stages)); !cmp.Equal(stages, []Stage{Apply, Build, Decrypt, Fetch, Gate, Keys, Plan}) {
		t.Errorf("stages are %v", stages)
	}

	t.Log("one changes, one goes, one comes, one stays")
	w.configMap("a", "2")
	w.repo.Remove("b.yaml")
	w.configMap("d", "1")
	w.repo.Commit("second")
	r = s.Pass(t.Context())
	if diff := cmp.Diff(got(r), counts{Objects: 3, Created: 1, Changed: 1, Pruned: 1, Left: 1, Done: 3, Requests: 4}); diff != "" || r.Err() != nil {
		t.Errorf("second pass (%v): got -, want +:\n%s", r.Err(), diff)
	}
	r = s.Pass(t.Context())
	if diff := cmp.Diff(got(r), counts{Objects: 3, Left: 3}); diff != "" || r.Err() != nil || r.Idle {
		t.Errorf("nothing to do, but looked for drift (%v, idle %v): got -, want +:\n%s", r.Err(), r.Idle, diff)
	}

	t.Log("failures name their stage")
	w.repo.Write("bad.yaml", "apiVersion: example.com/v1\nkind: Unknown\nmetadata: {name: x}\n")
	w.configMap("e", "1")
	w.repo.Remove("d.yaml")
	w.repo.Commit("an unknown kind")
	r = s.Pass(t.Context())
	if got := stagesOf(r); !cmp.Equal(got, []Stage{Plan}) || r.Count(apply.Create) != 1 || r.Count(apply.Prune) != 0 || r.PruneBlocked == "" {
		t.Errorf("stages %v, %d created, %d pruned, prune blocked %q; want plan, 1, 0 and a reason", got, r.Count(apply.Create), r.Count(apply.Prune), r.PruneBlocked)
	}
	w.repo.Write("bad.yaml", "a: [\n")
	w.repo.Commit("not YAML")
	if got := stagesOf(s.Pass(t.Context())); !cmp.Equal(got, []Stage{Build}) {
		t.Errorf("stages %v, want build", got)
	}
	w.repo.Remove("bad.yaml")
	w.repo.Write("plain.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: plain}\nstringData: {v: in-the-clear}\n")
	w.repo.Commit("a Secret in the clear")
	if r = s.Pass(t.Context()); !cmp.Equal(stagesOf(r), []Stage{Gate}) || strings.Contains(r.Err().Error(), "in-the-clear") {
		t.Errorf("%v, want a failure of the gate that shows no value", r.Failures)
	}
	w.keys.set(nil, errors.New("no keys today"))
	if got := stagesOf(s.Pass(t.Context())); !cmp.Equal(got, []Stage{Keys}) {
		t.Errorf("stages %v, want keys", got)
	}
	if err := errors.Join(w.holds("a", "2"), w.holds("d", "1")); err != nil {
		t.Errorf("after failures: %v", err)
	}
}

func TestAFailingFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configMap("a", "1")
	w.git.set(errors.New("git is down"))
	if r := w.once().Pass(t.Context()); !cmp.Equal(stagesOf(r), []Stage{Fetch}) || r.Commit != "" || len(r.Done) > 0 {
		t.Errorf("without any commit: %+v", r)
	}
	w.git.set(nil)
	commit := w.repo.Commit("one")

	t.Log("a pass without watches repairs from the last good commit")
	s := w.once()
	if err := s.Pass(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	w.git.set(errors.New("git is down"))
	if err := w.edit("a", "edited"); err != nil {
		t.Fatal(err)
	}
	r := s.Pass(t.Context())
	if !cmp.Equal(stagesOf(r), []Stage{Fetch}) || r.Commit != commit || r.Count(apply.Change) != 1 {
		t.Errorf("%v, commit %q, %d changed; want a failed fetch, the last commit and one change", r.Failures, r.Commit, r.Count(apply.Change))
	}
	if err := w.holds("a", "1"); err != nil {
		t.Error(err)
	}

	t.Log("so do the watches, and the failure is reported")
	w.git.set(nil)
	reports := w.start()
	w.git.set(errors.New("git is down again"))
	w.eventually("the failure is reported", func() error {
		for _, r := range reports() {
			if slices.Contains(stagesOf(r), Fetch) && r.Commit == commit {
				return nil
			}
		}
		return errors.New("not yet")
	})
	if err := w.edit("a", "edited"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the edit is put back", func() error { return w.holds("a", "1") })
	w.configMap("b", "1")
	w.repo.Commit("two")
	w.git.set(nil)
	w.eventually("the next commit is applied", func() error { return w.holds("b", "1") })
}

func TestAKeyThatComesLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held, wanted := identity(t), identity(t)
	w.configMap("a", "1")
	w.secret("db", "KEY-LATER-CANARY", wanted)
	w.repo.Commit("sealed to a key that the agent does not hold")
	w.keys.set([]crypto.Identity{held}, nil)
	reports := w.start()
	w.eventually("what needs no key is applied", func() error { return w.holds("a", "1") })
	w.eventually("the failure is reported", func() error {
		for _, r := range reports() {
			if err := r.Err(); err != nil && strings.Contains(err.Error(), "db.yaml") && slices.Contains(stagesOf(r), Decrypt) {
				return nil
			}
		}
		return errors.New("not yet")
	})
	w.keys.set(nil, errors.New("the API server is away"))
	w.eventually("so is an unreadable key store", func() error {
		for _, r := range reports() {
			if slices.Contains(stagesOf(r), Keys) {
				return nil
			}
		}
		return errors.New("not yet")
	})
	w.keys.set([]crypto.Identity{held, wanted}, nil)
	w.eventually("with the key it is applied, without a restart", func() error {
		s, err := w.admin.CoreV1().Secrets(w.app).Get(t.Context(), "db", metav1.GetOptions{})
		if err == nil && string(s.Data["v"]) != "KEY-LATER-CANARY" {
			err = errors.New("another value")
		}
		return err
	})
	if strings.Contains(w.log.String(), "CANARY") {
		t.Error("the value is in the log")
	}
}

func TestReportOnlyChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configMap("a", "1")
	w.configMap("b", "1")
	w.repo.Commit("one")
	w.cfg.Drift = ReportOnly
	w.start()
	w.eventually("it is applied", func() error { return errors.Join(w.holds("a", "1"), w.holds("b", "1")) })
	mark := w.cp.Mark()
	if err := w.edit("a", "DRIFT-CANARY"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the drift is logged", func() error {
		for line := range strings.Lines(w.log.String()) {
			if strings.Contains(line, "msg=drift") && strings.Contains(line, "ConfigMap/"+w.app+"/a") && strings.Contains(line, "somebody") {
				return nil
			}
		}
		return errors.New("not yet")
	})
	w.configMap("b", "2")
	w.repo.Commit("two") // a pass, which leaves the edited one alone
	w.eventually("the commit is applied", func() error { return w.holds("b", "2") })
	time.Sleep(1500 * time.Millisecond)
	if n := w.requests(mark, "configmaps", "patch", "update", "delete", "create"); n != 1 {
		t.Errorf("%d writes, want the one of the commit", n)
	}
	if err := w.holds("a", "DRIFT-CANARY"); err != nil {
		t.Error(err)
	}
	if strings.Contains(w.log.String(), "CANARY") {
		t.Error("the value is in the log")
	}

	t.Log("nor does a pass that looks once")
	r := w.once().Pass(t.Context())
	if warning := strings.Join(r.Warnings, "\n"); r.Err() != nil || len(r.Done) > 0 || !strings.Contains(warning, "drift: ConfigMap/"+w.app+"/a") || strings.Contains(warning, "CANARY") {
		t.Errorf("it did %v (%v) and warned of %q", r.Done, r.Err(), warning)
	}
}

func TestTwoWritersWhoFight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configMap("a", "1")
	w.configMap("b", "1")
	w.repo.Commit("one")
	reports := w.start()
	w.eventually("it is applied", func() error { return errors.Join(w.holds("a", "1"), w.holds("b", "1")) })
	mark := w.cp.Mark()
	const fighting = "fighting over an object"
	edits, patches := 0, 0
	// Corrections come at 0, 1, 3, 7 and 15 s; the fifth is called a fight.
	for start := time.Now(); !strings.Contains(w.log.String(), fighting); time.Sleep(50 * time.Millisecond) {
		if err := w.edit("a", fmt.Sprint("edit ", edits)); err != nil {
			t.Fatal(err)
		}
		edits++
		if edits == 110 { // about 6 s
			patches = w.requests(mark, "configmaps", "patch")
		}
		if time.Since(start) > time.Minute {
			t.Fatal("not called a fight within a minute")
		}
	}
	t.Logf("%d edits; %d corrections after 110 of them, %d in all", edits, patches, w.requests(mark, "configmaps", "patch"))
	w.eventually("it is in the report", func() error {
		r := reports()
		f := r[len(r)-1].Fights
		if len(f) != 1 || f[0].ID.Name != "a" || f[0].Corrections < 5 || time.Since(f[0].Since) < 10*time.Second || !strings.Contains(f[0].Why, `last by "somebody"`) {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	if patches < 1 || patches > 4 {
		t.Errorf("%d corrections of 110 edits, want one to four", patches)
	}
	if n := w.requests(mark, "configmaps", "patch"); n > 6 {
		t.Errorf("%d corrections of %d edits, want at most six", n, edits)
	}
	for range 10 {
		if err := w.edit("a", fmt.Sprint("edit ", edits)); err != nil {
			t.Fatal(err)
		}
		edits++
	}
	t.Log("an object that nobody fights over is still repaired at once")
	if err := w.edit("b", "edited"); err != nil {
		t.Fatal(err)
	}
	w.eventually("b is put back", func() error { return w.holds("b", "1") })
	if n := strings.Count(w.log.String(), fighting); n != 1 || !strings.Contains(w.log.String(), "ConfigMap/"+w.app+"/a") {
		t.Errorf("%d messages about a fight, want one that names the object:\n%s", n, w.log)
	}
}

// stall holds back patches of one object until their request is cancelled, or
// for good after they were carried out.
type stall struct {
	http.RoundTripper
	reached func() // a patch of b has arrived
	carry   bool   // it is carried out before its answer is lost
}

func (s stall) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPatch || !strings.HasSuffix(r.URL.Path, "/configmaps/b") {
		return s.RoundTripper.RoundTrip(r)
	}
	if s.carry {
		resp, err := s.RoundTripper.RoundTrip(r.Clone(context.WithoutCancel(r.Context())))
		if err != nil {
			return nil, err
		}
		_, _ = io.Copy(io.Discard, resp.Body) // its content does not matter
		_ = resp.Body.Close()
	}
	s.reached()
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestACancelledPassRecordsWhatItDid(t *testing.T) {
	t.Parallel()
	for name, carry := range map[string]bool{"a request that never arrived": false, "a request whose answer was lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.configMap("a", "1")
			w.configMap("b", "1")
			w.repo.Commit("one")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.wrap = func(rt http.RoundTripper) http.RoundTripper {
				return stall{rt, func() {
					w.eventually("a is applied", func() error { return w.holds("a", "1") })
					time.Sleep(200 * time.Millisecond) // its answer has come
					cancel()
				}, carry}
			}
			r := w.once().Pass(ctx)
			if !errors.Is(r.Err(), context.Canceled) || r.Count(apply.Create) != 1 {
				t.Errorf("got %v and %d created, want a cancelled pass that created one", r.Err(), r.Count(apply.Create))
			}
			if diff := cmp.Diff(w.inventory(), map[string]apply.Phase{"ConfigMap/a": apply.Applied, "ConfigMap/b": apply.Intended}); diff != "" {
				t.Errorf("inventory: got -, want +:\n%s", diff)
			}

			t.Log("b left git meanwhile: the next process finds it, if it is there")
			w.wrap = nil
			w.repo.Remove("b.yaml")
			w.repo.Commit("without b")
			if err := w.once().Pass(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			if _, err := w.admin.CoreV1().ConfigMaps(w.app).Get(t.Context(), "b", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("b: got %v, want not found", err)
			}
			if diff := cmp.Diff(w.inventory(), map[string]apply.Phase{"ConfigMap/a": apply.Applied}); diff != "" {
				t.Errorf("inventory: got -, want +:\n%s", diff)
			}
		})
	}
}

// failB makes patches of b fail while on is set.
type failB struct {
	http.RoundTripper
	on *atomic.Bool
}

func (f failB) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.on.Load() && r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/configmaps/b") {
		return nil, errors.New("connection lost")
	}
	return f.RoundTripper.RoundTrip(r)
}

func TestAFailedRepairIsFollowedByAPassAlsoWhileThingsDrift(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configMap("a", "1")
	w.configMap("b", "1")
	w.repo.Commit("one")
	w.cfg.Interval = time.Hour
	var on atomic.Bool
	w.wrap = func(rt http.RoundTripper) http.RoundTripper { return failB{rt, &on} }
	w.start()
	w.eventually("it is applied", func() error { return errors.Join(w.holds("a", "1"), w.holds("b", "1")) })
	on.Store(true)
	if err := w.edit("b", "edited"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the repair fails", func() error {
		if !strings.Contains(w.log.String(), "msg=failed") {
			return errors.New("not yet")
		}
		return nil
	})
	on.Store(false)
	w.eventually("b is put back, though a changes all the time", func() error {
		if err := w.edit("a", time.Now().String()); err != nil {
			return err
		}
		return w.holds("b", "1")
	})
}
