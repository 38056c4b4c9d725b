package apply

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestANewerCommitEndsWaits(t *testing.T) {
	t.Parallel()
	var looks, looking atomic.Int32
	found := make(chan struct{})
	w := newWaits(t.Context(), func(ctx context.Context) bool {
		looks.Add(1)
		looking.Add(1)
		defer looking.Add(-1)
		select {
		case <-found:
			return true
		case <-ctx.Done():
			return false
		}
	})
	t.Log("several waits at once share one look, which ends with the last of them")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, over := w.begin(t.Context())
			time.Sleep(time.Millisecond)
			over()
		})
	}
	all.Wait()
	if looking.Load() != 0 || looks.Load() < 1 || w.cutShort() {
		t.Fatalf("%d looks go on, of %d; cut short: %v", looking.Load(), looks.Load(), w.cutShort())
	}
	t.Log("what is found ends those that wait, and those that come later at once")
	before := looks.Load()
	first, overFirst := w.begin(t.Context())
	second, overSecond := w.begin(t.Context())
	close(found)
	for _, ctx := range []context.Context{first, second} {
		<-ctx.Done()
		if !cutShort(ctx) {
			t.Errorf("it ended by %v", context.Cause(ctx))
		}
	}
	overFirst()
	overSecond()
	third, overThird := w.begin(t.Context())
	<-third.Done()
	overThird()
	if n := looks.Load() - before; n != 1 || !cutShort(third) || !w.cutShort() {
		t.Errorf("%d looks, want one; the third was ended by %v", n, context.Cause(third))
	}
	t.Log("a run that is cancelled, or nobody to ask, is something else")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, w := range []*waits{nil, newWaits(ctx, func(ctx context.Context) bool { <-ctx.Done(); return false })} {
		waiting, over := w.begin(ctx)
		cancel()
		<-waiting.Done()
		if over(); cutShort(waiting) || w.cutShort() {
			t.Error("it counts as cut short by a newer commit")
		}
	}
}

func TestANewerCommitEndsTheWaitForADefinition(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	usual := p.run.Cluster
	p.run.Cluster = p.through(func(rt http.RoundTripper) roundTrip {
		return func(r *http.Request) (*http.Response, error) {
			resp, err := rt.RoundTrip(r)
			if err == nil && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/customresourcedefinitions/") { // an API server that takes its time
				_ = resp.Body.Close()
				resp.Body = io.NopCloser(strings.NewReader("{}"))
				resp.Header, resp.ContentLength = http.Header{"Content-Type": {"application/json"}}, -1
			}
			return resp, err
		}
	})
	p.run.Newer = func(ctx context.Context) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(300 * time.Millisecond):
			return true
		}
	}
	in := p.input(p.text(versions("true", "false") + newVersion + widget("v1")))
	res := p.apply(in)
	p.messages("waiting", res.Waiting, []string{"CustomResourceDefinition/widgets.GROUP: a newer commit is there", "Widget/NS/one: waits for CustomResourceDefinition/widgets.GROUP"})
	if !res.Newer || len(res.Failed) > 0 {
		t.Errorf("newer %v, failed %v", res.Newer, res.Failed)
	}
	p.inventory(in.Desired, "CustomResourceDefinition/widgets.GROUP intended, Widget/one intended")
	p.run.Cluster, p.run.Newer = usual, nil
	if res = p.apply(in); len(res.Done) != 2 || res.Newer {
		t.Errorf("the next run: done %v, newer %v, failed %v", res.Done, res.Newer, res.Failed)
	}
}

func TestANewerCommitIsNoSilenceOfTheController(t *testing.T) {
	t.Parallel()
	w := newWaits(t.Context(), func(context.Context) bool { return true })
	ctx, over := w.begin(t.Context())
	defer over()
	<-ctx.Done()
	if err := (&Runner{}).silent(ctx, ctx.Err()); !errors.Is(err, errNewer) {
		t.Errorf("got %v", err)
	}
}
