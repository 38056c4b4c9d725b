package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"

	"github.com/gitseal/gitseal/test/harness"
)

// A story is a row of commits, with what others do to the cluster between them.
type story []step

// step is one commit, which a new process brings to the cluster. In every text
// NS is the story's namespace and GROUP its API group. What is left empty must
// not happen: a step that names no drift, failure or prune has none.
type step struct {
	meanwhile act    // what others do before the pass
	git       string // manifests; "" for those of the step before
	plan      func(*PlanInput)

	drift     []string // "ConfigMap/a: its", a part of each reason
	done      string   // "create ConfigMap/a, prune ConfigMap/b", in the order of the plan
	reasons   []string // a part of the reason of each that was done; nil for any
	failed    []string // a part of each message, as is the rest
	waiting   []string
	kept      []string
	blocked   string
	inventory string // what is stored: "ConfigMap/a applied"; "" for all of git, applied
	cluster   string // what became of each object: "ConfigMap/a same, ConfigMap/b gone"; "" for anything
	requests  string // from the audit log: "delete configmaps/b, patch configmaps/a"; "none"; "" for any
	order     string // of writes, among others: "patch secrets/a, patch deployments/b"
	then      act    // checks what is left
}

// topics are the suite. The numbers before a story are those of the upstream
// scenarios that it stands for, or the hazard of the table of prunes. Elsewhere:
//
//	3, 15       TestOneFailingObjectStopsOnlyWhatNeedsIt, TestDeathAtEveryWrite
//	6           TestObjectsThatAskForItAreLeftAlone
//	7           TestFieldsOfPredecessorsAreTakenOver
//	12          TestUnknownKindsAreNamed, TestReportSaysWhatAPassDid (reconcile)
//	16, 19, 24  TestPruneDeletesOnlyWhatIsSurelyOurs
//	4, 14       TestWhatCanNotBeChangedIsMadeAnewOnlyIfAskedAndAccepted
//	19          TestAnotherSyncsObjectIsNotTakenUntilItIsGivenUp
//	26          TestWavesGoOneAfterAnother
//	31          TestAnObjectInTheClusterMayAskToBeLeftAlone
//	18, 29      TestPlanSaysWhatWillBeDone
//	33, 34      TestDriftIsSeenAndOtherChangesAreNot
//	36          TestTwoWritersWhoFight, TestAFailedRepairIsFollowedByAPassAlsoWhileThingsDrift (reconcile)
//	a missing path         TestBadInputIsNamedAndNothingIsLost (e2e)
//	git is away            TestAFailingFetch (reconcile)
//	a source that changed  TestPlanSaysWhatWillBeDone
//	the API server is away TestAnAgentOutlivesAnOutageOfTheAPIServer (e2e)
//
//	22          TestADeletedSyncTakesItsObjectsAlong, TestADeletedSyncMayLeaveItsObjects
//	37, 38      TestReadinessIsWaitedForByEvents, TestWhatIsNotReadyIsNamed, TestANewerCommitEndsTheWaitForAnOlderOne (reconcile)
//
// Not offered, so without a story: 8, 23 and 39 (impersonation), and dependsOn of 38.
var topics = map[string]map[string]story{
	"apply":  applyStories,
	"force":  forceStories,
	"order":  orderStories,
	"prune":  pruneStories,
	"more":   moreStories,
	"drift":  driftStories,  // watched, by one process from its first step on
	"ignore": ignoreStories, // watched, too
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	for topic, stories := range topics {
		t.Run(topic, func(t *testing.T) {
			t.Parallel()
			for name, s := range stories {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					newPlayer(t, topic == "drift" || topic == "ignore").play(s)
				})
			}
		})
	}
}

// player plays a story in a world of its own.
type player struct {
	*world
	dynamic dynamic.Interface
	watched bool
	group   string // of CRDs
	git     string
	ignore  []IgnoreRule
	seen    map[ID]Entry // every object of the story
}

// somebody is a client that is not the runner's, and not counted with it.
func (w *world) somebody() dynamic.Interface {
	w.t.Helper()
	cfg, err := w.cp.RESTConfig()
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return client
}

func newPlayer(t *testing.T, watched bool) *player {
	t.Helper()
	return newPlayerIn(newWorld(t), watched)
}

func newPlayerIn(w *world, watched bool) *player {
	w.t.Helper()
	p := &player{world: w, dynamic: w.somebody(), watched: watched, seen: map[ID]Entry{}}
	p.group, _ = w.crd()
	if watched {
		w.run.Drift = NewDrift(w.t.Context(), w.c, w.owner)
	}
	w.t.Cleanup(p.clean)
	return p
}

// clean removes what is in no namespace, and what holds up the others.
func (p *player) clean() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.t.Context()), 10*time.Second)
	defer cancel()
	for id, e := range p.seen {
		if id.Namespace == "" {
			_ = p.dynamic.Resource(e.gvr(id)).Delete(ctx, id.Name, metav1.DeleteOptions{}) // most are gone
		}
	}
}

func (p *player) text(s string) string {
	return strings.NewReplacer("NS", p.ns, "GROUP", p.group).Replace(s)
}

func (p *player) play(s story) {
	p.t.Helper()
	for i, st := range s {
		if p.t.Failed() {
			return
		}
		p.t.Logf("step %d", i+1)
		p.step(st)
	}
}

func (p *player) step(s step) {
	p.t.Helper()
	if s.meanwhile != nil {
		if err := s.meanwhile(p); err != nil {
			p.t.Fatal("meanwhile: ", err)
		}
	}
	repair := p.watched && s.git == "" && s.plan == nil // nothing new in git
	if s.git != "" {
		p.git = p.text(s.git)
	}
	if !p.watched {
		p.reload()
	}
	in := PlanInput{Owner: p.owner, Inventory: p.inv, Source: "s", Prune: true, Ignore: p.ignore}
	in.Drifted, in.Held = p.drift(s.drift)
	var unknown []Failure
	if in.Desired, unknown = p.desired(p.git); len(unknown) > 0 {
		in.Incomplete, in.Absent = "unknown kinds", map[ID]int{}
		for _, f := range unknown {
			in.Absent[f.ID] = f.Wave
		}
	}
	if s.plan != nil {
		s.plan(&in)
	}
	before, mark, plan := p.snapshot(in), p.cp.Mark(), NewPlan(in)
	var res Result
	var err error
	if repair {
		res, err = p.run.Repair(p.t.Context(), p.inv, plan.Desired, in.Drifted)
	} else {
		res, err = p.run.Run(p.t.Context(), plan, "commit")
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.inv = res.Inventory
	log := p.log(mark)
	var done []string
	for _, d := range res.Done {
		done = append(done, string(d.Action)+" "+short(d.ID))
	}
	p.equal("done", strings.Join(done, ", "), s.done)
	if s.reasons != nil {
		p.reasons(res.Done, s.reasons)
	}
	p.messages("failed", slices.Concat(unknown, res.Failed), s.failed)
	p.messages("waiting", res.Waiting, s.waiting)
	p.messages("kept", res.Kept, s.kept)
	if !repair && (!strings.Contains(plan.PruneBlocked, p.text(s.blocked)) || (s.blocked == "") != (plan.PruneBlocked == "")) {
		p.t.Errorf("prune blocked: got %q, want %q", plan.PruneBlocked, s.blocked)
	}
	p.requests(log, res, s)
	p.inventory(in.Desired, s.inventory)
	if s.cluster != "" {
		p.equal("cluster", p.fates(before, p.snapshot(in)), s.cluster)
	}
	if s.then != nil {
		if err := s.then(p); err != nil {
			p.t.Error(err)
		}
	}
}

func (p *player) equal(what, got, want string) {
	p.t.Helper()
	if want = p.text(want); got != want {
		p.t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// reasons compares those of what was done with a part of each.
func (p *player) reasons(done []Done, want []string) {
	p.t.Helper()
	same := len(done) == len(want)
	for i := range want {
		same = same && strings.Contains(done[i].Reason, p.text(want[i]))
	}
	if !same {
		p.t.Errorf("reasons: got %v, want %q", done, want)
	}
}

// messages compares failures with a part of each, in the order of their IDs.
func (p *player) messages(what string, got []Failure, want []string) {
	p.t.Helper()
	var all []string
	for _, f := range got {
		all = append(all, f.Error())
	}
	slices.Sort(all)
	same := len(all) == len(want)
	for i := range want {
		same = same && strings.Contains(all[i], p.text(want[i]))
	}
	if !same {
		p.t.Errorf("%s:\n got %q\nwant %q", what, all, p.text(fmt.Sprintf("%q", want)))
	}
}

// drift looks for it as a process that was just started does and, where the
// story is watched, checks that the watches tell the same.
func (p *player) drift(want []string) (drifted, held map[ID]string) {
	p.t.Helper()
	found, held, err := p.run.Survey(p.t.Context(), p.inv)
	if err != nil {
		p.t.Fatal(err)
	}
	var got []Failure
	for id, why := range found {
		got = append(got, Failure{ID: id, Err: fmt.Errorf("%s", why)})
	}
	p.messages("drift", got, want)
	if !p.watched {
		return found, held
	}
	told := map[ID]string{}
	harness.Eventually(p.t, "the watches tell what a survey finds", func(context.Context) error {
		if !p.run.Drift.Synced() {
			return fmt.Errorf("not all watches have begun")
		}
		maps.Copy(told, p.run.Drift.Take())
		if !slices.Equal(sorted(told), sorted(found)) || !maps.Equal(p.run.Drift.Held(), held) {
			return fmt.Errorf("they told %v and hold %v, a survey %v and %v", told, p.run.Drift.Held(), found, held)
		}
		return nil
	})
	return told, held
}

func sorted(m map[ID]string) []ID { return slices.SortedFunc(maps.Keys(m), compareIDs) }
