package controller

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

// knownKeys are public facts about the keys that were read last; the metrics are a
// process's own.
var knownKeys atomic.Pointer[[]keys.PublicGeneration]

// ofKey describes a metric of each key generation.
func ofKey(o prometheus.Opts) *prometheus.Desc {
	return prometheus.NewDesc(o.Name, o.Help, []string{"generation", "state", "fingerprint", "certificate"}, nil)
}

// keyMetrics are computed when they are asked for, since ages grow.
type keyMetrics struct{}

// Describe implements prometheus.Collector.
func (keyMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- keyAge
	out <- keyExpiry
	out <- keyBackup
}

// Collect implements prometheus.Collector.
func (keyMetrics) Collect(out chan<- prometheus.Metric) {
	known := knownKeys.Load()
	if known == nil {
		return
	}
	now := time.Now()
	for _, g := range *known {
		labels := []string{strconv.Itoa(g.Number), string(g.State), crypto.RecipientFingerprint(g.Recipient), g.Certificate}
		backup := 0.0
		if !g.BackedUp.IsZero() {
			backup = float64(g.BackedUp.Unix())
		}
		out <- prometheus.MustNewConstMetric(keyAge, prometheus.GaugeValue, now.Sub(g.Created).Seconds(), labels...)
		out <- prometheus.MustNewConstMetric(keyExpiry, prometheus.GaugeValue, g.NotAfter.Sub(now).Seconds(), labels...)
		out <- prometheus.MustNewConstMetric(keyBackup, prometheus.GaugeValue, backup, labels...)
	}
}

// RecordKeys keeps what is public of keys that were read, for the metrics.
func RecordKeys(r *keys.Ring) {
	var out []keys.PublicGeneration
	for _, g := range r.Generations {
		out = append(out, g.Public())
	}
	knownKeys.Store(&out)
}
