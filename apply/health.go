package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// AwaitReady waits until everything that was applied, by the inventory, is ready, as
// kstatus judges it: by a list and a watch for each kind that has a status or, where the
// identity may not list or watch it, by getting each object now and then. It returns what
// is not ready once something has failed for good or the limit is over, and nothing
// where ctx ended before. Kinds without a status are ready when they are there; Secrets
// and ConfigMaps are never read.
func (r *Runner) AwaitReady(ctx context.Context, desired []Desired, inv Inventory, limit time.Duration) []Failure {
	var written []Desired
	for _, d := range desired {
		if inv.Entries[d.ID].Evidence.UID != "" {
			written = append(written, d)
		}
	}
	missing, _ := r.awaitReady(ctx, written, limit, false)
	return missing
}

// awaitReady also tells whether something has failed for good. A look ends as soon as
// each object has been seen.
func (r *Runner) awaitReady(ctx context.Context, desired []Desired, limit time.Duration, look bool) (missing []Failure, failed bool) {
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, limit)
	h := &health{owner: r.Owner, changed: make(chan struct{}, 1), state: map[ID]*status.Result{}, errs: map[schema.GroupVersionResource]error{}, seen: map[schema.GroupVersionResource]bool{}}
	kinds := map[schema.GroupVersionResource]schema.GroupKind{}
	for _, d := range desired {
		if hasStatus(d.ID) && !neverWritten(d.Object.Masked) {
			h.state[d.ID] = nil
			kinds[d.kind.resource] = d.ID.GroupKind()
		}
	}
	var watches sync.WaitGroup
	for gvr, gk := range kinds {
		watches.Go(func() { h.watch(ctx, r.Cluster, gvr, gk) })
	}
	defer watches.Wait()
	defer cancel()
	for {
		done, failed, all := h.look(len(kinds))
		if done || failed || look && all {
			return h.notReady(desired, limit, failed), failed
		}
		select {
		case <-h.changed:
		case <-ctx.Done():
			if parent.Err() != nil {
				return nil, false
			}
			return h.notReady(desired, limit, false), false
		}
	}
}

// hasStatus leaves out kinds that are ready as soon as they are there.
func hasStatus(id ID) bool {
	switch id.Group {
	case "":
		switch id.Kind {
		case "Secret", "ConfigMap", "ServiceAccount", "LimitRange", "Event", "Endpoints", "PodTemplate":
			return false
		}
	case "rbac.authorization.k8s.io", "admissionregistration.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "node.k8s.io", "discovery.k8s.io", "coordination.k8s.io", "events.k8s.io":
		return false
	case "networking.k8s.io":
		return id.Kind == "Ingress"
	}
	return true
}

// health is what the watches have seen so far.
type health struct {
	owner   Owner
	changed chan struct{}

	mu    sync.Mutex
	state map[ID]*status.Result // nil until it was seen
	errs  map[schema.GroupVersionResource]error
	seen  map[schema.GroupVersionResource]bool // the whole kind, or it can not be
}

// look also reports whether so many kinds have been seen.
func (h *health) look(kinds int) (ready, failed, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ready, all = true, len(h.seen) == kinds
	for _, s := range h.state {
		ready = ready && s != nil && s.Status == status.CurrentStatus
		failed = failed || s != nil && s.Status == status.FailedStatus
	}
	return ready, failed, all
}

func (h *health) notReady(desired []Desired, limit time.Duration, failed bool) []Failure {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Failure
	for _, d := range desired {
		s, watched := h.state[d.ID]
		if s != nil && d.Object.CarriesPlaintext() {
			s.Message = "its conditions say more" // and may hold the values that it was sent
		}
		switch {
		case !watched || s != nil && s.Status == status.CurrentStatus:
		case failed && (s == nil || s.Status != status.FailedStatus): // still on its way, perhaps
		case s != nil && failed:
			out = append(out, Failure{ID: d.ID, Err: fmt.Errorf("has failed: %s", s.Message)})
		case s != nil:
			out = append(out, Failure{ID: d.ID, Err: fmt.Errorf("is not ready after %s: %s: %s", limit, s.Status, s.Message)})
		case h.errs[d.kind.resource] != nil:
			out = append(out, Failure{ID: d.ID, Err: fmt.Errorf("can not be watched: %w", refused(h.errs[d.kind.resource], false))})
		default:
			out = append(out, Failure{ID: d.ID, Err: fmt.Errorf("was not seen within %s", limit)})
		}
	}
	return out
}

func (h *health) watch(ctx context.Context, c *Cluster, gvr schema.GroupVersionResource, gk schema.GroupKind) {
	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	note := func(_ string, err error) {
		if watching.Err() != nil {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.errs[gvr] = err
		if apierrors.IsForbidden(err) {
			cancel()
		}
	}
	follow(watching, c.whole(gvr, h.owner.Within), gvr, h.owner, &unstructured.Unstructured{}, &healthStore{h, gvr, gk}, note)
	h.poll(ctx, c, gvr, gk)
}

// healthPoll is the time between looks at a kind that may not be watched.
const healthPoll = 2 * time.Second

// poll gets each object of a kind that may not be watched, now and then.
func (h *health) poll(ctx context.Context, c *Cluster, gvr schema.GroupVersionResource, gk schema.GroupKind) {
	store := &healthStore{h, gvr, gk}
	for ctx.Err() == nil {
		var list []any
		for _, id := range h.of(gk) {
			u, err := c.whole(gvr, id.Namespace).Get(ctx, id.Name, metav1.GetOptions{})
			if err == nil {
				list = append(list, u)
				continue
			}
			h.mu.Lock()
			h.errs[gvr] = err
			h.mu.Unlock()
		}
		_ = store.Replace(list, "") // never fails
		select {
		case <-ctx.Done():
		case <-time.After(healthPoll):
		}
	}
}

func (h *health) of(gk schema.GroupKind) []ID {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []ID
	for id := range h.state {
		if id.GroupKind() == gk {
			out = append(out, id)
		}
	}
	return out
}

// healthStore keeps the status of an object and lets the object go.
type healthStore struct {
	*health
	gvr schema.GroupVersionResource
	gk  schema.GroupKind
}

func (s *healthStore) put(obj any, gone bool) {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return
	}
	id := idOf(s.gk, u)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, wanted := s.state[id]; !wanted {
		return
	}
	s.state[id] = judged(u, gone)
	s.wake()
}

func (h *health) wake() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// judged is kstatus' word, but for the kinds of which it says too little.
func judged(u *unstructured.Unstructured, gone bool) *status.Result {
	job := u.GroupVersionKind().GroupKind() == schema.GroupKind{Group: "batch", Kind: "Job"}
	if gone {
		if _, ttl, _ := unstructured.NestedFieldNoCopy(u.Object, "spec", "ttlSecondsAfterFinished"); ttl && job {
			return &status.Result{Status: status.CurrentStatus} // done, and tidied up
		}
		return &status.Result{Status: status.NotFoundStatus, Message: "it was deleted"}
	}
	if u.GroupVersionKind().GroupKind() == (schema.GroupKind{Group: sealedSecretsGroup, Kind: sealedSecretKind}) {
		return judgedSealedSecret(u)
	}
	result, err := status.Compute(u)
	if err != nil {
		return &status.Result{Status: status.UnknownStatus, Message: "its status can not be read"}
	}
	if !ofKubernetes(u.GroupVersionKind().Group) {
		// The text is its controller's, which may have been given secrets.
		result.Message = "its conditions say more"
	}
	if job && result.Status == status.CurrentStatus && !hasCondition(u, "Complete", "True") {
		result.Status = status.InProgressStatus // for kstatus it is enough that it runs
	}
	return result
}

// ofKubernetes are groups whose messages kstatus makes itself.
func ofKubernetes(group string) bool {
	return !strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io") && group != "gateway.networking.k8s.io"
}

// judgedSealedSecret goes by the condition of its controller. What that says more may
// hold values, so it is not repeated.
func judgedSealedSecret(u *unstructured.Unstructured) *status.Result {
	seen, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	switch {
	case seen < u.GetGeneration():
		return &status.Result{Status: status.InProgressStatus, Message: "its controller has not seen it yet"}
	case hasCondition(u, "Synced", "True"):
		return &status.Result{Status: status.CurrentStatus}
	case hasCondition(u, "Synced", "False"):
		return &status.Result{Status: status.FailedStatus, Message: "its controller reports a failure (condition Synced is False)"}
	default:
		return &status.Result{Status: status.InProgressStatus, Message: "its controller has not said whether it opens"}
	}
}

func hasCondition(u *unstructured.Unstructured, name, value string) bool {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m, _ := c.(map[string]any)
		return m["type"] == name && m["status"] == value
	})
}

// Add implements cache.ReflectorStore.
func (s *healthStore) Add(obj any) error { s.put(obj, false); return nil }

// Update implements cache.ReflectorStore.
func (s *healthStore) Update(obj any) error { s.put(obj, false); return nil }

// Delete implements cache.ReflectorStore.
func (s *healthStore) Delete(obj any) error { s.put(obj, true); return nil }

// Replace implements cache.ReflectorStore.
func (s *healthStore) Replace(list []any, _ string) error {
	for _, obj := range list {
		s.put(obj, false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[s.gvr] = true
	s.wake()
	return nil
}

// Resync implements cache.ReflectorStore.
func (*healthStore) Resync() error { return nil }
