package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/controller"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/internal/version"
	"github.com/gitseal/gitseal/keys"
)

// controllerOptions are the flags of the agent as a controller.
type controllerOptions struct {
	clusterFlags
	watchNamespaces               []string
	selector                      string
	leaderElect                   bool
	lease, renew, retry           time.Duration
	metricsAddress, healthAddress string
	pprofAddress                  string
	audit                         bool
	auditInterval                 auditFlag
	concurrent                    int
	protect                       []string
	sealedSecretsFrom             []string
	tenantAccount                 string
	tenantMAC, tenantPlaintext    string
	tenantOutside                 string
	allowGit, denyGit             []string
	tenantRepository              string
	kubeseal                      string
	kubesealEndpoints             []string
	keys                          keysFlags

	cache cache.Options // what of the cluster's Syncs is looked at
}

func (o *controllerOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	o.clusterFlags.add(f, "the agent's own namespace, of its keys and state; Syncs in any other one are tenants'")
	f.StringSliceVar(&o.watchNamespaces, "watch-namespaces", nil, "keep only Syncs of these namespaces (default: all)")
	f.StringVar(&o.selector, "watch-label-selector", "", "keep only Syncs with these labels; agents with selectors that do not overlap share the work")
	f.BoolVar(&o.leaderElect, "leader-elect", true, "of several replicas with the same selector let one work at a time")
	f.DurationVar(&o.lease, "leader-election-lease-duration", leaseDuration, "time after which a leader that says nothing is replaced")
	f.DurationVar(&o.renew, "leader-election-renew-deadline", leaseRenew, "time for which a leader tries to say something before it gives up")
	f.DurationVar(&o.retry, "leader-election-retry-period", leaseRetry, "time between the leader's words, and between looks of the others")
	f.StringVar(&o.metricsAddress, "metrics-bind-address", ":8080", "address of /metrics; 0 for none")
	f.StringVar(&o.healthAddress, "health-probe-bind-address", ":9440", "address of /healthz and /readyz; 0 for none")
	f.StringVar(&o.kubeseal, "kubeseal-bind-address", ":8081", "address of what kubeseal asks for: /v1/cert.pem; 0 for none")
	f.StringSliceVar(&o.kubesealEndpoints, "kubeseal-endpoints", nil, "besides the certificate: verify (kubeseal --validate) and rotate (--re-encrypt), for everybody who reaches that address")
	f.StringVar(&o.pprofAddress, "pprof-bind-address", "", "address of profiles (default: none)")
	f.BoolVar(&o.audit, "audit-log", true, "write a line of JSON to stdout for each object that is changed, and for each failure")
	o.auditInterval.add(f, "audits of the watches")
	o.keys.add(f)
	f.IntVar(&o.concurrent, "concurrent", 4, "how many Syncs may build and apply at once")
	f.StringArrayVar(&o.protect, "protect", nil, "objects that only a Sync with allowProtected may change, as KIND[.GROUP]/[NAMESPACE/]NAME with * for anything (default: what locks administrators out; may be repeated; '' for none)")
	f.StringArrayVar(&o.sealedSecretsFrom, "sealed-secrets-keys-from", nil, "namespace whose sealed-secrets key Secrets open SealedSecrets of Syncs in --namespace too (may be repeated)")
	f.StringVar(&o.tenantAccount, "default-service-account", "", "service account of tenants' Syncs that name none (default: they are refused)")
	f.StringVar(&o.tenantMAC, "tenant-mac", string(crypto.MACRequired), "the least that tenants' Syncs must ask for: Required or Warn")
	f.StringVar(&o.tenantPlaintext, "tenant-plaintext-secrets", string(decrypt.PlaintextDeny), "the least that tenants' Syncs must ask for: Deny, Warn or Allow")
	f.StringVar(&o.tenantOutside, "tenant-outside-secrets", string(decrypt.OutsideDeny), "the least that tenants' Syncs must ask for: Deny or Allow")
	f.StringVar(&o.tenantRepository, "tenant-repository-limit", "64Mi", "how much the files of a tenant's repository may be together; they are kept in memory")
	f.StringSliceVar(&o.allowGit, "allow-git-cidr", nil, "networks of tenants' git servers that would be refused: loopback, link-local and metadata addresses are; the API server always is")
	f.StringSliceVar(&o.denyGit, "deny-git-cidr", nil, "networks that tenants' git servers must not lie in")
}

// config turns the flags into the configuration of the controller, and o.cache.
func (o *controllerOptions) config(protectGiven bool) (controller.Config, error) {
	var errs []error
	patterns := o.protect
	if !protectGiven {
		patterns = controller.DefaultProtections(o.namespace)
	}
	var protect []controller.Protection
	for _, text := range patterns {
		if text == "" {
			continue
		}
		p, err := controller.ParseProtection(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("--protect: %w", err))
		}
		protect = append(protect, p)
	}
	errs = append(errs, o.auditInterval.check())
	if o.retry <= 0 || o.renew <= o.retry || o.lease <= o.renew {
		errs = append(errs, errors.New("--leader-election-lease-duration must be longer than …-renew-deadline, and that longer than …-retry-period"))
	}
	if o.concurrent < 1 {
		errs = append(errs, errors.New("--concurrent must be 1 or more"))
	}
	var err error
	if o.cache.DefaultLabelSelector, err = labels.Parse(o.selector); err != nil {
		errs = append(errs, fmt.Errorf("--watch-label-selector: %w", err))
	}
	// Reseals lie beside the keys, and belong to no share of the Syncs.
	o.cache.ByObject = map[client.Object]cache.ByObject{&v1alpha1.Reseal{}: {Namespaces: map[string]cache.Config{o.namespace: {LabelSelector: labels.Everything()}}}}
	for _, ns := range o.watchNamespaces {
		if o.cache.DefaultNamespaces == nil {
			o.cache.DefaultNamespaces = map[string]cache.Config{}
		}
		o.cache.DefaultNamespaces[ns] = cache.Config{}
	}
	var addresses controller.Addresses
	for flag, list := range map[string]struct {
		in  []string
		out *[]netip.Prefix
	}{"allow": {o.allowGit, &addresses.AllowCIDR}, "deny": {o.denyGit, &addresses.DenyCIDR}} {
		if *list.out, err = controller.ParseCIDRs(list.in); err != nil {
			errs = append(errs, fmt.Errorf("--%s-git-cidr: %w", flag, err))
		}
	}
	limit, err := resource.ParseQuantity(o.tenantRepository)
	if err == nil && limit.Value() < 1 {
		err = fmt.Errorf("%s is not more than 0", o.tenantRepository)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("--tenant-repository-limit: %w", err))
	}
	kubeseal := controller.Kubeseal{Address: o.kubeseal, Endpoints: o.kubesealEndpoints}
	if kubeseal.Address == "0" {
		kubeseal.Address = ""
	}
	floor := controller.Floor{
		ServiceAccount: o.tenantAccount, MAC: crypto.MACPolicy(o.tenantMAC),
		Plaintext: decrypt.PlaintextPolicy(o.tenantPlaintext), Outside: decrypt.OutsidePolicy(o.tenantOutside),
	}
	if err := floor.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("--tenant-…: %w", err))
	}
	return controller.Config{
		Namespace: o.namespace, Floor: floor, Protect: protect, Addresses: addresses, SealedSecretsFrom: o.sealedSecretsFrom,
		RepositoryBytes: limit.Value(), Kubeseal: kubeseal, Concurrent: o.concurrent, Audit: time.Duration(o.auditInterval),
	}, errors.Join(errs...)
}

// leaseName is one for each share of the Syncs.
func (o *controllerOptions) leaseName() string {
	share := o.selector + "\x00" + strings.Join(o.watchNamespaces, ",")
	if share == "\x00" {
		return "gitseal-agent"
	}
	h := fnv.New64a()
	_, _ = io.WriteString(h, share) // a hash never fails
	return fmt.Sprintf("gitseal-agent-%x", h.Sum64())
}

func (o *controllerOptions) run(ctx context.Context, protectGiven bool, stdout, stderr io.Writer) error {
	cfg, err := o.config(protectGiven)
	if err != nil {
		return err
	}
	restConfig, cluster, log, err := o.connect(stderr)
	if err != nil {
		return err
	}
	cfg.Addresses.APIServer = controller.APIServerAddresses(ctx, restConfig.Host)
	if err := knowsSyncs(ctx, cluster.Client()); err != nil {
		return err
	}
	restConfig.QPS = -1 // the API server's priority and fairness throttles
	ctrl.SetLogger(logr.FromSlogHandler(leveled{log.Handler(), slog.LevelWarn}))
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(restConfig, manager.Options{
		Scheme:                  scheme,
		Cache:                   o.cache,
		Metrics:                 metricsserver.Options{BindAddress: o.metricsAddress},
		HealthProbeBindAddress:  o.healthAddress,
		PprofBindAddress:        o.pprofAddress,
		LeaderElection:          o.leaderElect,
		LeaderElectionNamespace: o.namespace, LeaderElectionID: o.leaseName(),
		LeaderElectionReleaseOnCancel: true, // the process ends right after
		LeaseDuration:                 &o.lease, RenewDeadline: &o.renew, RetryPeriod: &o.retry,
		GracefulShutdownTimeout: new(shutdown),
	})
	if err != nil {
		return fmt.Errorf("prepare the agent: %w", err)
	}
	var audit *slog.Logger
	if o.audit {
		audit = slog.New(slog.NewJSONHandler(stdout, nil))
	}
	if err := controller.RegisterMetrics(); err != nil {
		return err
	}
	ready := make(chan struct{})
	cfg.Ready = ready
	c, err := controller.New(cfg, mgr, cluster, log, audit)
	if err != nil {
		return err
	}
	checks := []error{mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("syncs", knowsAll(mgr)), mgr.AddReadyzCheck("keys", hasKeys(mgr, ready))}
	if err := errors.Join(checks...); err != nil {
		return err
	}
	keep := o.keys.keeper(cluster, keys.Store{Client: cluster.Client(), Namespace: o.namespace, Now: time.Now}, log, c.KeysChanged)
	keep.Seen = controller.RecordKeys
	if err := mgr.Add(keeper{keep, ready}); err != nil {
		return err
	}
	log.Info("starting", "version", version.Get().Version, "namespace", o.namespace)
	return mgr.Start(ctx)
}

// knowsAll is ready once all Syncs were listed.
func knowsAll(mgr manager.Manager) healthz.Checker {
	return func(r *http.Request) error {
		informer, err := mgr.GetCache().GetInformer(r.Context(), &v1alpha1.Sync{}, cache.BlockUntilSynced(false))
		if err != nil {
			return err
		}
		if !informer.HasSynced() {
			return errors.New("the Syncs are not listed yet")
		}
		return nil
	}
}

// hasKeys is ready once the leader has keys; other replicas need none.
func hasKeys(mgr manager.Manager, ready <-chan struct{}) healthz.Checker {
	return func(*http.Request) error {
		select {
		case <-mgr.Elected():
		default:
			return nil
		}
		select {
		case <-ready:
			return nil
		default:
			return errors.New("the agent has no keys yet; its log says why")
		}
	}
}

// knowsSyncs asks whether the CRDs are there. Whatever else is wrong may pass.
func knowsSyncs(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	const way = "install the CRDs first (`seal install`, or kubectl apply -f deploy/base/crds); `agent sync` works without them"
	known := &metav1.APIResourceList{}
	err := client.Discovery().RESTClient().Get().AbsPath("/apis/" + v1alpha1.GroupVersion.String()).Do(ctx).Into(known)
	if apierrors.IsNotFound(err) {
		return errors.New("the cluster does not know Syncs: " + way)
	}
	if err == nil && !slices.ContainsFunc(known.APIResources, func(r metav1.APIResource) bool { return r.Name == "reseals" }) {
		return errors.New("the cluster does not know Reseals: " + way)
	}
	return nil
}

// shutdown is how long the work of the loops may take to end.
const shutdown = 40 * time.Second

// leveled drops what is below a level: controller-runtime says at info what only its
// own developers need.
type leveled struct {
	slog.Handler
	least slog.Level
}

func (h leveled) WithAttrs(a []slog.Attr) slog.Handler {
	return leveled{h.Handler.WithAttrs(a), h.least}
}
func (h leveled) WithGroup(name string) slog.Handler {
	return leveled{h.Handler.WithGroup(name), h.least}
}

func (h leveled) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.least && h.Handler.Enabled(ctx, level)
}

// keeper makes the keys and follows them.
type keeper struct {
	keys.Keeper
	ready chan struct{} // closed when the keys are there
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (k keeper) NeedLeaderElection() bool { return true }

// Start implements manager.Runnable.
func (k keeper) Start(ctx context.Context) error {
	ring, err := k.Prepare(ctx)
	if err != nil {
		return nil // ctx ended
	}
	close(k.ready)
	k.Run(ctx, ring)
	return nil
}
