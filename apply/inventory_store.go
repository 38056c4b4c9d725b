package apply

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
)

const (
	inventoryLabel    = "gitseal.io/inventory"
	inventoryPrefix   = "gitseal-inventory-"
	inventoryDataKey  = "inventory.json.gz"
	entriesPerShard   = 2000     // about 200 kB compressed; a Secret holds 1 MiB
	maxInventoryShard = 16 << 20 // bytes, uncompressed
)

// InventoryStore keeps an inventory in Secrets of the agent's namespace, in
// shards by a hash of the ID. A Secret because the names of a cluster's objects
// are nobody's business. One writer only (the Lease sees to it).
type InventoryStore struct {
	client kubernetes.Interface
	owner  Owner
	stored map[string]storedShard // by Secret name, as we last saw it
	shards int
}

// storedShard is what a shard's Secret holds. Its strings are mostly those of the
// inventory. An update names the version that it replaces: a second writer is a
// conflict, not a lost entry.
type storedShard struct {
	shardHead
	entries         map[ID]Entry
	resourceVersion string
}

// NewInventoryStore does not read yet.
func NewInventoryStore(c *Cluster, owner Owner) *InventoryStore {
	return &InventoryStore{client: c.client, owner: owner}
}

// shard is the stored form. The head is in shard 0 only, so that a commit rewrites
// no shard but that one and those of what it changes. It is written last: until then
// a crash leaves the old number of shards in force, and entries that moved are in two
// of them.
type shard struct {
	shardHead
	Entries []shardEntry `json:"entries"` // by ID
}

type shardHead struct {
	Owner  string `json:"owner"`
	Source string `json:"source,omitempty"`
	Commit string `json:"commit,omitempty"`
	Shards int    `json:"shards,omitempty"`
}

type shardEntry struct {
	Group     string `json:"g,omitempty"`
	Kind      string `json:"k"`
	Namespace string `json:"n,omitempty"`
	Name      string `json:"m"`
	Entry
}

// storedAs is what is kept of a shard to see whether it changes.
func (s shard) storedAs(resourceVersion string) storedShard {
	out := storedShard{s.shardHead, make(map[ID]Entry, len(s.Entries)), resourceVersion}
	for _, e := range s.Entries {
		out.entries[e.id()] = e.Entry
	}
	return out
}

func (e shardEntry) id() ID { return ID{e.Group, e.Kind, e.Namespace, e.Name} }

// asStored is an entry as it is read back.
func (e Entry) asStored() Entry {
	e.resourceVersion = ""
	return e
}

// shard of so many in which an object's entry is.
func (i ID) shard(n int) int {
	var space [256]byte
	b := space[:0]
	for _, part := range [...]string{i.Group, i.Kind, i.Namespace} {
		b = append(append(b, part...), 0)
	}
	h := fnv.New32a()
	_, _ = h.Write(append(b, i.Name...)) // a hash never fails
	return int(h.Sum32() % uint32(n))
}

func (s *InventoryStore) prefix() string {
	return inventoryPrefix + shortHash(s.owner.Namespace + "/" + s.owner.Name)[:10] + "-"
}

func (s *InventoryStore) name(i int) string { return s.prefix() + strconv.Itoa(i) }

// Load reads all shards and unites them.
func (s *InventoryStore) Load(ctx context.Context) (Inventory, error) {
	ctx = klog.NewContext(ctx, klog.Logger{}) // client-go prints bodies at high verbosity
	list, err := s.client.CoreV1().Secrets(s.owner.state()).List(ctx, metav1.ListOptions{LabelSelector: inventoryLabel + "=" + s.owner.label()})
	if err != nil {
		return Inventory{}, fmt.Errorf("read the inventory: %w", err)
	}
	inv := Inventory{Entries: map[ID]Entry{}}
	s.stored, s.shards = map[string]storedShard{}, 0
	for i := range list.Items {
		sec := &list.Items[i]
		sh, err := readShard(sec)
		if err != nil {
			return Inventory{}, &InventoryError{Shard: sec.Namespace + "/" + sec.Name, What: err.Error()}
		}
		if sh.Owner != s.owner.Namespace+"/"+s.owner.Name {
			return Inventory{}, &InventoryError{Shard: sec.Namespace + "/" + sec.Name, What: "it belongs to " + sh.Owner}
		}
		s.stored[sec.Name] = sh.storedAs(sec.ResourceVersion)
		if sec.Name == s.name(0) {
			s.shards, inv.Source, inv.Commit = sh.Shards, sh.Source, sh.Commit
		}
		for _, e := range sh.Entries {
			inv.Entries[e.id()] = e.Entry
		}
	}
	for n := range max(s.shards, min(1, len(s.stored))) {
		name := s.name(n)
		if _, ok := s.stored[name]; !ok {
			return Inventory{}, &InventoryError{Shard: s.owner.state() + "/" + name, What: "it is missing"}
		}
	}
	return inv, nil
}

func readShard(sec *corev1.Secret) (shard, error) {
	zr, err := gzip.NewReader(bytes.NewReader(sec.Data[inventoryDataKey]))
	if err != nil {
		return shard{}, fmt.Errorf("%s is damaged", inventoryDataKey)
	}
	raw, err := io.ReadAll(io.LimitReader(zr, maxInventoryShard+1))
	if err != nil || len(raw) > maxInventoryShard {
		return shard{}, fmt.Errorf("%s is damaged", inventoryDataKey)
	}
	var sh shard
	if err := json.Unmarshal(raw, &sh); err != nil {
		return shard{}, fmt.Errorf("%s is damaged", inventoryDataKey)
	}
	return sh, nil
}

// Save writes the shards that changed. More shards are used as the inventory grows,
// and fewer again when it has shrunk a lot; all of them are written before any is
// removed, so that a crash loses no entry.
func (s *InventoryStore) Save(ctx context.Context, inv Inventory) error {
	ctx = klog.NewContext(ctx, klog.Logger{})
	n := max(s.shards, 1)
	for n*entriesPerShard < len(inv.Entries) {
		n *= 2
	}
	if err := s.saveIn(ctx, inv, n); err != nil {
		return err
	}
	// Only now, when no shard names what is gone: a crash leaves entries twice, but
	// alike.
	fewer := n
	for fewer > 1 && len(inv.Entries)*4 <= fewer*entriesPerShard {
		fewer /= 2
	}
	if fewer == n {
		return nil
	}
	return s.saveIn(ctx, inv, fewer)
}

// saveIn writes the inventory to so many shards, and removes others.
func (s *InventoryStore) saveIn(ctx context.Context, inv Inventory, n int) error {
	parts := s.changed(inv, n)
	// From the last to the first: the number of shards counts only once all
	// of them are there.
	names := map[string]bool{}
	for i := n - 1; i >= 0; i-- {
		name := s.name(i)
		names[name] = true
		if parts[i] == nil {
			continue
		}
		if err := s.saveShard(ctx, name, *parts[i]); err != nil {
			return err
		}
	}
	s.shards = n
	for _, name := range slices.Sorted(maps.Keys(s.stored)) {
		if names[name] {
			continue
		}
		if err := s.deleteShard(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// changed makes those of so many shards that are not stored as they should be; the
// others are nil. A shard with an entry that was removed, or that belongs in another,
// holds more than it should.
func (s *InventoryStore) changed(inv Inventory, n int) []*shard {
	before, stale, sizes := make([]storedShard, n), make([]bool, n), make([]int, n)
	for i := range n {
		old, exists := s.stored[s.name(i)]
		before[i], stale[i] = old, !exists || old.shardHead != s.head(inv, i, n)
	}
	for id, e := range inv.Entries {
		i := id.shard(n)
		sizes[i]++
		if !stale[i] {
			old, known := before[i].entries[id]
			stale[i] = !known || old != e.asStored()
		}
	}
	parts := make([]*shard, n)
	for i, old := range before {
		if stale[i] || sizes[i] != len(old.entries) {
			parts[i] = &shard{s.head(inv, i, n), make([]shardEntry, 0, sizes[i])}
		}
	}
	if !slices.ContainsFunc(parts, func(p *shard) bool { return p != nil }) {
		return parts
	}
	for id, e := range inv.Entries {
		if p := parts[id.shard(n)]; p != nil {
			p.Entries = append(p.Entries, shardEntry{id.Group, id.Kind, id.Namespace, id.Name, e.asStored()})
		}
	}
	for _, p := range parts {
		if p != nil {
			slices.SortFunc(p.Entries, func(a, b shardEntry) int { return compareIDs(a.id(), b.id()) })
		}
	}
	return parts
}

// head of one of so many shards.
func (s *InventoryStore) head(inv Inventory, i, n int) shardHead {
	h := shardHead{Owner: s.owner.Namespace + "/" + s.owner.Name}
	if i == 0 {
		h.Source, h.Commit, h.Shards = inv.Source, inv.Commit, n
	}
	return h
}

// Delete removes the inventory that was loaded.
func (s *InventoryStore) Delete(ctx context.Context) error {
	for name := range s.stored {
		if err := s.deleteShard(ctx, name); err != nil {
			return err
		}
	}
	s.stored, s.shards = nil, 0
	return nil
}

func (s *InventoryStore) deleteShard(ctx context.Context, name string) error {
	version := s.stored[name].resourceVersion
	err := s.client.CoreV1().Secrets(s.owner.state()).Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete the inventory Secret %s/%s: %w", s.owner.state(), name, err)
	}
	delete(s.stored, name)
	return nil
}

func (s *InventoryStore) saveShard(ctx context.Context, name string, sh shard) error {
	raw, err := json.Marshal(sh)
	if err != nil {
		return fmt.Errorf("write the inventory: %w", err)
	}
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	if _, err := zw.Write(raw); err != nil {
		return fmt.Errorf("write the inventory: %w", err)
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("write the inventory: %w", err)
	}
	sec := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.owner.state(), Labels: map[string]string{inventoryLabel: s.owner.label()}},
		Type:       "gitseal.io/inventory",
		Data:       map[string][]byte{inventoryDataKey: buf.Bytes()},
	}
	old, exists := s.stored[name]
	fresh, secrets := sec.DeepCopy(), s.client.CoreV1().Secrets(s.owner.state())
	if exists {
		sec.ResourceVersion = old.resourceVersion
		sec, err = secrets.Update(ctx, sec, metav1.UpdateOptions{})
		if apierrors.IsNotFound(err) { // somebody deleted it under us
			sec, err = secrets.Create(ctx, fresh, metav1.CreateOptions{})
		}
	} else {
		sec, err = secrets.Create(ctx, sec, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write the inventory Secret %s/%s: %w", s.owner.state(), name, err)
	}
	if s.stored == nil {
		s.stored = map[string]storedShard{}
	}
	s.stored[name] = sh.storedAs(sec.ResourceVersion)
	return nil
}
