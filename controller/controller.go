package controller

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/keys"
)

// controllerOptions: deletions take long, and must not hold up others.
var controllerOptions = ctrlcontroller.Options{MaxConcurrentReconciles: 8, SkipNameValidation: ptr.To(true)}

// Controller keeps a loop for each Sync. It implements the Reconciler of
// controller-runtime. Safe for concurrent use.
type Controller struct {
	Config
	client       client.Client // reads Syncs from its cache
	cluster      *apply.Cluster
	log          *slog.Logger
	sayer        *sayer
	repositories repositories
	turns        chan struct{}
	statuses     *statuses
	keys         *sharedKeys
	keyOfKeys    []byte // of digests of credentials, in this process only

	context context.Context // of the loops, once this agent leads
	mu      sync.Mutex
	loops   map[name]*loop
}

// New makes a Controller for a manager and adds it there. Nothing is started.
func New(cfg Config, mgr manager.Manager, cluster *apply.Cluster, log *slog.Logger, audit *slog.Logger) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Controller{
		Config: cfg, client: mgr.GetClient(), cluster: cluster, log: log,
		sayer: &sayer{events: mgr.GetEventRecorder("gitseal-agent"), audit: audit},
		turns: make(chan struct{}, cfg.Concurrent), loops: map[name]*loop{}, keyOfKeys: make([]byte, 32),
	}
	if _, err := rand.Read(c.keyOfKeys); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	c.keys = &sharedKeys{store: keys.Store{Client: cluster.Client(), Namespace: cfg.Namespace, Now: time.Now}}
	c.statuses = newStatuses(c.client, log)
	if err := mgr.Add(c); err != nil {
		return nil, err
	}
	if err := errors.Join(c.addResealer(mgr), c.addKubeseal(mgr)); err != nil {
		return nil, err
	}
	return c, ctrl.NewControllerManagedBy(mgr).For(&v1alpha1.Sync{}).Named("sync").
		WithOptions(controllerOptions).Complete(c)
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (c *Controller) NeedLeaderElection() bool { return true }

// Start implements manager.Runnable: it runs while this agent leads, and ends when
// all loops have ended.
func (c *Controller) Start(ctx context.Context) error {
	c.mu.Lock()
	c.context = ctx
	c.mu.Unlock()
	c.log.Info("leading")
	go c.statuses.run(ctx)
	<-ctx.Done()
	c.mu.Lock()
	loops := slices.Collect(maps.Values(c.loops))
	c.mu.Unlock()
	for _, l := range loops {
		l.stop()
	}
	c.statuses.flush()
	return nil
}

// Reconcile sees to it that the loop of a Sync is the one that it asks for.
func (c *Controller) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	c.mu.Lock()
	started := c.context != nil
	c.mu.Unlock()
	if !started {
		return ctrl.Result{RequeueAfter: 100 * time.Millisecond}, nil
	}
	n := name(req.NamespacedName)
	sync := &v1alpha1.Sync{}
	err := c.client.Get(ctx, req.NamespacedName, sync)
	defer c.wakeDependents(n)
	switch {
	case apierrors.IsNotFound(err):
		c.stop(n)
		c.statuses.forget(n)
		c.sayer.forgets(n)
		forgetMetrics(n)
		return ctrl.Result{}, nil
	case err != nil:
		return ctrl.Result{}, err
	case !sync.DeletionTimestamp.IsZero():
		c.stop(n)
		return c.remove(ctx, sync)
	}
	if controllerutil.AddFinalizer(sync, v1alpha1.Finalizer) {
		return ctrl.Result{}, c.storeFinalizers(ctx, sync)
	}
	c.statuses.know(sync)
	c.sayer.knows(sync)
	recordSpec(sync)
	if sync.Spec.Suspend {
		c.stop(n)
		c.statuses.change(n, func(s v1alpha1.SyncStatus) v1alpha1.SyncStatus {
			s.ObservedGeneration = sync.Generation // or it would count as in progress
			return s
		})
		return ctrl.Result{}, nil
	}
	s, err := c.settingsOf(sync)
	if err != nil {
		c.stop(n)
		c.report(n, failedReport(err), about{generation: sync.Generation, handled: sync.Annotations[v1alpha1.ReconcileAtAnnotation]})
		return ctrl.Result{}, nil
	}
	c.run(sync, s)
	return ctrl.Result{}, nil
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("controller: internal error: " + err.Error())
	}
	return b
}

// run starts the loop, or another one where the Sync has changed, and makes it look at
// git where somebody asks for that.
func (c *Controller) run(sync *v1alpha1.Sync, s settings) {
	n := name{sync.Namespace, sync.Name}
	identity := identityOf(sync)
	at := sync.Annotations[v1alpha1.ReconcileAtAnnotation]
	if at == sync.Status.HandledReconcileAt {
		at = ""
	}
	c.mu.Lock()
	l := c.loops[n]
	c.mu.Unlock()
	if l != nil && l.identity == identity {
		if at != "" {
			l.look(at)
		}
		return
	}
	if l != nil {
		l.stop()
	}
	l = &loop{controller: c, sync: n, settings: s, identity: identity, generation: sync.Generation, asked: at, nudged: make(chan struct{}, 1),
		log: c.log.With("sync", n.String())}
	if sync.Status.Applied != nil {
		l.applied = *sync.Status.Applied
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.context.Err() != nil {
		return
	}
	c.loops[n] = l
	l.start(c.context)
}

// identityOf is what a loop is made from.
func identityOf(sync *v1alpha1.Sync) string {
	out := fmt.Sprint(sync.UID, " ", sync.Generation)
	for _, a := range []string{v1alpha1.PruneConfirmAnnotation, v1alpha1.SourceConfirmAnnotation, v1alpha1.AllowRollbackAnnotation} {
		out += "\x00" + sync.Annotations[a]
	}
	return out
}

// as is the API server, with every request made as a service account, or as the agent
// itself where that is "".
func (c *Controller) as(namespace, account string) (*apply.Cluster, error) {
	if account == "" {
		return c.cluster, nil
	}
	return c.cluster.As(rest.ImpersonationConfig{UserName: "system:serviceaccount:" + namespace + ":" + account})
}

// stop ends the loop of a Sync, and returns when it has ended.
func (c *Controller) stop(n name) {
	c.mu.Lock()
	l := c.loops[n]
	delete(c.loops, n)
	c.mu.Unlock()
	if l != nil {
		l.stop()
	}
}

// repositoryKey is the same for those who follow the same with the same credentials.
func (c *Controller) repositoryKey(s settings, credentials map[string][]byte) string {
	h := hmac.New(sha256.New, c.keyOfKeys)
	_, _ = h.Write(mustJSON(s.source.URL)) // a hash never fails
	_, _ = h.Write(mustJSON(s.source.Ref))
	_, _ = h.Write(mustJSON(s.source.Timeout))
	_, _ = fmt.Fprint(h, s.tenant)
	for _, k := range slices.Sorted(maps.Keys(credentials)) {
		_, _ = h.Write(mustJSON([]any{k, credentials[k]}))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// wakeDependents makes the loops that wait for a Sync look whether they still must.
func (c *Controller) wakeDependents(n name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.loops {
		if slices.Contains(l.settings.dependsOn, n) {
			l.wake()
		}
	}
}
