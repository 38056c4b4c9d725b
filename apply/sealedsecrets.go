package apply

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/klog/v2"

	"github.com/gitseal/gitseal/crypto"
)

// The controller of sealed-secrets, which may run in the same cluster. A Secret
// has one master: gitseal where it opens SealedSecrets itself, the controller
// where it passes them through.
const (
	sealedSecretsGroup = "bitnami.com"
	sealedSecretKind   = "SealedSecret"

	managedAnnotation   = "sealedsecrets.bitnami.com/managed"
	patchAnnotation     = "sealedsecrets.bitnami.com/patch"
	skipOwnerAnnotation = "sealedsecrets.bitnami.com/skip-set-owner-references"

	// controllerTimeout is how long the controller is waited for; once it did not
	// answer, the rest of the pass waits for silentTimeout only.
	controllerTimeout = 30 * time.Second
	silentTimeout     = time.Second
)

var sealedSecretResource = schema.GroupVersionResource{Group: sealedSecretsGroup, Version: "v1alpha1", Resource: "sealedsecrets"}

// sealedSecretOf and secretOf name the two halves of a pair.
func sealedSecretOf(secret ID) ID {
	return ID{Group: sealedSecretsGroup, Kind: sealedSecretKind, Namespace: secret.Namespace, Name: secret.Name}
}

func secretOf(sealed ID) ID {
	return ID{Kind: "Secret", Namespace: sealed.Namespace, Name: sealed.Name}
}

func isSealedSecret(id ID) bool { return id.Group == sealedSecretsGroup && id.Kind == sealedSecretKind }
func isSecret(id ID) bool       { return id.Group == "" && id.Kind == "Secret" }

// handedOver reports whether an entry that git no longer names lives on as the
// other half of its pair, because --sealed-secrets was changed.
func handedOver(id ID, wanted map[ID]bool) bool {
	return isSecret(id) && wanted[sealedSecretOf(id)] || isSealedSecret(id) && wanted[secretOf(id)]
}

// claims finds the SealedSecrets of the cluster that this Sync did not apply:
// their Secrets belong to the controller, and two masters would fight. It asks
// once for each namespace, and only where the kind is served and a Secret of a
// SealedSecret is about to be written.
func (r *Runner) claims(ctx context.Context, p Plan, res *Result) (map[ID]bool, error) {
	var namespaces []string
	for i, d := range p.Desired {
		if d.Object.FromSealedSecret() && p.Steps[i].Action != Leave && !slices.Contains(namespaces, d.ID.Namespace) {
			namespaces = append(namespaces, d.ID.Namespace)
		}
	}
	if len(namespaces) == 0 {
		return nil, nil
	}
	_, err := r.Cluster.discovery.ServerResourcesForGroupVersion(sealedSecretResource.GroupVersion().String())
	switch {
	case apierrors.IsNotFound(err), errors.Is(err, memory.ErrCacheNotFound):
		return nil, nil // not served: there is no controller
	case err != nil:
		return nil, fmt.Errorf("whether the sealed-secrets controller has a SealedSecret for it could not be found out: %w", refused(err, false))
	}
	out := map[ID]bool{}
	for _, ns := range namespaces {
		res.Requests++
		list, err := r.Cluster.in(sealedSecretResource, ns).List(ctx, metav1.ListOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil // the CRD went away meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("whether the sealed-secrets controller owns it could not be found out: %w", refused(err, false))
		}
		for i := range list.Items {
			id := ID{Group: sealedSecretsGroup, Kind: sealedSecretKind, Namespace: ns, Name: list.Items[i].Name}
			if _, ours := p.inventory.Entries[id]; !ours {
				out[secretOf(id)] = true
			}
		}
	}
	return out, nil
}

var errClaimed = errors.New("belongs to the sealed-secrets controller: the cluster holds a SealedSecret of this name that gitseal did not apply; take it over with --sealed-secrets PassThrough first, or remove it with kubectl delete sealedsecret --cascade=orphan")

// settle makes a Secret that was just applied ours alone: it takes off the owner
// reference of a SealedSecret, with which the garbage collector would delete
// the Secret, and the values of others where the annotation managed asks for
// it. It sends nothing where there is nothing to do.
func (r *Runner) settle(ctx context.Context, d Desired, m *metav1.PartialObjectMetadata) (*metav1.PartialObjectMetadata, int, error) {
	patch := map[string]any{}
	owners := slices.DeleteFunc(slices.Clone(m.GetOwnerReferences()), refersToSealedSecret)
	meta := map[string]any{"resourceVersion": m.GetResourceVersion()}
	if len(owners) != len(m.GetOwnerReferences()) {
		meta["ownerReferences"] = owners
		patch["metadata"] = meta
	}
	if d.Object.FromSealedSecret() && m.GetAnnotations()[managedAnnotation] == "true" && m.GetAnnotations()[patchAnnotation] != "true" {
		if foreign := foreignValues(m, r.Owner.fieldManager()); len(foreign) > 0 {
			patch["data"], patch["metadata"] = foreign, meta
		}
	}
	if len(patch) == 0 {
		return m, 0, nil
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return m, 0, errors.New("its owner references can not be written as JSON")
	}
	after, err := r.Cluster.merge(ctx, d.kind.resource, d.ID, body, r.Owner.fieldManager())
	if err != nil {
		return m, 1, refused(err, true)
	}
	return after, 1, nil
}

func refersToSealedSecret(o metav1.OwnerReference) bool {
	gv, err := schema.ParseGroupVersion(o.APIVersion)
	return err == nil && gv.Group == sealedSecretsGroup && o.Kind == sealedSecretKind
}

func ownedBySealedSecret(m metav1.Object) bool {
	return slices.ContainsFunc(m.GetOwnerReferences(), refersToSealedSecret)
}

// foreignValues are the keys of a Secret's data that others own and we do not.
func foreignValues(m metav1.Object, manager string) map[string]any {
	out := map[string]any{}
	ours := map[string]bool{}
	for _, f := range m.GetManagedFields() {
		var fields struct {
			Data map[string]any `json:"f:data"`
		}
		if f.FieldsV1 == nil || json.Unmarshal(f.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		for key := range fields.Data {
			name, ok := cutField(key)
			switch {
			case !ok:
			case f.Manager == manager && f.Operation == metav1.ManagedFieldsOperationApply:
				ours[name] = true
			default:
				out[name] = nil
			}
		}
	}
	for name := range ours {
		delete(out, name)
	}
	return out
}

func cutField(key string) (string, bool) {
	if len(key) < 2 || key[:2] != "f:" {
		return "", false
	}
	return key[2:], true
}

// merge sends a small JSON merge patch that holds no value.
func (c *Cluster) merge(ctx context.Context, r schema.GroupVersionResource, id ID, body []byte, manager string) (*metav1.PartialObjectMetadata, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.in(r, id.Namespace).Patch(ctx, id.Name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: manager})
}

// giveBack prepares a Secret that we applied for the controller, which refuses
// to take over one without this annotation, and lets it go.
func (r *Runner) giveBack(ctx context.Context, sealed ID, inv Inventory) (int, error) {
	id := secretOf(sealed)
	e, ok := inv.Entries[id]
	if !ok {
		return 0, nil
	}
	body := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"},"labels":{%q:null}}}`, managedAnnotation, SyncLabel)
	r.Drift.begin(id)
	_, err := r.Cluster.merge(ctx, e.gvr(id), id, body, r.Owner.fieldManager())
	if err != nil && !apierrors.IsNotFound(err) {
		r.Drift.end(id, e)
		return 1, fmt.Errorf("its Secret could not be handed to the sealed-secrets controller: %w", refused(err, true))
	}
	return 1, nil
}

// confirm waits for the controller's word on a SealedSecret that was passed
// through.
func (r *Runner) confirm(ctx context.Context, d Desired, o outcome, silent *atomic.Bool) outcome {
	wait := controllerTimeout
	if silent.Load() {
		wait = silentTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ctx, over := r.waits.begin(ctx)
	defer over()
	o.requests++
	if err := r.awaitController(ctx, d, o.generation); err != nil {
		silent.Store(silent.Load() || errors.Is(err, errSilent))
		o.failed, o.entry.Phase = err, Intended
	}
	return o
}

// awaitController waits until the controller has said of a SealedSecret whether
// it opens. What it says more may hold values (a template can print them into
// an error), so it is not repeated.
func (r *Runner) awaitController(ctx context.Context, d Desired, generation int64) error {
	request := r.Cluster.client.Discovery().RESTClient().Get().
		AbsPath("/apis/"+d.kind.resource.GroupVersion().String()+"/namespaces/"+d.ID.Namespace+"/"+d.kind.resource.Resource).
		Param("watch", "true").Param("fieldSelector", "metadata.name="+d.ID.Name)
	stream, err := request.Stream(ctx)
	if err != nil {
		return r.silent(ctx, err)
	}
	defer stream.Close()
	for events := json.NewDecoder(stream); ; {
		var event struct {
			Type   string
			Object struct {
				Metadata struct{ Generation int64 }
				Status   struct {
					ObservedGeneration int64
					Conditions         []struct{ Type, Status string }
				}
			}
		}
		if err := events.Decode(&event); err != nil {
			return r.silent(ctx, err)
		}
		if event.Type == "ERROR" || event.Type == "DELETED" {
			return errors.New("it went away while the sealed-secrets controller was waited for")
		}
		if event.Object.Status.ObservedGeneration < generation {
			continue
		}
		for _, c := range event.Object.Status.Conditions {
			switch {
			case c.Type == "Synced" && c.Status == "True":
				return nil
			case c.Type == "Synced" && c.Status == "False":
				return fmt.Errorf("the sealed-secrets controller reports a failure (condition Synced is False); see kubectl describe sealedsecret -n %s %s", d.ID.Namespace, d.ID.Name)
			}
		}
	}
}

var errSilent = errors.New("the sealed-secrets controller has not answered yet; is it running?")

func (r *Runner) silent(ctx context.Context, err error) error {
	switch {
	case cutShort(ctx):
		return errNewer
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errSilent
	}
	return refused(err, false)
}

// body is what to send. A template that takes the time or a random value would
// give another Secret each time: while its input is that of the last apply, the
// values that are in the cluster are sent again, if nobody changed them.
func (r *Runner) body(ctx context.Context, d Desired, e Entry) (body crypto.Secret, digest string, requests int, err error) {
	if e.Body != "" && e.Input == d.Object.Input && d.Object.Volatile() {
		requests = 1
		if live, err := r.Cluster.values(ctx, d.ID); err == nil {
			if body, digest, ok := d.Object.BodyWith(r.Owner.labels(), live); ok && digest == e.Body {
				return body, digest, requests, nil
			}
		}
	}
	body, digest, err = d.Object.Body(r.Owner.labels())
	return body, digest, requests, err
}

// values reads a Secret, under a logger that drops everything.
func (c *Cluster) values(ctx context.Context, id ID) (map[string]crypto.Secret, error) {
	ctx, cancel := context.WithTimeout(klog.NewContext(ctx, klog.Logger{}), requestTimeout)
	defer cancel()
	s, err := c.client.CoreV1().Secrets(id.Namespace).Get(ctx, id.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	out := make(map[string]crypto.Secret, len(s.Data))
	for k, v := range s.Data {
		out[k] = crypto.NewSecret(v)
	}
	return out, nil
}
