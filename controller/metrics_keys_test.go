package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

// Not parallel: what is known of the keys is the process's.
func TestMetricsOfKeys(t *testing.T) {
	defer knownKeys.Store(knownKeys.Load())
	id, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := crypto.GenerateCertificateKey(time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	backup := time.Unix(1_700_000_000, 0)
	RecordKeys(&keys.Ring{Generations: []keys.Generation{{Number: 3, State: keys.Standby, Identity: id, Certificate: cert, BackedUp: backup}}})
	r := prometheus.NewRegistry()
	r.MustRegister(keyMetrics{})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]float64{ // from, to
		"gitseal_key_age_seconds": {3600, 3700}, "gitseal_key_expiry_seconds": {10*365*24*3600 - 3700, 10*365*24*3600 - 3600},
		"gitseal_key_backup_timestamp_seconds": {1_700_000_000, 1_700_000_000},
	}
	for _, f := range families {
		m := f.GetMetric()[0]
		if got, span := m.GetGauge().GetValue(), want[f.GetName()]; got < span[0] || got > span[1] {
			t.Errorf("%s is %f, want %v", f.GetName(), got, span)
		}
		for _, text := range []string{`value:"3"`, "standby", id.Recipient().String(), cert.Certificate().Fingerprint()} {
			if !strings.Contains(strings.ReplaceAll(m.String(), " ", ""), text) {
				t.Errorf("%s has the labels %s, want %s", f.GetName(), m, text)
			}
		}
		delete(want, f.GetName())
	}
	if len(want) > 0 {
		t.Errorf("not there: %v", want)
	}
}
