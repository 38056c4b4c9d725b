package apply

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

func (w *world) configMap(name string) ID {
	return ID{Kind: "ConfigMap", Namespace: w.ns, Name: name}
}

// scribble changes the ConfigMap x of a world in two ways, as somebody and as a tool
// that applies by force.
func (w *world) scribble(ctx context.Context, text string) error {
	configMaps := w.client.CoreV1().ConfigMaps(w.ns)
	x, err := configMaps.Get(ctx, "x", metav1.GetOptions{})
	if err != nil {
		return err
	}
	x.Data = map[string]string{"v": text, "more": text}
	if _, err = configMaps.Update(ctx, x, metav1.UpdateOptions{FieldManager: "somebody"}); err != nil && !apierrors.IsConflict(err) {
		return err
	}
	body := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {v: tool-" + text + "}\n"
	force := true
	_, err = configMaps.Patch(ctx, "x", types.ApplyPatchType, []byte(body), metav1.PatchOptions{FieldManager: "tool", Force: &force})
	return err
}

func TestAnotherWriterWhoNeverRestsIsNoError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run.Drift = NewDrift(t.Context(), w.c, w.owner)
	other := newWorldOn(t, w.cp) // his client is not counted as the runner's
	other.ns = w.ns
	git := configMaps("x=git", "quiet=1")
	w.mustApply(git)

	ctx, rest := context.WithCancel(t.Context())
	var rounds atomic.Int32
	done := make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			n := rounds.Add(1)
			if err := other.scribble(t.Context(), fmt.Sprint(n)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	defer rest()
	passes := 0
	harness.Eventually(t, "both have written often", func(context.Context) error {
		if passes++; passes%2 == 0 {
			in := w.input(git)
			in.Drifted = w.run.Drift.Take()
			res := w.apply(in)
			if len(res.Failed)+len(res.Waiting)+len(res.Kept) > 0 {
				t.Fatalf("pass %d: failed %v, waiting %v, kept %v", passes, res.Failed, res.Waiting, res.Kept)
			}
		} else {
			d, _ := w.desired(git)
			res, err := w.run.Repair(t.Context(), w.inv, d, map[ID]string{w.configMap("x"): "again"})
			if err != nil || len(res.Failed)+len(res.Waiting) > 0 || len(res.Done) != 1 {
				t.Fatalf("repair %d: %+v, %v", passes, res, err)
			}
			w.inv = res.Inventory
		}
		if n := rounds.Load(); passes < 40 || n < 40 {
			return fmt.Errorf("%d passes, %d rounds of the other", passes, n)
		}
		return nil
	})
	rest()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Log("he rests, having had the last word, and one repair brings back git")
	if err := errors.Join(w.patch("x", `{"data":{"v":"last"}}`), w.patch("quiet", `{"data":{"v":"last"}}`)); err != nil {
		t.Fatal(err)
	}
	told := map[ID]string{}
	harness.Eventually(t, "the watch has told of all", func(context.Context) error {
		if maps.Copy(told, w.run.Drift.Take()); told[w.configMap("quiet")] == "" {
			return fmt.Errorf("it told of %v", told)
		}
		return nil
	})
	mark := w.cp.Mark()
	d, _ := w.desired(git)
	res, err := w.run.Repair(t.Context(), w.inv, d, told)
	if err != nil || len(res.Done) != 2 || len(res.Failed) > 0 {
		t.Fatalf("repair of %v: %+v, %v", told, res, err)
	}
	w.inv = res.Inventory
	if n := w.writes(mark, "configmaps"); n != 2 {
		t.Errorf("got %d writes, want one for each of two objects", n)
	}
	w.mustApply(git)
	w.holdsExactly(map[string]string{"x": "git", "quiet": "1"})
}

// between does something once, before the first request that a client sends of a kind.
func (p *player) between(which func(*http.Request) bool, do act) *Cluster {
	p.t.Helper()
	var done atomic.Bool
	return p.through(func(rt http.RoundTripper) roundTrip {
		return func(r *http.Request) (*http.Response, error) {
			if which(r) && !done.Swap(true) {
				if err := do(p); err != nil {
					return nil, err
				}
			}
			return rt.RoundTrip(r)
		}
	})
}

func ofType(contentType string) func(*http.Request) bool {
	return func(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("Content-Type"), contentType) }
}

func TestAWriterInTheMiddleOfATakeoverDoesNotSpoilIt(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	p.run.Cluster = p.between(ofType(string(types.JSONPatchType)), patch("ConfigMap/x", `{"metadata":{"labels":{"their":"own"}}}`))
	p.play(story{
		{meanwhile: func(p *player) error {
			r, name, err := p.at("ConfigMap/x")
			if err != nil {
				return err
			}
			_, err = r.Patch(p.t.Context(), name, types.ApplyPatchType, []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {v: old, gone: old}\n"), metav1.PatchOptions{FieldManager: "kustomize-controller"})
			return err
		}, git: configMaps("x=1"), done: "adopt ConfigMap/x", then: all(holds("ConfigMap/x", "data.v=1"), holds("ConfigMap/x", "data.gone="), holds("ConfigMap/x", "metadata.labels.their=own"))},
		{requests: "none"},
	})
}

func TestAWriterInTheMiddleDoesNotBringBackTheOwnerOfASecret(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	p.run.Cluster = p.between(ofType(string(types.MergePatchType)), patch("Secret/s", `{"metadata":{"labels":{"their":"own"}}}`))
	p.play(story{
		{meanwhile: create("apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  namespace: NS\n  ownerReferences: [{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, name: s, uid: 6a3c3c5e-0000-4000-8000-000000000000}]\n"),
			git: "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: NS}\nstringData: {v: a}\n", done: "adopt Secret/s",
			then: all(holds("Secret/s", "metadata.ownerReferences="), holds("Secret/s", "metadata.labels.their=own"))},
		{requests: "none"},
	})
}
