package apply

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Action is what a plan does with an object.
type Action string

// The actions.
const (
	Create  Action = "create"
	Adopt   Action = "adopt" // a Create that found the object in the cluster; plans have it as Create
	Change  Action = "change"
	Leave   Action = "leave"
	Prune   Action = "prune"
	Release Action = "release" // forgotten, not deleted: it has another master now
	Blocked Action = "blocked" // would be pruned, but must not be now
)

// Step is one line of a plan. It holds names only.
type Step struct {
	ID     ID
	Action Action
	Reason string
}

// Plan is what a pass will do. It can be printed.
type Plan struct {
	Steps   []Step    // desired objects in the order of the render, then prunes
	Desired []Desired // those of the steps that are not prunes
	// PruneBlocked says why nothing is pruned although there is something to
	// prune; "" where pruning goes on.
	PruneBlocked string

	owner     Owner
	inventory Inventory // that of the input: only read
	source    string
	refused   map[ID]bool
	absent    []absentee
	renamed   []ID

	awaitWaves bool
}

// PlanInput is everything that a plan depends on.
type PlanInput struct {
	Owner     Owner
	Desired   []Desired
	Inventory Inventory
	Source    string // URL and path of this pass
	// ByLabels says that the inventory is [Listing.Inventory], which knows little.
	ByLabels bool
	// Drifted are objects whose live state is known to differ.
	Drifted map[ID]string
	// Held are objects that ask in the cluster not to be written, with the
	// annotation by which they do.
	Held map[ID]string
	// Incomplete says why Desired may lack objects that git holds: a refused
	// object, an unknown kind. "" where it is complete. While it is set nothing
	// is pruned.
	Incomplete string
	// Refused are the objects of git that the gate did not let through; what
	// needs one of them waits.
	Refused []ID
	// Renamed are those of Refused whose name nothing else has, since kustomize made
	// it: wherever it stands, it is a reference.
	Renamed []ID
	// Absent are all objects that git holds and this pass can not apply, refused or
	// of an unknown kind, with their waves: later ones wait.
	Absent map[ID]int

	// Ignore lets others take over fields of the objects that it names.
	Ignore []IgnoreRule

	// Protected says why an object must not be pruned, "" where it may be; nil for
	// no protection.
	Protected func(ID) string

	// AwaitWaves holds what a wave would send back until those before it are ready.
	AwaitWaves bool

	Prune               bool
	Limit               PruneLimit
	ConfirmPrune        bool // lets this pass exceed Limit, and prune all where git renders nothing
	ConfirmSourceChange bool
}

// PruneLimit blocks a pass that would prune too much. The zero value is the
// default: more than 10 objects and more than half of the inventory.
type PruneLimit struct {
	Objects int // more than so many, if > 0
	Percent int // more than so many percent of the inventory, if > 0
}

// ParsePruneLimit reads "25" or "30%"; "" is the default.
func ParsePruneLimit(s string) (PruneLimit, error) {
	if s == "" {
		return PruneLimit{}, nil
	}
	num, percent := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(num)
	if err != nil || n < 0 || (percent && n > 100) {
		return PruneLimit{}, fmt.Errorf("prune limit %q is not a number of objects or a percentage", s)
	}
	if percent {
		return PruneLimit{Percent: max(n, 1), Objects: -1}, nil
	}
	return PruneLimit{Objects: max(n, 1)}, nil
}

func (l PruneLimit) exceeded(prune, all int) bool {
	switch {
	case l.Percent > 0:
		return prune*100 > all*l.Percent
	case l.Objects > 0:
		return prune > l.Objects
	default:
		return prune > 10 && prune*2 > all
	}
}

// NewPlan compares what git wants with the inventory. It is pure.
func NewPlan(in PlanInput) Plan {
	p := Plan{owner: in.Owner, inventory: in.Inventory, source: in.Source, refused: map[ID]bool{}, renamed: in.Renamed, awaitWaves: in.AwaitWaves}
	for _, id := range slices.SortedFunc(maps.Keys(in.Absent), compareIDs) {
		p.absent = append(p.absent, absentee{id, in.Absent[id]})
	}
	wanted := map[ID]bool{}
	for _, id := range in.Refused {
		wanted[id], p.refused[id] = true, true
	}
	for _, d := range in.Desired {
		wanted[d.ID] = true
		d.leave(in.Ignore)
		p.Desired = append(p.Desired, d)
		p.Steps = append(p.Steps, desiredStep(d, in))
	}
	var prune []ID
	lost := 0
	for id := range in.Inventory.Entries {
		if !wanted[id] {
			prune = append(prune, id)
			if !handedOver(id, wanted) && in.Inventory.Entries[id].Phase != Terminating {
				lost++
			}
		}
	}
	slices.SortFunc(prune, compareIDs)
	if len(prune) > 0 {
		p.PruneBlocked = whyNotPrune(in, lost)
	}
	for _, id := range in.Inventory.pruneOrder(prune) {
		s := Step{ID: id, Action: Prune, Reason: "not in git any more"}
		switch {
		case handedOver(id, wanted) && isSecret(id):
			s.Action, s.Reason = Release, "the sealed-secrets controller makes it from now on"
		case handedOver(id, wanted):
			s.Reason = "gitseal makes its Secret from now on"
		}
		if p.PruneBlocked != "" {
			s.Action, s.Reason = Blocked, p.PruneBlocked
		} else if in.Protected != nil && in.Protected(id) != "" {
			s.Action, s.Reason = Blocked, in.Protected(id)
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

func desiredStep(d Desired, in PlanInput) Step {
	e, known := in.Inventory.Entries[d.ID]
	why, drifted := in.Drifted[d.ID]
	held := in.Held[d.ID]
	switch {
	case held != "":
		return Step{d.ID, Leave, "it has the annotation " + held + " in the cluster"}
	case !known:
		return Step{d.ID, Create, "new in git"}
	case e.Phase != Applied:
		return Step{d.ID, Change, "was not applied completely"}
	case !in.ByLabels && e.Version != d.kind.resource.Version:
		return Step{d.ID, Change, "other API version"}
	case drifted: // before the next case, which may find that nothing is to be sent
		return Step{d.ID, Change, why}
	case e.Input != d.Object.Input:
		return Step{d.ID, Change, changedInput}
	case !in.ByLabels && e.Leaving != d.leaving() && d.ignoredErr == nil:
		return Step{d.ID, Change, "other fields of it are left to others"}
	default:
		return Step{d.ID, Leave, ""}
	}
}

// whyNotPrune returns "" where pruning is safe.
func whyNotPrune(in PlanInput, n int) string {
	switch {
	case !in.Prune:
		return "pruning is off"
	case in.Incomplete != "":
		return "the pass is incomplete: " + in.Incomplete
	case len(in.Desired) == 0 && !in.ConfirmPrune:
		return "git renders no objects; confirm it with --prune-confirm COMMIT"
	case in.Inventory.Source != "" && in.Inventory.Source != in.Source && !in.ConfirmSourceChange:
		return fmt.Sprintf("the source changed from %s to %s; confirm it with --confirm-source-change", in.Inventory.Source, in.Source)
	case in.Limit.exceeded(n, len(in.Inventory.Entries)) && !in.ConfirmPrune:
		return fmt.Sprintf("%d of %d objects would be pruned, which is over the limit; confirm it with --prune-confirm COMMIT", n, len(in.Inventory.Entries))
	default:
		return ""
	}
}

// pruneOrder sorts what is to be pruned: the highest wave first.
func (i Inventory) pruneOrder(ids []ID) []ID {
	slices.SortStableFunc(ids, func(a, b ID) int {
		return cmp.Or(i.Entries[b].Wave-i.Entries[a].Wave, pruneRank(a)-pruneRank(b))
	})
	return ids
}

// pruneRank orders the prunes of a wave: what uses others goes before them, and
// namespaces and CRDs, which take other objects with them, go last.
func pruneRank(id ID) int {
	switch {
	case last(id):
		return 0
	case isCRD(id.GroupKind()):
		return 5
	case id.Group == "" && id.Kind == "Namespace":
		return 6
	case id.Group == "" && (id.Kind == "Secret" || id.Kind == "ConfigMap" || id.Kind == "ServiceAccount" || id.Kind == "PersistentVolumeClaim"):
		return 3
	case strings.HasSuffix(id.Kind, "Role"):
		return 4
	case strings.HasSuffix(id.Kind, "Binding"):
		return 2
	default:
		return 1
	}
}

// absentee is an object that git holds and this pass can not apply.
type absentee struct {
	id   ID
	wave int
}

// lacking names one of a lower wave.
func (p Plan) lacking(wave int) string {
	for _, a := range p.absent {
		if a.wave < wave {
			return a.id.String()
		}
	}
	return ""
}

// Count returns how many steps have the action.
func (p Plan) Count(a Action) int {
	n := 0
	for _, s := range p.Steps {
		if s.Action == a {
			n++
		}
	}
	return n
}

// changedInput is the reason of a step that may turn out to change nothing.
const changedInput = "changed in git"
