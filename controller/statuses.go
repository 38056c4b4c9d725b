package controller

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
)

// statuses writes the status of each Sync when it changes, and tries again until it is
// written. Safe for concurrent use.
type statuses struct {
	client client.Client
	log    *slog.Logger
	queue  workqueue.TypedRateLimitingInterface[name]

	mu    sync.Mutex
	known map[name]*written
}

// written is the status of a Sync as it should be, and as it was stored last.
type written struct {
	uid          types.UID
	want, stored v1alpha1.SyncStatus
}

func newStatuses(c client.Client, log *slog.Logger) *statuses {
	limit := workqueue.NewTypedItemExponentialFailureRateLimiter[name](100*time.Millisecond, 30*time.Second)
	return &statuses{client: c, log: log, known: map[name]*written{}, queue: workqueue.NewTypedRateLimitingQueue(limit)}
}

// know takes over the status that a Sync has, where nothing of it is known, or only of
// another one that had its name.
func (s *statuses) know(sync *v1alpha1.Sync) {
	n := name{sync.Namespace, sync.Name}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.known[n]; w == nil || w.uid != sync.UID {
		s.known[n] = &written{sync.UID, *sync.Status.DeepCopy(), *sync.Status.DeepCopy()}
	}
}

func (s *statuses) forget(n name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, n)
	s.queue.Forget(n)
}

// change sets what a status should be, and returns it as it was and is.
func (s *statuses) change(n name, next func(v1alpha1.SyncStatus) v1alpha1.SyncStatus) (before, after v1alpha1.SyncStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.known[n]
	if w == nil {
		return before, after
	}
	before = w.want
	after = next(before)
	if !equality.Semantic.DeepEqual(before, after) {
		w.want = after
		s.queue.Add(n)
	}
	return before, after
}

// run writes until ctx ends.
func (s *statuses) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for {
				n, ended := s.queue.Get()
				if ended {
					return
				}
				s.writeOne(ctx, n)
			}
		})
	}
	<-ctx.Done()
	s.queue.ShutDown()
	workers.Wait()
}

func (s *statuses) writeOne(ctx context.Context, n name) {
	defer s.queue.Done(n)
	err := s.write(ctx, n)
	switch {
	case err == nil:
		s.queue.Forget(n)
	case ctx.Err() == nil:
		s.log.Warn("the status could not be written", "sync", n.String(), "error", err.Error())
		s.queue.AddRateLimited(n)
	}
}

func (s *statuses) write(ctx context.Context, n name) error {
	s.mu.Lock()
	w := s.known[n]
	if w == nil {
		s.mu.Unlock()
		return nil
	}
	meta := metav1.ObjectMeta{Namespace: n.Namespace, Name: n.Name}
	from, to := &v1alpha1.Sync{ObjectMeta: meta, Status: *w.stored.DeepCopy()}, &v1alpha1.Sync{ObjectMeta: meta, Status: *w.want.DeepCopy()}
	s.mu.Unlock()
	if equality.Semantic.DeepEqual(from.Status, to.Status) {
		return nil
	}
	want := *to.Status.DeepCopy() // the answer is read into to
	err := s.client.Status().Patch(ctx, to, client.MergeFrom(from), client.FieldOwner("gitseal-agent"))
	if apierrors.IsNotFound(err) {
		return nil // it is deleted
	}
	if err == nil {
		s.mu.Lock()
		w.stored = want
		s.mu.Unlock()
	}
	return err
}

// flush writes what is not written yet, when everything else has ended.
func (s *statuses) flush() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) // the agent's own has ended
	defer cancel()
	s.mu.Lock()
	var all []name
	for n := range s.known {
		all = append(all, n)
	}
	s.mu.Unlock()
	for _, n := range all {
		if err := s.write(ctx, n); err != nil {
			s.log.Warn("the status could not be written", "sync", n.String(), "error", err.Error())
		}
	}
}
