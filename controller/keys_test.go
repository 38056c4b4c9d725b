package controller

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/test/harness"
)

// relabel sets the state of a key.
func (w *world) relabel(name string, state keys.State) {
	w.t.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: name}}
	if err := w.admin.Patch(w.t.Context(), s, client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, keys.StateLabel, state))); err != nil {
		w.t.Fatal(err)
	}
}

// A Sync looks at git each hour and tries again after seconds. What the keys open is news
// to it all the same.
func TestASyncFollowsTheKeysWithoutACommit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "app/db.yaml", w.secret(w.team, "db", "hunter2", w.team+"/*"))
	w.commit("and a SealedSecret", "app/sealed.yaml", sealedSecret(t, w.public.Cert, w.team, "api", "open sesame"))
	s := w.sync(w.team, "app", "app", func(s *v1alpha1.Sync) { s.Spec.Interval = metav1.Duration{Duration: time.Hour} })
	w.start()
	cluster, err := apply.Connect(w.rest)
	if err != nil {
		t.Fatal(err)
	}
	keeper := keys.Keeper{Store: w.store(), Metadata: cluster.Metadata(), Changed: w.controller.KeysChanged, Log: slog.New(slog.NewTextHandler(w.log, nil))}
	ring, err := keeper.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); keeper.Run(ctx, ring) }()
	t.Cleanup(func() { cancel(); <-done })
	w.ready(s)
	w.counts(s, 1)
	if _, err := w.store().Ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the second generation is published", func(ctx context.Context) error {
		p, err := keys.FetchPublic(ctx, cluster.Client(), w.system)
		if err == nil && p.Newest() != 2 {
			err = fmt.Errorf("newest is %d", p.Newest())
		}
		return err
	})
	w.counts(s, 1) // also with two keys to choose from
	for range 2 {
		w.relabel("gitseal-key-1", keys.Retired)
		w.soon("it does not open any more", s, metav1.ConditionFalse)
		time.Sleep(4 * time.Second) // by itself it would try again after four more
		w.relabel("gitseal-key-1", keys.Active)
		w.soon("it opens", s, metav1.ConditionTrue)
	}
	w.counts(s, 1)
}

// counts waits until the status counts one SOPS file and n SealedSecrets for the keys that
// are published first.
func (w *world) counts(s *v1alpha1.Sync, n int32) {
	w.t.Helper()
	want := map[string]int32{w.public.Recipients[0].Fingerprint(): 1, w.public.Cert.Fingerprint(): n}
	harness.Eventually(w.t, "the files are counted", func(context.Context) error {
		got := w.get(s).Status.Keys
		for _, k := range got {
			if want[k.Fingerprint] != k.Files {
				return fmt.Errorf("got %+v, want %v", got, want)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("got %+v, want %v", got, want)
		}
		return nil
	})
}

// soon waits until Ready is so, and logs how long it took: two seconds at most, unless
// the machine is busy.
func (w *world) soon(what string, s *v1alpha1.Sync, status metav1.ConditionStatus) {
	w.t.Helper()
	start := time.Now()
	err := harness.Until(w.t.Context(), 30*time.Second, 20*time.Millisecond, what, func(context.Context) error {
		for _, c := range w.get(s).Status.Conditions {
			if c.Type == v1alpha1.Ready && c.Status == status {
				return nil
			}
		}
		return fmt.Errorf("it says %s", said(w.get(s)))
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("%s: %s", what, time.Since(start).Round(time.Millisecond))
}

func sealedSecret(t *testing.T, cert crypto.Certificate, namespace, name, password string) string {
	t.Helper()
	text, err := crypto.SealValue(cert, crypto.Target{Namespace: namespace, Name: name, Scope: crypto.Strict}, crypto.NewSecretString(password), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{"apiVersion: bitnami.com/v1alpha1", "kind: SealedSecret", "metadata: {name: " + name + ", namespace: " + namespace + "}",
		"spec: {encryptedData: {password: " + text + "}}", ""}, "\n")
}
