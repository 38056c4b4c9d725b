package apply

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// kindStore is where a reflector delivers what it sees of a kind.
type kindStore struct {
	d    *Drift
	w    *kindWatch
	only map[ID]bool // what was looked for; nil for all of the kind
}

func (s *kindStore) seen(obj any, gone bool) error {
	if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
		s.d.mu.Lock()
		defer s.d.mu.Unlock()
		s.d.see(idOf(s.w.gk, m), sighting{m, gone})
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
		id := idOf(s.w.gk, m)
		there[id] = true
		s.d.see(id, sighting{m, false})
	}
	for _, id := range s.d.missing(s.w.gk, there, resourceVersion) {
		if s.only == nil || s.only[id] {
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
