package apply

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/gitseal/gitseal/test/harness"
)

// wire passes connections on to the API server, while it is not cut.
type wire struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]bool
}

func newWire(t *testing.T, server string) *wire {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, to: u.Host, conns: map[net.Conn]bool{}}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			accepting.Go(func() { w.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		w.cut(true)
		accepting.Wait()
	})
	return w
}

// pass copies both ways until one end closes.
func (w *wire) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer server.Close()
	w.mu.Lock()
	if w.isCut {
		w.mu.Unlock()
		return
	}
	w.conns[client], w.conns[server] = true, true
	w.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // it ends when either end does
			_, _ = way[0].Close(), way[1].Close()
		})
	}
	both.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, client)
	delete(w.conns, server)
}

// cut ends all connections, and takes no more until it is mended.
func (w *wire) cut(isCut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = isCut
	for c := range w.conns {
		_ = c.Close() // whatever state it is in
	}
}

func TestWhatChangedWhileTheWatchesWereCutIsSeenAfterwards(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	cfg, err := p.cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	line := newWire(t, cfg.Host)
	cfg.Host, cfg.UserAgent = "https://"+line.listener.Addr().String(), "apply-test-watching-"+t.Name()
	c, err := Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.run.Drift, p.watched = NewDrift(t.Context(), c, p.owner), true
	unhealthy := func(want bool) {
		t.Helper()
		harness.Eventually(t, fmt.Sprint("the kind is unhealthy: ", want), func(context.Context) error {
			kinds := p.run.Drift.Unhealthy()
			if _, got := kinds[cm("").GroupKind()]; got != want || len(kinds) > 1 {
				return fmt.Errorf("unhealthy: %v", kinds)
			}
			return nil
		})
	}
	p.play(story{
		{git: configMaps("edited=1", "deleted=1", "unlabelled=1", "same=1", "left=1"), done: "create ConfigMap/edited, create ConfigMap/deleted, create ConfigMap/unlabelled, create ConfigMap/same, create ConfigMap/left"},
		idle, // once all watches have begun
	})
	line.cut(true)
	unhealthy(true)

	t.Log("meanwhile nothing of the kind is pruned")
	kept := configMaps("edited=1", "deleted=1", "unlabelled=1", "same=1")
	res := p.apply(p.input(kept))
	p.messages("kept", res.Kept, []string{"ConfigMap/NS/left: its kind can not be watched: the API server could not be reached"})
	if err := all(patch("ConfigMap/edited", `{"data":{"v":"theirs"}}`), remove("ConfigMap/deleted"), patch("ConfigMap/unlabelled", `{"metadata":{"labels":{"gitseal.io/sync":null}}}`))(p); err != nil {
		t.Fatal(err)
	}
	if drifted := p.run.Drift.Take(); len(drifted) > 0 {
		t.Errorf("seen through a cut line: %v", drifted)
	}
	mark := p.cp.Mark()
	line.cut(false)

	t.Log("and then all of it comes at once")
	p.git = p.text(kept)
	p.play(story{{
		drift:     []string{"ConfigMap/NS/deleted: it is not in the cluster any more", `ConfigMap/NS/edited: it was changed in the cluster, last by "somebody"`, "ConfigMap/NS/unlabelled: it is not in the cluster any more, or lost the label gitseal.io/sync"},
		done:      "change ConfigMap/edited, change ConfigMap/deleted, change ConfigMap/unlabelled",
		inventory: "ConfigMap/deleted applied, ConfigMap/edited applied, ConfigMap/left applied, ConfigMap/same applied, ConfigMap/unlabelled applied",
	}})
	unhealthy(false)
	p.play(story{
		{git: kept, done: "prune ConfigMap/left"},
		{meanwhile: patch("ConfigMap/same", `{"data":{"v":"theirs"}}`), drift: []string{"ConfigMap/NS/same: "}, done: "change ConfigMap/same"}, // the watch goes on
	})
	lists, err := p.cp.Requests(t.Context(), mark, func(e harness.AuditEvent) bool {
		return e.UserAgent == cfg.UserAgent && e.Resource == "configmaps" && (e.Verb == "list" || strings.Contains(e.RequestURI, "sendInitialEvents=true"))
	})
	if err != nil || len(lists) == 0 {
		t.Errorf("the kind was not listed anew: %v, %v", lists, err)
	}
}
