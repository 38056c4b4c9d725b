package reconcile

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const pending = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: pending}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: none}\n"

func TestANewerCommitEndsTheWaitForAnOlderOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Wait = 4 * time.Second
	w.configMap("a", "1")
	w.repo.Write("pending.yaml", pending)
	first := w.repo.Commit("never ready")
	w.start()
	w.eventually("it is applied", func() error { return w.holds("a", "1") })
	w.repo.Remove("pending.yaml")
	w.configMap("a", "2")
	second := w.repo.Commit("what has a status is gone")
	w.eventually("the second is ready", func() error {
		if !strings.Contains(w.log.String(), "msg=ready commit="+second) {
			return errors.New("not yet")
		}
		return nil
	})
	time.Sleep(5 * time.Second) // the first would have been judged by now
	if log := w.log.String(); strings.Contains(log, "msg=ready commit="+first) || strings.Contains(log, "health:") {
		t.Errorf("the first was judged:\n%s", log)
	}
}

func TestWhatDoesNotBecomeReadyIsReportedAndHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Wait = time.Second
	w.configMap("a", "1")
	w.repo.Write("pending.yaml", pending)
	w.repo.Commit("never ready")
	reports := w.start()
	w.eventually("it is reported", func() error {
		for _, r := range reports() {
			if slices.Contains(stagesOf(r), Health) && strings.Contains(r.Err().Error(), "PersistentVolumeClaim/"+w.app+"/pending: is not ready after 1s") {
				return nil
			}
		}
		return errors.New("not yet")
	})
	if err := w.edit("a", "edited"); err != nil {
		t.Fatal(err)
	}
	w.eventually("drift is repaired", func() error { return w.holds("a", "1") })

	t.Log("a single pass waits, too")
	s := w.once()
	r := s.Pass(t.Context())
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	if s.AwaitReady(t.Context(), &r); !slices.Equal(stagesOf(r), []Stage{Health}) {
		t.Errorf("failures: %v", r.Failures)
	}
}
