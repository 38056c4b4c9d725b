package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Concurrency is how many objects are sent at once.
const Concurrency = 16

// changeTries is how often an object is looked at again that changed between a look
// and a change or delete that is tied to what was seen.
const changeTries = 3

// Done is one thing that was done to the cluster.
type Done struct {
	ID     ID
	Action Action // Create, Adopt, Change, Prune or Release
	Reason string
}

// Result of a run. It is valid when the error is not nil, too.
type Result struct {
	Done      []Done // in the order of the plan
	Failed    []Failure
	Waiting   []Failure // not tried, since something they need failed
	Pending   []Failure // not tried, since a wave before theirs is not ready yet
	Unready   []Desired // the waves that Pending waits for
	Kept      []Failure // prunes that were held back, and why
	Requests  int       // sent for objects
	Newer     bool      // waits were left to the next run, since Runner.Newer said so
	Inventory Inventory // what is stored now
}

// Runner carries out plans. One at a time.
type Runner struct {
	Cluster *Cluster
	Store   *InventoryStore
	Owner   Owner
	// Force lets objects be deleted and made anew that can not be changed.
	Force bool
	// Drift is told of what was applied, and of what it should ignore
	// meanwhile; nil where nothing watches.
	Drift *Drift
	// Newer returns true once there is a newer commit than the one that is carried out,
	// and false once ctx has ended. It is called while a run waits for something in the
	// cluster, once at a time; then the wait is left to the next run. It may be nil.
	Newer func(ctx context.Context) bool

	waits *waits // of the run that goes on
}

// Run carries out a plan. One failing object does not stop others that do not
// need it. The inventory is widened before the first change and narrowed after
// confirmed prunes, so that a crash at any point loses no object. The error is
// about the inventory or the context; objects are in Result.
func (r *Runner) Run(ctx context.Context, p Plan, commit string) (Result, error) {
	res := Result{Inventory: p.inventory.Clone()}
	if err := r.intend(ctx, p, &res); err != nil {
		return res, err
	}
	r.waits = newWaits(ctx, r.Newer)
	r.applyAll(ctx, p, &res)
	res.Newer = r.waits.cutShort()
	whole := len(res.Failed)+len(res.Waiting)+len(res.Pending) == 0 && ctx.Err() == nil
	if whole && p.PruneBlocked == "" {
		r.pruneAll(ctx, p, &res)
	}
	if whole && ctx.Err() == nil {
		res.Inventory.Commit = commit
		if p.PruneBlocked == "" {
			res.Inventory.Source = p.source
		}
	}
	// What was done is recorded also when the pass was cancelled.
	saveCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	if err := r.Store.Save(saveCtx, res.Inventory); err != nil {
		return res, err
	}
	r.Drift.Track(res.Inventory)
	return res, ctx.Err()
}

// intend writes the union of old and new before the first change, and what is
// about to get other content as intended: after a crash its evidence could not
// tell, since the time in managedFields has whole seconds, and a commit that was
// reverted meanwhile would find nothing to do.
func (r *Runner) intend(ctx context.Context, p Plan, res *Result) error {
	fresh := false
	before := map[ID]Entry{}
	defer func() { maps.Copy(res.Inventory.Entries, before) }()
	for i, d := range p.Desired {
		e, known := res.Inventory.Entries[d.ID]
		switch {
		case !known:
			e = Entry{Version: d.kind.resource.Version, Resource: d.kind.resource.Resource, Phase: Intended}
		case e.Phase == Applied && p.Steps[i].Action == Change && e.Input != d.Object.Input:
			before[d.ID] = e
			e.Phase = Intended // in the store only: one still has use for the rest
		default:
			continue
		}
		res.Inventory.Entries[d.ID] = e
		fresh = true
	}
	if res.Inventory.Source == "" {
		res.Inventory.Source = p.source
	}
	if !fresh {
		return nil
	}
	return r.Store.Save(ctx, res.Inventory)
}

// one applies one object, or finds that nothing is to be sent.
func (r *Runner) one(ctx context.Context, d Desired, step Step, e Entry, inv Inventory) outcome {
	if step.Action == Leave {
		return outcome{entry: e}
	}
	fail := func(err error) outcome {
		if step.mayBeAnothers() {
			e.Evidence = Evidence{} // it is claimed like a new one
		}
		return failed(e, err)
	}
	if r.Owner.reserved(d.ID) {
		return fail(errors.New("is one of the agent's own objects and may not come from git"))
	}
	wave, err := waveOf(d.Object.Masked.GetAnnotations())
	if err != nil {
		return fail(err)
	}
	alone, never, looked, err := r.leftAlone(ctx, d)
	if err != nil {
		return fail(err)
	}
	if alone {
		e.Keep, e.Once = never, !never
		return outcome{entry: e, requests: looked}
	}
	if d.ignoredErr != nil {
		return fail(d.ignoredErr)
	}
	body, digest, asked, err := r.body(ctx, d, e)
	if err != nil {
		return fail(err)
	}
	asked += looked
	if e.Phase == Applied && e.Body == digest && e.Version == d.kind.resource.Version && step.Reason == changedInput {
		e.Input = d.Object.Input // sealed again, same content: nothing to send
		return outcome{entry: e, requests: asked}
	}
	given := 0
	if isSealedSecret(d.ID) {
		if given, err = r.giveBack(ctx, d.ID, inv); err != nil {
			return fail(err)
		}
	}
	r.Drift.begin(d.ID)
	sent, accepted, n, err := r.send(ctx, d, step, e, body)
	requests := n + given + asked
	if err == nil {
		step.Reason = step.inHindsight(sent, e.Evidence)
	} else {
		sent, n, err = r.recreate(ctx, d, body, err)
		accepted = body
		requests += n
		if err == nil {
			step.Reason += "; made anew, since a field can not be changed"
		}
	}
	if err != nil {
		o := fail(err)
		o.requests = requests
		r.Drift.end(d.ID, o.entry)
		return o
	}
	m := sent.PartialObjectMetadata
	var settleErr error
	var from []string
	if e.Evidence.UID == "" && ssa(d.Object.Masked) != "Merge" {
		var n int
		m, n, settleErr = r.unlessChanged(ctx, d, m, func(m *metav1.PartialObjectMetadata) (after *metav1.PartialObjectMetadata, n int, err error) {
			after, from, n, err = r.adopt(ctx, d, m, accepted)
			return after, n, err
		})
		requests += n
	}
	adopted := settleErr == nil
	if isSecret(d.ID) && adopted {
		var n int
		m, n, settleErr = r.unlessChanged(ctx, d, m, func(m *metav1.PartialObjectMetadata) (*metav1.PartialObjectMetadata, int, error) {
			return r.settle(ctx, d, m)
		})
		requests += n
	}
	if settleErr == nil && m.GetLabels()[SyncLabel] != r.Owner.label() {
		settleErr = errors.New("came back without the label " + SyncLabel + ": an admission webhook must have taken it off, and without it gitseal neither sees its drift nor prunes it")
	}
	theirs, err := nowIgnored(m, r.Owner.fieldManager(), d, e)
	if err != nil && settleErr == nil {
		settleErr = err
	}
	e = Entry{
		Version: d.kind.resource.Version, Resource: d.kind.resource.Resource, Phase: Applied,
		Input: d.Object.Input, Body: digest, Evidence: evidenceOf(m, r.Owner.fieldManager(), theirs),
		Leaving: d.leaving(), Ignored: theirs, Wave: wave, Once: ssa(d.Object.Masked) == ifNotPresent, resourceVersion: m.GetResourceVersion(),
	}
	if settleErr != nil {
		e.Phase = Intended
	}
	if !adopted {
		e.Evidence = Evidence{} // so that the next pass tries again
	}
	r.Drift.end(d.ID, e)
	if step.Reason = takingOver(step.Reason, from); step.Action == Create && !sent.created {
		step = step.adopting(from)
	}
	o := outcome{entry: e, done: &Done{d.ID, step.Action, step.Reason}, requests: requests, failed: settleErr, generation: m.GetGeneration()}
	if isCRD(d.ID.GroupKind()) {
		r.Cluster.forget()
		if err := r.waitEstablished(ctx, d.ID.Name); err != nil {
			o.failed, o.entry.Phase = err, Intended
		}
	}
	return o
}

// inHindsight is the reason of a repair that was sent. What the watch could not tell,
// the answer does: whether the object was gone, or had only lost our label.
func (s Step) inHindsight(a answer, was Evidence) string {
	more, either := strings.CutPrefix(s.Reason, notThere)
	switch {
	case !either:
		return s.Reason
	case a.created:
		return "it was deleted in the cluster" + more
	case was.UID == "": // a try before has failed, and nobody knows
		return s.Reason
	case string(a.GetUID()) != was.UID:
		return madeAnew + more
	case a.relabelled != "":
		return fmt.Sprintf("its label %s was changed by %q%s", SyncLabel, a.relabelled, more)
	default: // whoever removes a field leaves no name
		return "its label " + SyncLabel + " was removed" + more
	}
}

// unlessChanged does something to an object as it was seen and, where somebody has
// written meanwhile, looks again and repeats it, a few times.
func (r *Runner) unlessChanged(ctx context.Context, d Desired, m *metav1.PartialObjectMetadata, do func(*metav1.PartialObjectMetadata) (*metav1.PartialObjectMetadata, int, error)) (*metav1.PartialObjectMetadata, int, error) {
	requests := 0
	for tries := changeTries; ; tries-- {
		after, n, err := do(m)
		requests += n
		var answer *RefusedError
		if tries == 1 || !errors.As(err, &answer) || answer.Reason != metav1.StatusReasonConflict {
			return after, requests, err
		}
		requests++
		now, err := r.Cluster.get(ctx, d.kind.resource, d.ID)
		if err != nil {
			return m, requests, refused(err, d.Object.CarriesPlaintext())
		}
		m = now
	}
}

// failed keeps the entry so that the next pass tries again, whatever the reason.
func failed(e Entry, err error) outcome {
	e.Phase = Intended
	return outcome{entry: e, failed: err}
}

// Repair applies the given objects of a plan again, whatever the inventory says.
func (r *Runner) Repair(ctx context.Context, inv Inventory, desired []Desired, why map[ID]string) (Result, error) {
	held := r.Drift.Held()
	p := Plan{owner: r.Owner, inventory: inv, source: inv.Source, PruneBlocked: "a repair prunes nothing"}
	for _, d := range desired {
		if w, ok := why[d.ID]; ok && held[d.ID] == "" {
			p.Desired = append(p.Desired, d)
			p.Steps = append(p.Steps, Step{d.ID, Change, w})
		}
	}
	return r.Run(ctx, p, inv.Commit)
}
