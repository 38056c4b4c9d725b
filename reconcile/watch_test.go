package reconcile

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

func TestAnObjectThatAskedToBeLeftAloneIsAlsoAfterARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configMap("a", "1")
	w.repo.Commit("one")
	if r := w.once().Pass(t.Context()); r.Err() != nil {
		t.Fatal(r.Err())
	}
	hold := []byte(`{"metadata":{"annotations":{"gitseal.io/reconcile":"disabled"}},"data":{"v":"by hand"}}`)
	if _, err := w.admin.CoreV1().ConfigMaps(w.app).Patch(t.Context(), "a", types.MergePatchType, hold, metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	w.configMap("a", "2")
	w.configMap("b", "1")
	w.repo.Commit("two")
	w.wrap = func(rt http.RoundTripper) http.RoundTripper { return lateWatches{rt} }
	w.start()
	w.eventually("the commit is applied", func() error { return w.holds("b", "1") })
	if err := w.holds("a", "by hand"); err != nil {
		t.Error(err)
	}
	if _, err := w.admin.CoreV1().ConfigMaps(w.app).Patch(t.Context(), "a", types.MergePatchType, []byte(`{"metadata":{"annotations":null}}`), metav1.PatchOptions{FieldManager: "somebody"}); err != nil {
		t.Fatal(err)
	}
	w.eventually("git holds again", func() error { return w.holds("a", "2") })
}

// lateWatches begin when the tree has long been built.
type lateWatches struct{ http.RoundTripper }

func (l lateWatches) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Query().Get("labelSelector"), "gitseal.io/sync=") {
		time.Sleep(time.Second)
	}
	return l.RoundTripper.RoundTrip(r)
}

func TestWhatADeafWatchMissesIsRepairedByTheAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Audit = 500 * time.Millisecond
	var on atomic.Bool
	w.wrap = func(rt http.RoundTripper) http.RoundTripper { return harness.Deaf(rt, &on) }
	w.configMap("a", "1")
	w.repo.Commit("one")
	w.start()
	w.eventually("it is applied", func() error { return w.holds("a", "1") })
	w.eventually("an audit finds nothing", func() error {
		if !strings.Contains(w.log.String(), "audit: the watches missed nothing") {
			return errors.New("not yet")
		}
		return nil
	})
	on.Store(true)
	if err := w.edit("a", "edited"); err != nil {
		t.Fatal(err)
	}
	w.eventually("it is repaired", func() error { return w.holds("a", "1") })
	w.eventually("it is said", func() error {
		if !strings.Contains(w.log.String(), `msg="audit: objects had drifted that the watches did not tell of" objects=1`) {
			return errors.New("not yet")
		}
		return context.Cause(t.Context())
	})
}
