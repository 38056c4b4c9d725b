package controller

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/internal/version"
	"github.com/gitseal/gitseal/reconcile"
)

// The metrics, described for people in docs/metrics.md.
var (
	reconcileSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "gitseal_reconcile_duration_seconds", Help: "Time that passes took which did something, by stage.",
		Buckets: []float64{0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300},
	}, []string{"namespace", "name", "stage"})
	reconcileTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gitseal_reconcile_total", Help: "Passes that did something or failed, by result: success or failure.",
	}, []string{"namespace", "name", "result"})
	syncReady = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gitseal_sync_ready", Help: "1 where the condition Ready of the Sync is True.",
	}, []string{"namespace", "name"})
	syncSuspended = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gitseal_suspend_status", Help: "1 where the Sync is suspended.",
	}, []string{"namespace", "name"})
	sourceReady = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gitseal_source_ready", Help: "1 where the last look at git went well, and its commit was let in.",
	}, []string{"namespace", "name"})
	lastSuccess = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gitseal_last_success_timestamp_seconds", Help: "When everything that git holds was last found or made applied.",
	}, []string{"namespace", "name"})
	objectsTotal = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gitseal_objects", Help: "Objects that git holds.",
	}, []string{"namespace", "name"})
	decryptErrors = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gitseal_decrypt_errors_total", Help: "Files and objects that could not be opened in a pass, by reason.",
	}, []string{"namespace", "name", "reason"})
	decryptFailing = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gitseal_object_decrypt_failing", Help: "1 for each file or object that could not be opened in the last pass.",
	}, []string{"namespace", "name", "object"})
	driftCorrected = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gitseal_drift_corrected_total", Help: "Objects that were put back after a change in the cluster.",
	}, []string{"namespace", "name"})
	prunedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gitseal_pruned_total", Help: "Objects that were deleted since they left git.",
	}, []string{"namespace", "name"})
	appliedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gitseal_applied_total", Help: "Objects that were created, taken over or changed.",
	}, []string{"namespace", "name"})
	keyFiles = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gitseal_key_in_use_files", Help: "Files and SealedSecrets that a key opens, by its public fingerprint.",
	}, []string{"namespace", "name", "fingerprint"})
	keyAge    = ofKey(prometheus.Opts{Name: "gitseal_key_age_seconds", Help: "Age of a key generation."})
	keyExpiry = ofKey(prometheus.Opts{Name: "gitseal_key_expiry_seconds", Help: "Time until the certificate of a key generation ends; it opens after that, too."})
	keyBackup = ofKey(prometheus.Opts{Name: "gitseal_key_backup_timestamp_seconds", Help: "When a key generation was last backed up; 0 for never."})
	buildInfo = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gitseal_build_info", Help: "1, with what was built.",
	}, []string{"version", "commit"})
)

// perSync are the metrics whose series end with their Sync.
var perSync = []interface {
	prometheus.Collector
	DeletePartialMatch(prometheus.Labels) int
}{reconcileSeconds, reconcileTotal, syncReady, syncSuspended, sourceReady, lastSuccess, objectsTotal, decryptErrors, decryptFailing, driftCorrected, prunedTotal, appliedTotal, keyFiles}

// RegisterMetrics adds the metrics to those that the manager serves. Once in a process.
func RegisterMetrics() error {
	v := version.Get()
	buildInfo.WithLabelValues(v.Version, v.Commit).Set(1)
	errs := []error{metrics.Registry.Register(buildInfo), metrics.Registry.Register(keyMetrics{})}
	for _, c := range perSync {
		errs = append(errs, metrics.Registry.Register(c))
	}
	return errors.Join(errs...)
}

func forgetMetrics(n name) {
	for _, m := range perSync {
		m.DeletePartialMatch(prometheus.Labels{"namespace": n.Namespace, "name": n.Name})
	}
}

func recordSpec(sync *v1alpha1.Sync) {
	syncSuspended.WithLabelValues(sync.Namespace, sync.Name).Set(number(sync.Spec.Suspend))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func recordReport(n name, r reconcile.Report, after v1alpha1.SyncStatus) {
	l := []string{n.Namespace, n.Name}
	ready := meta.IsStatusConditionTrue(after.Conditions, v1alpha1.Ready)
	syncReady.WithLabelValues(l...).Set(number(ready))
	objectsTotal.WithLabelValues(l...).Set(float64(after.Objects.Total))
	prunedTotal.WithLabelValues(l...).Add(float64(r.Count(apply.Prune)))
	if ready {
		lastSuccess.WithLabelValues(l...).Set(float64(time.Now().Unix()))
	}
	switch r.Of {
	case reconcile.Repair:
		driftCorrected.WithLabelValues(l...).Add(float64(len(r.Done)))
		return
	case reconcile.Readiness:
		return
	}
	appliedTotal.WithLabelValues(l...).Add(float64(r.Count(apply.Create) + r.Count(apply.Adopt) + r.Count(apply.Change)))
	sourceReady.WithLabelValues(l...).Set(number(!fails(r, reconcile.Fetch)))
	if r.Idle && len(r.Failures) == 0 {
		return
	}
	result := "success"
	if len(r.Failures) > 0 {
		result = "failure"
	}
	reconcileTotal.WithLabelValues(append(l, result)...).Inc()
	for stage, took := range r.Stages {
		reconcileSeconds.WithLabelValues(append(l[:2:2], string(stage))...).Observe(took.Seconds())
	}
	if r.Idle {
		return
	}
	keyFiles.DeletePartialMatch(prometheus.Labels{"namespace": n.Namespace, "name": n.Name})
	for _, k := range after.Keys {
		keyFiles.WithLabelValues(append(l[:2:2], k.Fingerprint)...).Set(float64(k.Files))
	}
	decryptFailing.DeletePartialMatch(prometheus.Labels{"namespace": n.Namespace, "name": n.Name})
	for _, err := range r.Failures {
		var p decrypt.Problem
		var refusal decrypt.Refusal
		switch {
		case errors.As(err, &p):
			decryptErrors.WithLabelValues(append(l[:2:2], string(p.Reason))...).Inc()
			decryptFailing.WithLabelValues(append(l[:2:2], p.File)...).Set(1)
		case errors.As(err, &refusal) && refusal.Reason == decrypt.ReasonNotOpened:
			decryptErrors.WithLabelValues(append(l[:2:2], string(refusal.Reason))...).Inc()
			decryptFailing.WithLabelValues(append(l[:2:2], refusal.Object)...).Set(1)
		}
	}
}

func fails(r reconcile.Report, stage reconcile.Stage) bool {
	for _, err := range r.Failures {
		if stageOf(err) == stage {
			return true
		}
	}
	return false
}
