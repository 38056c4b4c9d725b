package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/reconcile"
	"github.com/gitseal/gitseal/source"
)

const (
	firstSetupRetry = time.Second
	maxSetupRetry   = 5 * time.Minute
	accountAge      = 30 * time.Second // so long a service account counts as there
)

// loop keeps one Sync applied, as its settings say, until it is stopped.
type loop struct {
	controller *Controller
	sync       name
	settings   settings
	identity   string // what it was made from: another one needs another loop
	generation int64
	applied    v1alpha1.Commit // before this loop; its zero value for none
	log        *slog.Logger

	cancel context.CancelFunc
	done   chan struct{}
	looked time.Time // for the service account; of the loop's goroutine

	nudged  chan struct{}
	mu      sync.Mutex
	git     *follower
	trigger func()   // makes a pass
	restart func()   // makes one that does everything anew
	signers []string // of the commit that was let in last
	asked   string   // the value of reconcile-at that the next pass deals with
	askedAt time.Time
}

// start runs the loop. It ends with ctx, or by stop.
func (l *loop) start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(ctx)
	l.done = make(chan struct{})
	go func() {
		defer close(l.done)
		l.run(ctx)
	}()
}

// stop ends the loop, and returns when it has ended.
func (l *loop) stop() {
	l.cancel()
	<-l.done
}

// run sets everything up and keeps it going. What can not be set up is tried again.
func (l *loop) run(ctx context.Context) {
	if ready := l.controller.Ready; ready != nil {
		select {
		case <-ctx.Done():
			return
		case <-ready:
		}
	}
	for retry := firstSetupRetry; ctx.Err() == nil; retry = max(firstSetupRetry, min(2*retry, maxSetupRetry, l.retryLimit())) {
		err := l.work(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.observe(ctx, failedReport(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		case <-l.nudged: // somebody asks for it
			retry = 0
		}
	}
}

func (l *loop) retryLimit() time.Duration {
	if d := l.settings.reconcile.RetryLimit; d > 0 {
		return d
	}
	return maxSetupRetry
}

func failedReport(err error) reconcile.Report {
	return reconcile.Report{Idle: true, Started: time.Now(), Failures: []error{&reconcile.StageError{Stage: reconcile.Fetch, Err: err}}}
}

// work runs the passes, until ctx ends or what they were set up with is to be read
// again.
func (l *loop) work(ctx context.Context) error {
	c := l.controller
	cluster, err := l.cluster(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	store := keys.Store{
		Client: c.cluster.Client(), Namespace: c.Namespace, SealedSecretsFrom: c.SealedSecretsFrom,
		DecryptionSecret: l.settings.keysSecret, DecryptionNamespace: l.sync.Namespace, DecryptionClient: cluster.Client(), OwnDecryption: l.settings.tenant,
	}
	if l.settings.tenant {
		store.SealedSecretsFrom = nil // those are the administrators'
	}
	credentials, contents, err := l.credentials(ctx, cluster)
	if err != nil {
		return err
	}
	src := l.settings.source
	src.Credentials = credentials
	if l.settings.tenant {
		src.Allow, src.Limits = c.Addresses.allow, c.tenantLimits()
	}
	cfg := l.settings.reconcile
	cfg.Turn = l.turn
	runner := &apply.Runner{Cluster: cluster, Store: apply.NewInventoryStore(c.cluster, cfg.Owner), Owner: cfg.Owner, Force: l.settings.force, Drift: apply.NewDrift(ctx, cluster, cfg.Owner)}
	runner.Drift.Poll = cfg.Interval
	admitted := &admission{before: l.before(src)}
	s := reconcile.New(cfg, admitted, syncKeys{c.keys, store}, runner, l.log)
	if admitted.git, err = c.repositories.follow(c.context, c.repositoryKey(l.settings, contents), src, cfg.Interval, s.Trigger); err != nil {
		return &SyncError{Reason: InvalidSpec, Err: err}
	}
	defer c.repositories.leave(admitted.git)
	if err := l.checks(ctx, cluster, admitted); err != nil {
		return err
	}
	l.mu.Lock()
	l.git, l.trigger, l.restart = admitted.git, s.Trigger, s.Again
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.git, l.trigger, l.restart = nil, nil, nil
		l.mu.Unlock()
	}()
	s.Run(ctx, func(r reconcile.Report) {
		l.observe(ctx, r)
		if l.outdated(r) { // the credentials may have been changed since
			cancel()
		}
	})
	return nil
}

// outdated reports whether a pass failed by something that was read at the start.
func (l *loop) outdated(r reconcile.Report) bool {
	for _, err := range r.Failures {
		if l.settings.gitSecret != "" && (errors.Is(err, source.ErrAuthentication) || errors.Is(err, source.ErrHostKey)) {
			return true
		}
	}
	return false
}

// cluster is the API server, as the one whom the Sync writes as.
func (l *loop) cluster(ctx context.Context) (*apply.Cluster, error) {
	if l.settings.user != "" {
		if err := l.accountExists(ctx); err != nil {
			return nil, err
		}
	}
	cluster, err := l.controller.as(l.sync.Namespace, l.settings.user)
	if err != nil {
		return nil, &SyncError{Reason: AccessDenied, Err: err}
	}
	return cluster, nil
}

// accountExists asks for the service account: the API server does not mind to act as
// one that is not there.
func (l *loop) accountExists(ctx context.Context) error {
	switch gone, err := l.controller.accountGone(ctx, l.sync.Namespace, l.settings.user); {
	case gone:
		return &SyncError{Reason: AccessDenied, Err: fmt.Errorf("service account %s/%s does not exist", l.sync.Namespace, l.settings.user)}
	case err != nil:
		return &SyncError{Reason: AccessDenied, Err: fmt.Errorf("look for service account %s/%s: %w", l.sync.Namespace, l.settings.user, err)}
	}
	l.looked = time.Now()
	return nil
}

// credentials reads the Secret of the repository as the one whom the Sync writes as: a
// Sync shows its author nothing that the service account may not read.
func (l *loop) credentials(ctx context.Context, cluster *apply.Cluster) (source.Credentials, map[string][]byte, error) {
	data, err := l.secret(ctx, cluster, l.settings.gitSecret)
	if err != nil || data == nil {
		return source.Credentials{}, nil, err
	}
	out, err := source.CredentialsFromSecret(data)
	if err != nil {
		return out, nil, &SyncError{Reason: CredentialsFailed, Err: fmt.Errorf("secret %s/%s: %w", l.sync.Namespace, l.settings.gitSecret, err)}
	}
	return out, data, nil
}

// secret reads one of the Sync's namespace.
func (l *loop) secret(ctx context.Context, cluster *apply.Cluster, secret string) (map[string][]byte, error) {
	if secret == "" {
		return nil, nil
	}
	// Without a logger: client-go prints answers at high verbosity.
	s, err := cluster.Client().CoreV1().Secrets(l.sync.Namespace).Get(klog.NewContext(ctx, klog.Logger{}), secret, metav1.GetOptions{})
	if err != nil {
		return nil, &SyncError{Reason: CredentialsFailed, Err: fmt.Errorf("read secret %s/%s: the API server says %s", l.sync.Namespace, secret, apierrors.ReasonForError(err))}
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	return s.Data, nil
}

// turn waits until few enough other Syncs are at work.
func (l *loop) turn(ctx context.Context, commit string) (release func(), err error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case l.controller.turns <- struct{}{}:
	}
	if l.settings.user != "" && time.Since(l.looked) > accountAge {
		if err := l.accountExists(ctx); err != nil {
			<-l.controller.turns
			return nil, err
		}
	}
	return func() { <-l.controller.turns }, nil
}

// before fetches the commit that is applied, which need not be the newest.
func (l *loop) before(cfg source.Config) func(context.Context) (*source.Commit, error) {
	if l.applied.Hash == "" {
		return nil
	}
	cfg.Ref = source.Ref{Commit: l.applied.Hash}
	return func(ctx context.Context) (*source.Commit, error) {
		src, err := source.New(cfg)
		if err != nil {
			return nil, err
		}
		commit, _, err := src.Fetch(ctx)
		return commit, err
	}
}

// checks are what a new commit must pass.
func (l *loop) checks(ctx context.Context, cluster *apply.Cluster, a *admission) error {
	v, err := l.verification(ctx, cluster, a)
	if err != nil {
		return err
	}
	if v != nil {
		a.checks = append(a.checks, v.check)
	} else if l.settings.source.Ref.Branch != "" || l.settings.source.Ref == (source.Ref{}) {
		a.rewritten = func(from, to *source.Commit) { l.controller.sayer.rewritten(l.sync, l.log, from, to) }
	}
	if len(l.settings.dependsOn) > 0 {
		a.checks = append(a.checks, l.dependencies)
	}
	return nil
}

// dependencies must be ready before something new is applied.
func (l *loop) dependencies(ctx context.Context, commit *source.Commit) error {
	if commit.Hash == l.applied.Hash {
		return nil
	}
	return l.controller.dependencies(ctx, l.sync, l.settings, commit.Hash)
}

// note keeps who signed the commit that is let in.
func (l *loop) note(signers []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signers = signers
}

// look makes a pass at once, after a look at git; at is the value of reconcile-at that
// asks for it.
func (l *loop) look(at string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked == at {
		return // it is about to be dealt with
	}
	l.asked, l.askedAt = at, time.Now()
	if l.git != nil {
		l.git.refresh()
	}
	l.again()
}

// again makes the next pass, or try to set things up, come at once. The caller holds mu.
func (l *loop) again() {
	if l.trigger != nil {
		l.trigger()
		return
	}
	select {
	case l.nudged <- struct{}{}:
	default: // it is about to
	}
}

// wake makes a pass at once with what is known of git.
func (l *loop) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.again()
}

// anew makes a pass at once that does everything anew, with what is known of git.
func (l *loop) anew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.restart != nil {
		l.restart()
		return
	}
	l.again()
}
