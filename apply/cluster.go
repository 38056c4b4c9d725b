package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/gitseal/gitseal/crypto"
)

// Cluster is the target. Safe for concurrent use.
type Cluster struct {
	config    *rest.Config
	client    kubernetes.Interface
	metadata  metadata.Interface
	dynamic   dynamic.Interface // for the status of objects; never for Secrets
	discovery discovery.CachedDiscoveryInterface
	mapper    *restmapper.DeferredDiscoveryRESTMapper
}

// requestTimeout bounds every request for an object.
const requestTimeout = 30 * time.Second

// Connect makes a Cluster from a client configuration. Nothing is sent yet.
// The client does not throttle: the API server's priority and fairness does,
// and Run bounds how much it sends at once.
func Connect(cfg *rest.Config) (*Cluster, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	// Warnings of admission policies and webhooks can quote what was sent.
	cfg.WarningHandler, cfg.WarningHandlerWithContext = rest.NoWarnings{}, nil
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return noting{rt} })
	return connect(cfg, nil)
}

// As is the same cluster with every request made as the user. What the API server
// serves, which every user may know, is shared.
func (c *Cluster) As(user rest.ImpersonationConfig) (*Cluster, error) {
	cfg := rest.CopyConfig(c.config)
	cfg.Impersonate = user
	return connect(cfg, c)
}

func connect(cfg *rest.Config, shared *Cluster) (*Cluster, error) {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	md, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	c := &Cluster{config: cfg, client: client, metadata: md, dynamic: dyn}
	if shared != nil {
		c.discovery, c.mapper = shared.discovery, shared.mapper
		return c, nil
	}
	c.discovery = memory.NewMemCacheClient(client.Discovery())
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(c.discovery)
	return c, nil
}

// Client returns the typed client, for the agent's own objects.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// Metadata reads the metadata of objects.
func (c *Cluster) Metadata() metadata.Interface { return c.metadata }

// kind is where objects of a kind are found.
type kind struct {
	resource   schema.GroupVersionResource
	namespaced bool
}

// lookup finds a kind in what discovery last said.
func (c *Cluster) lookup(gvk schema.GroupVersionKind) (kind, error) {
	m, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if meta.IsNoMatchError(err) {
		return kind{}, fmt.Errorf("the cluster does not know %s %s; is its CRD missing?", gvk.GroupVersion(), gvk.Kind)
	}
	if err != nil {
		return kind{}, fmt.Errorf("ask the API server about %s %s: %w", gvk.GroupVersion(), gvk.Kind, err)
	}
	return kind{resource: m.Resource, namespaced: m.Scope.Name() == meta.RESTScopeNameNamespace}, nil
}

// forget makes the next lookup ask the server, after a CRD was applied.
func (c *Cluster) forget() { c.mapper.Reset() }

func (c *Cluster) in(r schema.GroupVersionResource, namespace string) metadata.ResourceInterface {
	if namespace == "" {
		return c.metadata.Resource(r)
	}
	return c.metadata.Resource(r).Namespace(namespace)
}

// labelled is where to list and watch what an owner applied of a kind.
func (c *Cluster) labelled(r schema.GroupVersionResource, owner Owner) metadata.ResourceInterface {
	return c.in(r, owner.Within)
}

// whole is where objects are read as a whole, not their metadata only.
func (c *Cluster) whole(r schema.GroupVersionResource, namespace string) dynamic.ResourceInterface {
	if namespace == "" {
		return c.dynamic.Resource(r)
	}
	return c.dynamic.Resource(r).Namespace(namespace)
}

// apply sends one body by server-side apply and returns the object's metadata;
// force overrules others who own fields of it.
func (c *Cluster) apply(ctx context.Context, r schema.GroupVersionResource, id ID, body crypto.Secret, manager string, force bool) (answer, error) {
	return c.patch(ctx, r, id, body, metav1.PatchOptions{FieldManager: manager, Force: ptr.To(force)})
}

// dryRun asks whether apply would be accepted.
func (c *Cluster) dryRun(ctx context.Context, r schema.GroupVersionResource, id ID, body crypto.Secret, manager string) error {
	_, err := c.patch(ctx, r, id, body, metav1.PatchOptions{FieldManager: manager, Force: ptr.To(true), DryRun: []string{metav1.DryRunAll}})
	return err
}

// patch runs under a logger that drops everything: client-go logs bodies at high
// verbosity.
func (c *Cluster) patch(ctx context.Context, r schema.GroupVersionResource, id ID, body crypto.Secret, o metav1.PatchOptions) (answer, error) {
	ctx, cancel := context.WithTimeout(klog.NewContext(ctx, klog.Logger{}), requestTimeout)
	defer cancel()
	var code int
	m, err := c.in(r, id.Namespace).Patch(context.WithValue(ctx, statusCode{}, &code), id.Name, types.ApplyPatchType, body.Reveal(), o)
	return answer{PartialObjectMetadata: m, created: code == http.StatusCreated}, err
}

// answer is what the API server says to an apply.
type answer struct {
	*metav1.PartialObjectMetadata
	// created by this very request, as the HTTP status says. Nothing in the object
	// would: webhooks and controllers may have written it at once.
	created bool
	// relabelled names who had given our label another value, where the answer to a try
	// without force said so.
	relabelled string
}

// statusCode is where the context of a request has room for the HTTP status of its answer.
type statusCode struct{}

// noting keeps the HTTP status, which the clients do not return.
type noting struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (n noting) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := n.RoundTripper.RoundTrip(r)
	if code, wanted := r.Context().Value(statusCode{}).(*int); wanted && err == nil {
		*code = resp.StatusCode
	}
	return resp, err
}

func (c *Cluster) get(ctx context.Context, r schema.GroupVersionResource, id ID) (*metav1.PartialObjectMetadata, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.in(r, id.Namespace).Get(ctx, id.Name, metav1.GetOptions{})
}

// delete removes the object with these preconditions.
func (c *Cluster) delete(ctx context.Context, r schema.GroupVersionResource, id ID, only metav1.Preconditions) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.in(r, id.Namespace).Delete(ctx, id.Name, metav1.DeleteOptions{
		PropagationPolicy: ptr.To(metav1.DeletePropagationBackground),
		Preconditions:     &only,
	})
}

// RefusedError is the API server's answer to an object. Where the object
// carries plaintext, the server's text is dropped, and so is the error itself:
// validation and webhooks quote what they were sent.
type RefusedError struct {
	Reason metav1.StatusReason
	Code   int32
	Fields []string
	Text   string // "" for objects that carry plaintext
	// Webhook is the name of the admission webhook whose word it was, where Text is "".
	Webhook string
}

func (e *RefusedError) Error() string {
	s := fmt.Sprintf("the API server refused it: %s (%d)", cmp.Or(string(e.Reason), http.StatusText(int(e.Code))), e.Code)
	if e.Reason == metav1.StatusReasonNotFound && e.Text == "" {
		s += "; is its namespace there?"
	}
	if e.Text != "" {
		return s + ": " + e.Text
	}
	for i, f := range e.Fields {
		if i == 0 {
			s += " at"
		}
		s += " " + f
	}
	if e.Webhook != "" {
		s += "; it was the admission webhook " + e.Webhook
	}
	return s
}

// byWebhook is how the API server begins what a webhook says, or what it says of one
// that does not answer (apiserver, webhook/errors.ToStatusErr).
var byWebhook = regexp.MustCompile(`^(?:admission webhook|Internal error occurred: failed calling webhook) "([A-Za-z0-9.-]+)"`)

// refused turns a client error into one that is safe for o.
func refused(err error, secret bool) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		if secret && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return errors.New("the API server could not be reached")
		}
		return fmt.Errorf("the API server could not be reached: %w", err)
	}
	s := status.Status()
	e := &RefusedError{Reason: s.Reason, Code: s.Code}
	if hook := byWebhook.FindStringSubmatch(s.Message); hook != nil && secret {
		// Its reason and fields are its own text, too.
		return &RefusedError{Code: s.Code, Webhook: hook[1]}
	}
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			if c.Field != "" {
				e.Fields = append(e.Fields, fmt.Sprintf("%s (%s)", c.Field, c.Type))
			}
		}
	}
	if !secret {
		e.Text = s.Message
	}
	return e
}
