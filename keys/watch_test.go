package keys

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/test/harness"
)

// keeper follows the keys of the installation; change may set more of it.
func (in *installation) keeper(s Store, change func(*Keeper)) (Keeper, *harness.Log) {
	in.t.Helper()
	log := &harness.Log{}
	k := Keeper{Store: s, Metadata: in.metadata(), Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	if change != nil {
		change(&k)
	}
	return k, log
}

// metadata is a client that is counted as the store's is.
func (in *installation) metadata() metadata.Interface {
	in.t.Helper()
	cfg, err := in.cp.RESTConfig()
	if err != nil {
		in.t.Fatal(err)
	}
	cfg.UserAgent = in.ns
	md, err := metadata.NewForConfig(cfg)
	if err != nil {
		in.t.Fatal(err)
	}
	return md
}

// run runs a Keeper for the length of the test, or until stop.
func (in *installation) run(k Keeper, r *Ring) (stop func()) {
	in.t.Helper()
	ctx, cancel := context.WithCancel(in.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Run(ctx, r)
	}()
	stop = func() {
		cancel()
		select {
		case <-done:
		case <-time.After(30 * time.Second):
			in.t.Error("Run does not end with its context")
		}
	}
	in.t.Cleanup(stop)
	return stop
}

// keep runs a Keeper that knows the keys of now.
func (in *installation) keep(s Store) (log *harness.Log, stop func()) {
	in.t.Helper()
	k, log := in.keeper(s, nil)
	return log, in.run(k, in.ring())
}

// watched waits until both watches have begun.
func (in *installation) watched(since harness.Mark) {
	in.t.Helper()
	in.eventually("two watches", func() error {
		seen := map[string]bool{}
		for _, r := range in.requests(since) {
			if r.Verb == "watch" {
				seen[r.Resource] = true
			}
		}
		if len(seen) != 2 {
			return fmt.Errorf("only %v", seen)
		}
		return nil
	})
}

func (in *installation) eventually(what string, check func() error) {
	in.t.Helper()
	harness.Eventually(in.t, what, func(context.Context) error { return check() })
}

func TestKeeperPutsBackAndIsSilentOtherwise(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"another recipient", "binary data", "its deletion"} {
		edit := edits()[what]
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t)
			public := in.ready()
			if _, _, err := in.store().Publish(t.Context(), public); err != nil {
				t.Fatal(err)
			}
			mark := in.cp.Mark()
			log, _ := in.keep(in.store())
			in.watched(mark)
			time.Sleep(time.Second)
			for _, r := range in.requests(mark) {
				only := map[string]string{"configmaps": "fieldSelector=metadata.name%3D" + PublicConfigMap, "secrets": "labelSelector=gitseal.io%2Fkey"}[r.Resource]
				if only == "" || (r.Verb != "watch" && r.Verb != "list") || !strings.Contains(r.RequestURI, only) {
					t.Errorf("before anything changed it sent %s %s", r.Verb, r.RequestURI)
				}
			}

			mark = in.cp.Mark()
			in.edit(edit)
			in.eventually("it is put back", func() error { return in.publishedIs(public) })
			time.Sleep(2500 * time.Millisecond) // what its own write sets off would come now
			if w := in.writes(mark); len(w) != 1 {
				t.Errorf("it sent %v, want one write", w)
			}
			mark = in.cp.Mark()
			time.Sleep(time.Second)
			if r := in.requests(mark); len(r) > 0 {
				t.Errorf("then it sent %+v", r)
			}
			if n := strings.Count(log.String(), "changed in the cluster and put back"); n != 1 {
				t.Errorf("%d messages, want one:\n%s", n, log)
			}
			if strings.Contains(log.String(), public.Recipients[0].String()) || strings.Contains(log.String(), "CERTIFICATE") {
				t.Errorf("the log holds content:\n%s", log)
			}
		})
	}
}

func TestKeeperMakesWhatIsMissingAtTheStart(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	public := in.ready()
	in.keep(in.store())
	in.eventually("it is published", func() error { return in.publishedIs(public) })
}

func TestKeeperDoesNotUndoARotation(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	old := in.ready()
	if _, _, err := in.store().Publish(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	mark := in.cp.Mark()
	in.keep(in.store())
	in.watched(mark)
	in.put(in.sample(1, 2, Active).secret(in.ns))
	rotated := in.public()
	if rotated.Recipients[0].String() == old.Recipients[0].String() {
		t.Fatal("the rotation changed nothing")
	}
	if _, _, err := in.store().Publish(t.Context(), rotated); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	if err := in.publishedIs(rotated); err != nil {
		t.Error(err)
	}
	in.edit(nil)
	in.eventually("what is put back is the new generation", func() error { return in.publishedIs(rotated) })
}

// failing drops requests that change ConfigMaps while it is on.
type failing struct {
	http.RoundTripper
	on      *atomic.Bool
	dropped *atomic.Int32
}

func (f failing) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.on.Load() && r.Method != http.MethodGet && strings.Contains(r.URL.Path, "/configmaps") {
		f.dropped.Add(1)
		return nil, errors.New("connection lost")
	}
	return f.RoundTripper.RoundTrip(r)
}

func TestKeeperTriesAgainWithPauses(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	public := in.ready()
	if _, _, err := in.store().Publish(t.Context(), public); err != nil {
		t.Fatal(err)
	}
	var on atomic.Bool
	var dropped atomic.Int32
	on.Store(true)
	s := in.store()
	s.Client = in.as(func(c *rest.Config) {
		c.UserAgent = in.ns
		c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return failing{rt, &on, &dropped} })
	})
	mark := in.cp.Mark()
	log, _ := in.keep(s)
	in.watched(mark)
	in.edit(func(c *corev1.ConfigMap) { c.Data[RecipientsKey] = "KEEP-CANARY" })
	time.Sleep(4 * time.Second)
	if n := dropped.Load(); n < 2 || n > 4 { // at 0, 1 and 3 s
		t.Errorf("%d tries in four seconds, want two to four", n)
	}
	on.Store(false)
	in.eventually("it is put back", func() error { return in.publishedIs(public) })
	if !strings.Contains(log.String(), "could not be followed or published") || strings.Contains(log.String(), "KEEP-CANARY") {
		t.Errorf("log:\n%s", log)
	}
}

func TestKeeperIsNotDrivenByAnInsistentWriter(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	public := in.ready()
	if _, _, err := in.store().Publish(t.Context(), public); err != nil {
		t.Fatal(err)
	}
	mark := in.cp.Mark()
	_, stop := in.keep(in.store())
	in.watched(mark)
	n := 0
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if in.tryEdit(func(c *corev1.ConfigMap) { c.Data[RecipientsKey] += "#\n" }) == nil { // a conflict is no edit
			n++
		}
	}
	w := in.writes(mark)
	t.Logf("%d edits, %d corrections", n, len(w))
	if len(w) < 2 || len(w) > 5 || n < 30 { // at 0, 1 and 3 s, and what the first events leave
		t.Errorf("%d edits, and it sent %v", n, w)
	}
	stop()
	mark = in.cp.Mark()
	in.edit(func(c *corev1.ConfigMap) { c.Data = nil })
	time.Sleep(time.Second)
	if r := in.requests(mark); len(r) > 0 {
		t.Errorf("after its end it sent %+v", r)
	}
}
