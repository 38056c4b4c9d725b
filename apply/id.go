package apply

import (
	"cmp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ID names an object regardless of its version.
type ID struct{ Group, Kind, Namespace, Name string }

// String is Kind/namespace/name or Kind/name.
func (i ID) String() string {
	if i.Namespace == "" {
		return i.Kind + "/" + i.Name
	}
	return i.Kind + "/" + i.Namespace + "/" + i.Name
}

// GroupKind of the object.
func (i ID) GroupKind() schema.GroupKind { return schema.GroupKind{Group: i.Group, Kind: i.Kind} }

// idOf names an object of a kind by its metadata.
func idOf(gk schema.GroupKind, m metav1.Object) ID {
	return ID{gk.Group, gk.Kind, m.GetNamespace(), m.GetName()}
}

func compareIDs(a, b ID) int {
	return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Kind, b.Kind),
		strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

// Owner identifies one Sync of an installation.
type Owner struct {
	Namespace string
	Name      string
	// State is the namespace where its inventory lies, the agent's own: Namespace, if
	// it is "".
	State string
	// Within is the only namespace of its objects, so that its identity needs no rights
	// beyond that; "" for all, and those of the cluster.
	Within string
}

func (o Owner) state() string { return cmp.Or(o.State, o.Namespace) }

// SyncLabel is on every object that is applied. It is for the watch's filter and
// a second check before a prune; the inventory is what says whose an object is.
const SyncLabel = "gitseal.io/sync"

func (o Owner) label() string {
	v := o.Namespace + "." + o.Name
	if len(v) > 63 {
		v = v[:40] + "." + shortHash(v)
	}
	return v
}

// InventoryLabel is on the Secrets of inventories; its value says whose, as Label does.
const InventoryLabel = inventoryLabel

// Label is how labels name the owner.
func (o Owner) Label() string { return o.label() }

// selector finds what carries the label.
func (o Owner) selector() string { return SyncLabel + "=" + o.label() }

func (o Owner) labels() map[string]string { return map[string]string{SyncLabel: o.label()} }

// fieldManager is one for each Sync: a second writer with the same name would
// hide its changes from the evidence.
func (o Owner) fieldManager() string {
	v := managerPrefix + o.Namespace + "." + o.Name
	if len(v) > 128 {
		v = v[:100] + "." + shortHash(v)
	}
	return v
}

// reserved reports whether id is one of the agent's own objects.
func (o Owner) reserved(id ID) bool {
	if id.Namespace != o.state() {
		return false
	}
	switch id.Kind {
	case "Secret", "ConfigMap", "Lease":
	default:
		return false
	}
	for _, p := range []string{"gitseal-key-", "gitseal-keys", "gitseal-token-key", "gitseal-inventory-", "gitseal-recipients", "gitseal-sync-"} {
		if strings.HasPrefix(id.Name, p) {
			return true
		}
	}
	return false
}
