package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/source"
)

// DriftMode is what happens to drift.
type DriftMode string

// The modes.
const (
	Correct    DriftMode = "Correct"
	ReportOnly DriftMode = "Report"
)

// Config is one Sync. Useful zero values: no prune limit but the default one,
// the default policy, drift corrected.
type Config struct {
	Owner               apply.Owner
	SourceName          string // URL, for the inventory and messages; no credentials
	Path                string
	TargetNamespace     string // for objects that name none
	Policy              decrypt.Policy
	Prune               bool
	PruneLimit          apply.PruneLimit
	PruneConfirm        string // a commit for which PruneLimit does not hold
	ConfirmSourceChange bool
	Ignore              []apply.IgnoreRule // fields that others may take over
	Drift               DriftMode
	Interval            time.Duration // between looks at git
	Audit               time.Duration // about so long between audits of the watches; 0 for none
	Wait                time.Duration // for what was applied to become ready, at most; 0 for not at all
	WaveTimeout         time.Duration // for a wave to become ready before the next one; 0 for not at all
	RetryLimit          time.Duration // the longest pause between tries after a failure; 0 for five minutes

	// Protected says why an object must not be changed, "" where it may; nil for no
	// protection. What is protected is neither written nor pruned.
	Protected func(apply.ID) string

	// Turn is asked before a pass does anything beyond a look at git, and gives the
	// turn back with release; nil for at once. It bounds how many passes run together.
	Turn func(ctx context.Context, commit string) (release func(), err error)
}

// Fetcher is git, as package source has it.
type Fetcher interface {
	Fetch(ctx context.Context) (*source.Commit, bool, error)
	Last() *source.Commit
}

// KeyLoader is the key store, as package keys has it.
type KeyLoader interface {
	Load(ctx context.Context) (*keys.Ring, error)
}

// Sync carries out passes. Not safe for concurrent use.
type Sync struct {
	cfg    Config
	source Fetcher
	keys   KeyLoader
	runner *apply.Runner
	log    *slog.Logger

	loaded    bool // the inventory was read
	inventory apply.Inventory
	desired   []apply.Desired // of the last pass that got so far
	applied   string          // the commit that was applied without a failure
	gated     string          // the commit of which later waves wait for unready
	unready   []apply.Desired
	behind    map[apply.ID]bool          // objects of desired that wait for others: drift must not overtake them
	lingering bool                       // something that was pruned is still held by a finalizer
	current   string                     // the commit of desired
	said      string                     // the failures that were logged last
	unwatched map[schema.GroupKind]error // as the last pass reported it
	polled    map[schema.GroupKind]error // as well
	fights    *fights
	reported  map[apply.ID]string // drift that was only reported
	drift     map[apply.ID]string // seen by the watches, and not yet dealt with
	cache     *decrypt.Cache      // of what was opened
	builds    *build.Cache
	trigger   chan struct{}
	anew      atomic.Bool // the next pass must not take the commit for applied
}

// New makes a Sync; nothing is read yet. runner.Drift may be nil: then drift is
// looked for once in each pass, instead of watched.
func New(cfg Config, f Fetcher, k KeyLoader, runner *apply.Runner, log *slog.Logger) *Sync {
	if cfg.TargetNamespace == "" {
		cfg.TargetNamespace = "default"
	}
	cfg.Policy.Namespace = cfg.TargetNamespace
	return &Sync{trigger: make(chan struct{}, 1), fights: newFights(), drift: map[apply.ID]string{}, cache: decrypt.NewCache(), builds: build.NewCache(), reported: map[apply.ID]string{}, cfg: cfg, source: f, keys: k, runner: runner, log: log}
}

// Pass brings the cluster to what git holds. Where git can not be reached it
// works on the last good commit. The report is complete also after a failure.
func (s *Sync) Pass(ctx context.Context) Report {
	start := time.Now()
	r := Report{Started: start, Stages: map[Stage]time.Duration{}}
	s.pass(ctx, &r)
	s.stand(&r)
	r.Took = time.Since(start)
	return r
}

func (s *Sync) pass(ctx context.Context, r *Report) {
	timed := func(stage Stage) func() {
		t := time.Now()
		return func() { r.Stages[stage] += time.Since(t) }
	}
	stop := timed(Fetch)
	commit, _, err := s.source.Fetch(ctx)
	stop()
	if err != nil {
		r.fail(Fetch, err)
		if commit = s.source.Last(); commit == nil {
			return
		}
	}
	if s.anew.Swap(false) {
		s.applied, s.gated = "", ""
	}
	r.Commit, r.Ref, r.Subject, r.Author = commit.Hash, commit.Ref, commit.Subject, commit.Author
	if s.runner.Drift != nil && (s.applied == commit.Hash && !s.lingering || s.gated == commit.Hash) {
		r.Idle, r.Gated = true, s.gated == commit.Hash
		return
	}
	if s.cfg.Turn != nil {
		release, err := s.cfg.Turn(ctx, commit.Hash)
		if err != nil {
			r.fail(Plan, err)
			return
		}
		defer release()
	}
	s.applied, s.gated = "", "" // from here on the cluster may hold this commit in part
	if err := s.loadInventory(ctx); err != nil {
		r.fail(Plan, err)
		return
	}
	stop = timed(Keys)
	ring, err := s.keys.Load(ctx)
	stop()
	if err != nil {
		r.fail(Keys, err)
		return
	}
	digester, err := decrypt.NewDigester(ring.Token, s.cfg.Owner.Namespace, s.cfg.Owner.Name)
	if err != nil {
		r.fail(Keys, err)
		return
	}
	masker := decrypt.NewMasker(decrypt.MaskerConfig{Tree: commit.Tree, Keys: ring, Digester: digester, Policy: s.cfg.Policy, Cache: s.cache})
	stop = timed(Decrypt)
	masker.Prefetch(ctx, path.Clean(strings.Trim(s.cfg.Path, "/")))
	stop()
	stop = timed(Build)
	objects, err := s.builds.Run(ctx, masker, s.cfg.Path)
	stop()
	if fatal := masker.Err(); fatal != nil {
		r.fail(Decrypt, fatal)
		return
	}
	if err != nil {
		for _, p := range masker.Problems() {
			r.fail(Decrypt, p)
		}
		r.fail(Build, err)
		return
	}
	stop = timed(Gate)
	gated := masker.Pass().Gate(objects)
	stop()
	r.Objects, r.Opened = len(objects), masker.Opened()
	for key, n := range gated.SealedTo {
		r.Opened[key] += n
	}
	r.addGated(gated, masker.Problems(), masker.Warnings())
	s.apply(ctx, r, commit.Hash, gated, masker.Problems(), timed)
}

func (s *Sync) apply(ctx context.Context, r *Report, commit string, gated decrypt.Gated, problems []decrypt.Problem, timed func(Stage) func()) {
	stop := timed(Plan)
	desired, unknown := s.runner.Cluster.Resolve(gated.Objects, s.cfg.TargetNamespace)
	if err := outside(desired, gated.Refused, s.cfg.Owner.Within); err != nil {
		stop()
		r.fail(Plan, err)
		return
	}
	desired, kept := protected(desired, s.cfg.Protected)
	unknown = append(unknown, kept...)
	for _, f := range unknown {
		r.fail(Plan, f)
	}
	drifted, held, err := s.drifted(ctx, r)
	if err != nil {
		stop()
		r.fail(Plan, err)
		return
	}
	fresh := len(s.inventory.Entries) == 0
	plan := apply.NewPlan(apply.PlanInput{
		Owner: s.cfg.Owner, Desired: desired, Inventory: s.inventory, Drifted: drifted, Held: held,
		Source:     strings.TrimRight(s.cfg.SourceName, "/") + "//" + path.Clean(strings.Trim(s.cfg.Path, "/")),
		Incomplete: incomplete(problems, gated.Refused, unknown), Refused: refusedIDs(gated.Refused), Renamed: renamed(gated.Refused), Absent: absent(gated.Refused, unknown),
		Prune: s.cfg.Prune, Limit: s.cfg.PruneLimit, ConfirmPrune: s.cfg.PruneConfirm != "" && s.cfg.PruneConfirm == commit,
		ConfirmSourceChange: s.cfg.ConfirmSourceChange, AwaitWaves: s.cfg.WaveTimeout > 0, Ignore: s.cfg.Ignore, Protected: s.cfg.Protected,
	})
	stop()
	stop = timed(Apply)
	res, err := s.runner.Run(ctx, plan, commit)
	stop()
	s.inventory, s.desired, s.unready, s.current = res.Inventory, plan.Desired, res.Unready, commit
	s.behind = map[apply.ID]bool{}
	for _, f := range slices.Concat(res.Waiting, res.Pending) {
		s.behind[f.ID] = true
	}
	if err == nil {
		s.dealtWith(plan)
	}
	r.addResult(res)
	r.Left = len(plan.Desired) - r.written() - len(res.Failed) - len(res.Waiting) - len(res.Pending)
	r.Terminating = res.Inventory.Terminating()
	s.lingering = len(r.Terminating) > 0
	if err != nil {
		r.fail(Apply, err)
		s.loaded = false // what is stored is not known for sure
	}
	if fresh && r.Count(apply.Adopt) > 0 {
		r.Strays = s.runner.Strays(ctx, s.inventory)
	}
	if s.cfg.Prune && plan.PruneBlocked != "" {
		r.PruneBlocked = plan.PruneBlocked
		if len(r.Failures) == 0 {
			r.fail(Prune, fmt.Errorf("%d objects were not pruned: %s", plan.Count(apply.Blocked), plan.PruneBlocked))
		}
	}
	switch {
	case len(r.Failures) > 0:
	case len(r.Pending) > 0:
		s.gated = commit
	default:
		s.applied = commit
	}
}

// dealtWith forgets the drift of what the plan held: what of it could not be sent is
// marked in the inventory. The rest, of objects that were refused, say, waits.
func (s *Sync) dealtWith(plan apply.Plan) {
	for _, d := range plan.Desired {
		delete(s.drift, d.ID)
	}
	maps.DeleteFunc(s.drift, func(id apply.ID, _ string) bool { _, known := s.inventory.Entries[id]; return !known })
}

// Once makes one pass, and further ones while waves wait for those before them. Then
// it waits until everything is ready, if Config.Wait says so.
func (s *Sync) Once(ctx context.Context) Report {
	r := s.Pass(ctx)
	for len(r.Failures) == 0 && len(r.Pending) > 0 && ctx.Err() == nil {
		s.await(ctx, s.unready, s.inventory, s.cfg.WaveTimeout, &r)
		if len(r.Failures) > 0 {
			break
		}
		next := s.Pass(ctx)
		next.Left -= r.written()
		next.Done = append(r.Done, next.Done...)
		next.Strays = append(r.Strays, next.Strays...)
		next.Requests += r.Requests
		next.Took += r.Took
		r = next
	}
	s.AwaitReady(ctx, &r)
	return r
}

// drifted is what the watches saw or, without watches, what a look shows. The
// watches tell it once, so it is kept until a pass has dealt with it.
func (s *Sync) drifted(ctx context.Context, r *Report) (drifted, held map[apply.ID]string, err error) {
	if s.runner.Drift == nil {
		seen, held, err := s.runner.Survey(ctx, s.inventory)
		if s.cfg.Drift != ReportOnly || err != nil {
			return seen, held, err
		}
		for _, id := range slices.SortedFunc(maps.Keys(seen), func(a, b apply.ID) int { return strings.Compare(a.String(), b.String()) }) {
			r.Warnings = append(r.Warnings, "drift: "+id.String()+": "+seen[id])
		}
		return nil, held, nil
	}
	s.runner.Drift.AwaitSync(ctx)
	held = s.runner.Drift.Held()
	if s.cfg.Drift == ReportOnly {
		return nil, held, nil // the loop reports it
	}
	maps.Copy(s.drift, s.runner.Drift.Take())
	return s.drift, held, nil
}

// AwaitReady waits until everything that the last pass applied is ready, and adds
// what is not to the report. It does nothing after a failure, or without Config.Wait.
func (s *Sync) AwaitReady(ctx context.Context, r *Report) {
	if s.cfg.Wait <= 0 || len(r.Failures) > 0 {
		return
	}
	s.await(ctx, s.desired, s.inventory, s.cfg.Wait, r)
}

func (s *Sync) await(ctx context.Context, desired []apply.Desired, inventory apply.Inventory, limit time.Duration, r *Report) {
	start := time.Now()
	for _, f := range s.runner.AwaitReady(ctx, desired, inventory, limit) {
		r.fail(Health, f)
	}
	took := time.Since(start)
	r.Stages[Health] += took
	r.Took += took
}

func (s *Sync) loadInventory(ctx context.Context) error {
	if s.loaded {
		return nil
	}
	inv, err := s.runner.Store.Load(ctx)
	if err != nil {
		return err
	}
	s.inventory, s.loaded = inv, true
	s.runner.Drift.Track(inv) // the watches begin while the tree is built
	return nil
}

func renamed(refused []decrypt.Refusal) []apply.ID {
	var out []apply.ID
	for _, r := range refused {
		if r.Renamed {
			out = append(out, apply.ID(r.Target))
		}
	}
	return out
}

// absent is what git holds and this pass can not apply, with its waves.
func absent(refused []decrypt.Refusal, unknown []apply.Failure) map[apply.ID]int {
	out := map[apply.ID]int{}
	for _, r := range refused {
		out[apply.ID(r.Target)] = apply.WaveOf(r.Annotations)
	}
	for _, f := range unknown {
		out[f.ID] = f.Wave
	}
	return out
}

// refusedIDs names what the gate did not let through, so that what needs it
// waits and its entry in the inventory stays.
func refusedIDs(refused []decrypt.Refusal) []apply.ID {
	out := make([]apply.ID, 0, len(refused))
	for _, r := range refused {
		out = append(out, apply.ID(r.Target))
	}
	return out
}
