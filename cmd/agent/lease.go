package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"k8s.io/klog/v2"

	"github.com/gitseal/gitseal/apply"
)

// Lease times. A holder that died is replaced after leaseDuration; a living one
// sends one small update every leaseRetry, which is all that an idle agent does.
const (
	leaseDuration = 30 * time.Second
	leaseRenew    = 20 * time.Second
	leaseRetry    = 10 * time.Second
)

var errLeaseLost = errors.New("the lease was lost: another agent with the same --namespace and --name may be running")

// leaseErrors lets the elector's errors through, but not those of giving up a
// lease on purpose.
type leaseErrors struct {
	slog.Handler
	elect context.Context
}

func (h leaseErrors) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelError && h.elect.Err() == nil
}

// lead runs work while this process holds the Sync's Lease. The Lease is given
// back only after work has ended: what work writes last must not meet the
// writes of the next holder. work's context ends with ctx, and when the Lease is
// lost.
func lead(ctx context.Context, client kubernetes.Interface, owner apply.Owner, log *slog.Logger, work func(context.Context) error) error {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	me := host + "_" + string(uuid.NewUUID())
	electCtx, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	started := make(chan struct{})
	done := make(chan error, 1)
	le, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: owner.Namespace, Name: "gitseal-sync-" + owner.Name},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: me},
		},
		LeaseDuration: leaseDuration, RenewDeadline: leaseRenew, RetryPeriod: leaseRetry,
		ReleaseOnCancel: true, Name: "gitseal-sync-" + owner.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) {
				close(started)
				log.Debug("holding the lease", "lease", owner.Namespace+"/gitseal-sync-"+owner.Name)
				workCtx, cancel := context.WithCancel(klog.NewContext(held, klog.Background()))
				stop := context.AfterFunc(ctx, cancel)
				err := work(workCtx)
				if err == nil && held.Err() != nil && electCtx.Err() == nil {
					err = errLeaseLost
				}
				stop()
				cancel()
				done <- err
				release()
			},
			OnStoppedLeading: func() {},
			OnNewLeader: func(id string) {
				if id != me {
					log.Info("waiting: another agent holds the lease", "holder", id, "lease", owner.Namespace+"/gitseal-sync-"+owner.Name)
				}
			},
		},
	})
	if err != nil {
		return fmt.Errorf("prepare the lease: %w", err)
	}
	// While waiting for the Lease there is no work to end first.
	defer context.AfterFunc(ctx, func() {
		select {
		case <-started:
		default:
			release()
		}
	})()
	// Of the elector's own log only errors are kept; the work logs as before.
	le.Run(klog.NewContext(electCtx, logr.FromSlogHandler(leaseErrors{log.Handler(), electCtx})))
	select {
	case <-started:
		return <-done
	default:
		return ctx.Err()
	}
}
