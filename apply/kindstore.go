package apply

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// kindStore is where a reflector delivers what it sees of a kind.
type kindStore struct {
	d    *Drift
	w    *kindWatch
	only map[ID]bool // what was looked for; nil for all of the kind
}

func (s *kindStore) id(m *metav1.PartialObjectMetadata) ID {
	return ID{s.w.gk.Group, s.w.gk.Kind, m.GetNamespace(), m.GetName()}
}

func (s *kindStore) seen(obj any, gone bool) error {
	if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		s.d.see(s.id(m), sighting{m, gone})
	}
	return nil
}

// Add implements cache.ReflectorStore.
func (s *kindStore) Add(obj any) error { return s.seen(obj, false) }

// Update implements cache.ReflectorStore.
func (s *kindStore) Update(obj any) error { return s.seen(obj, false) }

// Delete is told of deleted objects, and of those that lost our label.
func (s *kindStore) Delete(obj any) error { return s.seen(obj, true) }

// Replace brings the whole state of the kind, at the start and after a gap.
func (s *kindStore) Replace(list []any, resourceVersion string) error {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	there := map[ID]bool{}
	for _, obj := range list {
		m, ok := obj.(*metav1.PartialObjectMetadata)
		if !ok {
			continue
		}
		id := s.id(m)
		there[id] = true
		s.d.see(id, sighting{m, false})
	}
	for id, e := range s.d.entries {
		_, flying := s.d.flight[id]
		asked := s.only == nil || s.only[id]
		if id.GroupKind() == s.w.gk && e.Phase == Applied && asked && !there[id] && !flying && !older(resourceVersion, e.resourceVersion) {
			delete(s.d.held, id)
			s.d.flag(id, notThere)
		}
	}
	s.w.synced, s.w.err = true, nil
	return nil
}

// Drift after which an object may be another's.
const (
	notThere = "it is not in the cluster any more, or lost the label " + SyncLabel
	madeAnew = "it was deleted and made anew in the cluster"
)

// Resync implements cache.ReflectorStore.
func (*kindStore) Resync() error { return nil }
