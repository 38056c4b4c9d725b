package apply

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/gitseal/gitseal/crypto"
)

// recreateTimeout is how long a deleted object is waited for, whose finalizers
// may take their time.
const recreateTimeout = time.Minute

// neverRecreated are kinds that take other things with them.
func neverRecreated(id ID) bool {
	return id.Group == "" && (id.Kind == "PersistentVolumeClaim" || id.Kind == "PersistentVolume" || id.Kind == "Namespace") || isCRD(id.GroupKind())
}

func (r *Runner) forced(d Desired) bool {
	m := d.Object.Masked
	return r.Force || asks(m, forceAnnotation) == enabled || asks(m, fluxForce) == enabled || argoOption(m.GetAnnotations(), "Force=true", "Replace=true")
}

// recreate is the answer to a refused update. Whether the refusal is about a field
// that can not be changed, a dry run tells: the same object under another name is
// accepted then. With force the object is deleted and made anew; otherwise the
// refusal is returned, with what to do where that is known. Errors are safe to
// print.
func (r *Runner) recreate(ctx context.Context, d Desired, body crypto.Secret, cause error) (a answer, requests int, err error) {
	safe := func(err error) error { return refused(err, d.Object.CarriesPlaintext()) }
	var claimed *ClaimedError
	if errors.As(cause, &claimed) {
		return a, 0, cause
	}
	var status apierrors.APIStatus
	if !errors.As(cause, &status) || status.Status().Code != http.StatusUnprocessableEntity || !aboutAField(status.Status()) {
		return a, 0, safe(cause)
	}
	fixed := unchangeable.MatchString(cause.Error())
	cause = safe(cause)
	if neverRecreated(d.ID) && !fixed {
		return a, 0, cause
	}
	if neverRecreated(d.ID) {
		return a, 0, &immutableError{cause, "gitseal never makes a " + d.ID.Kind + " anew; where the change is meant, do it by hand"}
	}
	old, err := r.Cluster.get(ctx, d.kind.resource, d.ID)
	if err != nil {
		return a, 1, cause // it is not there: the object itself is at fault
	}
	if r.tryAsNew(ctx, d) != nil {
		return a, 2, cause
	}
	if !r.forced(d) {
		return a, 2, &immutableError{cause, "a field of it can not be changed (it is immutable); the annotation " + forceAnnotation + ": " + enabled + " lets gitseal delete the object and make it anew, and so does --force"}
	}
	if err := r.Cluster.delete(ctx, d.kind.resource, d.ID, metav1.Preconditions{UID: ptr.To(old.GetUID())}); err != nil && !apierrors.IsNotFound(err) {
		return a, 3, safe(err)
	}
	n, err := r.awaitGone(ctx, d, old)
	requests = 3 + n
	if err != nil {
		return a, requests, err
	}
	if a, err = r.Cluster.apply(ctx, d.kind.resource, d.ID, body, r.Owner.fieldManager(), true); err != nil {
		return a, requests + 1, fmt.Errorf("was deleted to be made anew: %w", safe(err))
	}
	return a, requests + 1, nil
}

// unchangeable is how the API server speaks of fields that can not be changed.
var unchangeable = regexp.MustCompile(`(?i)immutable|forbidden|may not be changed|cannot change|may not change`)

// aboutAField tells the API server's own validation from policies and webhooks,
// which can forbid a change with the same code: force must not get around them.
func aboutAField(s metav1.Status) bool {
	return s.Details != nil && !byWebhook.MatchString(s.Message) && slices.ContainsFunc(s.Details.Causes, func(c metav1.StatusCause) bool { return c.Field != "" })
}

// tryAsNew asks the API server whether it would take the object if it were new.
func (r *Runner) tryAsNew(ctx context.Context, d Desired) error {
	name := d.ID.Name
	if len(name) > 40 {
		name = strings.TrimRight(name[:40], "-.")
	}
	as := d.ID
	as.Name = name + "-" + shortHash(d.ID.String())
	body, _, err := d.Object.Renamed(as.Name).Body(r.Owner.labels())
	if err != nil {
		return err
	}
	return r.Cluster.dryRun(ctx, d.kind.resource, as, body, r.Owner.fieldManager())
}

func (r *Runner) awaitGone(ctx context.Context, d Desired, old metav1.Object) (requests int, err error) {
	ctx, cancel := context.WithTimeout(ctx, recreateTimeout)
	defer cancel()
	ctx, over := r.waits.begin(ctx)
	defer over()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		requests++
		m, err := r.Cluster.get(ctx, d.kind.resource, d.ID)
		switch {
		case apierrors.IsNotFound(err):
			return requests, nil
		case err == nil && m.GetUID() != old.GetUID():
			return requests, errors.New("somebody else made it anew while it was deleted")
		case err != nil && ctx.Err() == nil:
			return requests, refused(err, false)
		}
		select {
		case <-ctx.Done():
			if cutShort(ctx) {
				return requests, errNewer
			}
			return requests, fmt.Errorf("was deleted to be made anew, but is still there after %s: it waits for its finalizers (%s)", recreateTimeout, strings.Join(old.GetFinalizers(), ", "))
		case <-time.After(pause):
		}
	}
}

// immutableError adds what to do to the server's answer.
type immutableError struct {
	cause error
	hint  string
}

func (e *immutableError) Error() string { return e.cause.Error() + "; " + e.hint }
func (e *immutableError) Unwrap() error { return e.cause }
