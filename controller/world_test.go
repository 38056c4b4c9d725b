package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

func TestMain(m *testing.M) { harness.Main(m) }

// world is an agent with namespaces of its own, over a real control plane, and a
// repository behind a real git server.
type world struct {
	t      *testing.T
	cp     *harness.ControlPlane
	rest   *rest.Config
	admin  *syncs.Admin
	system string // the agent's namespace
	team   string // a tenant's
	other  string // another tenant's
	repo   *harness.Repo
	git    *harness.GitHTTP
	log    *harness.Log
	audit  *harness.Log
	cfg    Config
	public keys.Public
	end    func()

	controller *Controller // once it is started
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, cp: harness.Shared(t), log: &harness.Log{}, audit: &harness.Log{}}
	var err error
	if w.rest, err = w.cp.RESTConfig(); err != nil {
		t.Fatal(err)
	}
	w.cp.InstallSyncs(t)
	w.admin = syncs.NewAdmin(t, w.rest)
	w.system, w.team, w.other = w.cp.Namespace(t, "system"), w.cp.Namespace(t, "team"), w.cp.Namespace(t, "other")
	repos := t.TempDir()
	w.repo = harness.NewRepo(t, repos, "fleet")
	w.git = harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: repos})
	var protect []Protection
	for _, text := range DefaultProtections(w.system) {
		p, err := ParseProtection(text)
		if err != nil {
			t.Fatal(err)
		}
		protect = append(protect, p)
	}
	loopback := netip.MustParsePrefix("127.0.0.0/8") // where the tests' git servers are
	w.cfg = Config{Namespace: w.system, Concurrent: 4, Protect: protect,
		Addresses: Addresses{AllowCIDR: []netip.Prefix{loopback}, APIServer: APIServerAddresses(t.Context(), w.rest.Host)}}
	store := w.store()
	ring, err := store.Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w.public, err = ring.Public(); err != nil {
		t.Fatal(err)
	}
	w.admin.Account(w.team, "deployer", "edit")
	return w
}

func (w *world) store() keys.Store {
	w.t.Helper()
	cluster, err := apply.Connect(w.rest)
	if err != nil {
		w.t.Fatal(err)
	}
	return keys.Store{Client: cluster.Client(), Namespace: w.system, Now: time.Now}
}

// start runs the agent until the test ends, or w.end is called.
func (w *world) start() {
	w.t.Helper()
	cfg := rest.CopyConfig(w.rest)
	cfg.UserAgent = "agent-" + w.system
	cluster, err := apply.Connect(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	mgr, err := ctrl.NewManager(cfg, manager.Options{
		Scheme:  syncs.Scheme(w.t),
		Cache:   cache.Options{DefaultNamespaces: map[string]cache.Config{w.system: {}, w.team: {}, w.other: {}}},
		Metrics: metricsserver.Options{BindAddress: "0"},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if w.controller, err = New(w.cfg, mgr, cluster, log, slog.New(slog.NewJSONHandler(w.audit, nil))); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	w.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("the agent ended with %v", err)
		}
	})
	w.t.Cleanup(func() {
		w.end()
		for _, ns := range []string{w.system, w.team, w.other} {
			if err := w.admin.Unfinalize(client.InNamespace(ns)); err != nil {
				w.t.Error(err)
			}
		}
		if w.t.Failed() {
			log := w.log.String()
			w.t.Log(log[:min(len(log), 6000)])
		}
	})
}

func (w *world) url() string { return w.git.RepoURL("fleet") }

// sync makes a Sync of a folder; edit may change it before.
func (w *world) sync(namespace, name, path string, edit func(*v1alpha1.Sync)) *v1alpha1.Sync {
	w.t.Helper()
	s := syncs.New(namespace, name, w.url(), path)
	if namespace != w.system {
		s.Spec.ServiceAccountName = "deployer"
	}
	if edit != nil {
		edit(s)
	}
	w.admin.Make(s)
	return s
}

func (w *world) get(s *v1alpha1.Sync) *v1alpha1.Sync {
	w.t.Helper()
	out := &v1alpha1.Sync{}
	if err := w.admin.Get(w.t.Context(), client.ObjectKeyFromObject(s), out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// condition waits until a condition has a status and reason.
func (w *world) condition(s *v1alpha1.Sync, kind string, status metav1.ConditionStatus, reason string) *v1alpha1.Sync {
	w.t.Helper()
	out := &v1alpha1.Sync{}
	harness.Eventually(w.t, fmt.Sprintf("%s of %s is %s %s", kind, s.Name, status, reason), func(ctx context.Context) error {
		if err := w.admin.Get(ctx, client.ObjectKeyFromObject(s), out); err != nil {
			return err
		}
		c := meta.FindStatusCondition(out.Status.Conditions, kind)
		if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != out.Generation {
			return fmt.Errorf("generation %d, it is %+v", out.Generation, c)
		}
		return nil
	})
	return out
}

// ready waits until the Sync has applied the repository's head.
func (w *world) ready(s *v1alpha1.Sync) *v1alpha1.Sync {
	w.t.Helper()
	return w.admin.Applied(s, w.repo.Head())
}

// edit changes a Sync.
func (w *world) edit(s *v1alpha1.Sync, change func(*v1alpha1.Sync)) {
	w.t.Helper()
	harness.Eventually(w.t, "edit of Sync "+s.Name, func(ctx context.Context) error {
		now := &v1alpha1.Sync{}
		if err := w.admin.Get(ctx, client.ObjectKeyFromObject(s), now); err != nil {
			return err
		}
		change(now)
		return w.admin.Update(ctx, now)
	})
}

// commit writes files, given as pairs of path and content, and pushes them.
func (w *world) commit(message string, files ...string) string {
	w.t.Helper()
	for i := 0; i < len(files); i += 2 {
		w.repo.Write(files[i], files[i+1])
	}
	return w.repo.Commit(message)
}

// secret is one that is sealed to the agent's keys; binding "" for none.
func (w *world) secret(namespace, name, password, binding string) string {
	w.t.Helper()
	return syncs.Seal(w.t, w.public.Recipients, syncs.Secret{Namespace: namespace, Name: name, Password: password, Binding: binding})
}

// value waits until a ConfigMap has a value; "" waits until it is gone.
func (w *world) value(namespace, name, want string) {
	w.t.Helper()
	harness.Eventually(w.t, fmt.Sprintf("ConfigMap %s/%s is %q", namespace, name, want), func(ctx context.Context) error {
		got, err := w.now(ctx, namespace, name)
		if err == nil && got != want {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

func (w *world) now(ctx context.Context, namespace, name string) (string, error) {
	cm := &corev1.ConfigMap{}
	err := w.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, cm)
	return cm.Data["key"], client.IgnoreNotFound(err)
}

// stays fails the test if a ConfigMap is not what it should be now.
func (w *world) stays(namespace, name, want string) {
	w.t.Helper()
	got, err := w.now(w.t.Context(), namespace, name)
	if err != nil || got != want {
		w.t.Errorf("ConfigMap %s/%s: got %q, %v; want %q", namespace, name, got, err, want)
	}
}

// opened waits until a Secret has a password; "" waits until it is gone.
func (w *world) opened(namespace, name, want string) {
	w.t.Helper()
	harness.Eventually(w.t, fmt.Sprintf("Secret %s/%s is there", namespace, name), func(ctx context.Context) error {
		s := &corev1.Secret{}
		err := client.IgnoreNotFound(w.admin.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, s))
		if got := string(s.Data["password"]); err == nil && got != want {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}

// says is content when the message of the condition Ready holds a text.
func (w *world) says(s *v1alpha1.Sync, part string) func(context.Context) error {
	return func(context.Context) error {
		if got := said(w.get(s)); !strings.Contains(got, part) {
			return fmt.Errorf("it says %s", got)
		}
		return nil
	}
}

// said is the message of the condition Ready.
func said(s *v1alpha1.Sync) string {
	if c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.Ready); c != nil {
		return c.Message
	}
	return ""
}

// audits waits until the audit lines hold the texts: they are written after the fact.
func (w *world) audits(parts ...string) {
	w.t.Helper()
	for _, p := range parts {
		harness.Eventually(w.t, "the audit lines hold "+p, func(context.Context) error {
			if got := w.audit.String(); !strings.Contains(got, p) {
				return fmt.Errorf("they are\n%s", got)
			}
			return nil
		})
	}
}

func contains(t *testing.T, what, got string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%s:\n got  %s\n want %s", what, got, p)
		}
	}
}
