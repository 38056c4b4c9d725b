package apply

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Phase is how far an entry got.
type Phase string

// The phases.
const (
	Intended    Phase = "i" // about to be applied; may or may not be in the cluster
	Applied     Phase = "a"
	Terminating Phase = "t" // deleted, but a finalizer holds it
)

// Entry is what is known of one object. It holds keyed digests, never content.
type Entry struct {
	Version  string   `json:"v"`
	Resource string   `json:"r"`
	Phase    Phase    `json:"p"`
	Input    string   `json:"i,omitempty"` // decrypt.Object.Input at the last apply
	Body     string   `json:"b,omitempty"` // digest of what was sent
	Evidence Evidence `json:"e,omitzero"`
	Leaving  string   `json:"y,omitempty"` // fields that others may take over, as JSON pointers
	Ignored  string   `json:"z,omitempty"` // those of them that are or were ours, as managedFields write them
	Wave     int      `json:"w,omitempty"`
	Keep     bool     `json:"x,omitempty"` // it asks in git to be left alone: given up, not pruned
	Once     bool     `json:"o,omitempty"` // it asks in git to be created only: what others change is no drift

	// resourceVersion of our last apply, to tell stale events; not stored.
	resourceVersion string
}

func (e Entry) gvr(id ID) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: id.Group, Version: e.Version, Resource: e.Resource}
}

// Inventory lists everything that a Sync has applied and not yet pruned.
type Inventory struct {
	Source  string // URL and path it was applied from
	Commit  string // the last commit that was applied as a whole
	Entries map[ID]Entry
}

// Clone copies the inventory.
func (i Inventory) Clone() Inventory {
	i.Entries = maps.Clone(i.Entries)
	if i.Entries == nil {
		i.Entries = map[ID]Entry{}
	}
	return i
}

// IDs in a fixed order.
func (i Inventory) IDs() []ID {
	return slices.SortedFunc(maps.Keys(i.Entries), compareIDs)
}

// Terminating lists what was deleted and is still held by a finalizer.
func (i Inventory) Terminating() []ID {
	var out []ID
	for id, e := range i.Entries {
		if e.Phase == Terminating {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, compareIDs)
	return out
}

// InventoryError says that the stored inventory can not be used. Nothing may
// be pruned by it.
type InventoryError struct{ Shard, What string }

func (e *InventoryError) Error() string {
	return fmt.Sprintf("inventory Secret %s: %s; if it can not be restored, delete it: the next pass writes a new one, and objects that left git meanwhile stay in the cluster", e.Shard, e.What)
}
