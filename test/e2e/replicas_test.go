package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// leader waits until one of the agents leads.
func (e *env) leader(agents ...*agent) *agent {
	e.t.Helper()
	var out *agent
	e.eventually("an agent leads", func(context.Context) error {
		for _, a := range agents {
			if strings.Contains(a.log(), "msg=leading") {
				out = a
				return nil
			}
		}
		return fmt.Errorf("none of %d leads", len(agents))
	})
	return out
}

// A leader that is killed while it applies leaves its work to another one, who ends it;
// one that is asked to stop hands it over.
func TestALeaderThatDiesWhileItAppliesLosesNothing(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withSyncs()
	rounds := number(t, "GITSEAL_SOAK", soakRounds) / 10
	write := func(round int) {
		for i := range 60 {
			e.repo.Write(fmt.Sprintf("apps/%d.yaml", i), configMap(e.app, fmt.Sprintf("web-%d", i), "round", fmt.Sprint(round)))
		}
		e.repo.Remove(fmt.Sprintf("apps/extra-%d.yaml", round-1))
		e.repo.Write(fmt.Sprintf("apps/extra-%d.yaml", round), configMap(e.app, fmt.Sprintf("extra-%d", round), "round", fmt.Sprint(round)))
		e.repo.Commit(fmt.Sprint("round ", round))
	}
	e.repo.Write("apps/extra--1.yaml", "")
	write(0)
	e.makeSync(e.system, "apps", "  path: apps\n  interval: 1s\n")
	agents := []*agent{e.replica(), e.replica()}
	holds := func(round int) {
		t.Helper()
		e.eventually(fmt.Sprint("round ", round, " is applied"), func(ctx context.Context) error {
			l, err := e.client.CoreV1().ConfigMaps(e.app).List(ctx, metav1.ListOptions{LabelSelector: "gitseal.io/sync"})
			if err != nil {
				return err
			}
			want := map[string]bool{fmt.Sprintf("extra-%d", round): true}
			for i := range 60 {
				want[fmt.Sprintf("web-%d", i)] = true
			}
			for _, cm := range l.Items {
				if !want[cm.Name] || cm.Data["round"] != fmt.Sprint(round) {
					return fmt.Errorf("%s is of round %s", cm.Name, cm.Data["round"])
				}
				delete(want, cm.Name)
			}
			if len(want) > 0 {
				return fmt.Errorf("%d are missing", len(want))
			}
			if hash := e.kubectl("", "get", "sync", "apps", "-n", e.system, "-o", "jsonpath={.status.applied.hash}"); hash != e.repo.Head() {
				return fmt.Errorf("the status says %s", hash)
			}
			return nil
		})
	}
	holds(0)
	for round := 1; round <= rounds; round++ {
		leads := e.leader(agents...)
		write(round)
		e.eventually("it applies", func(ctx context.Context) error {
			l, err := e.client.CoreV1().ConfigMaps(e.app).List(ctx, metav1.ListOptions{LabelSelector: "gitseal.io/sync"})
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(l.Items, func(cm corev1.ConfigMap) bool { return cm.Data["round"] == fmt.Sprint(round) }) {
				return fmt.Errorf("nothing of round %d yet", round)
			}
			return nil
		})
		if round%3 == 0 {
			leads.stop()
		} else {
			leads.kill()
		}
		agents = append(slices.DeleteFunc(agents, func(a *agent) bool { return a == leads }), e.replica())
		holds(round)
	}
	last := e.leader(agents...)
	last.stop()
	e.leader(slices.DeleteFunc(agents, func(a *agent) bool { return a == last })...)
}

// Agents whose selectors do not overlap share the Syncs, and each has a leader.
func TestAgentsShareSyncsByLabel(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withSyncs()
	shards := map[string]*agent{"a": nil, "b": nil}
	for shard := range shards {
		e.repo.Write("apps/"+shard+"/web.yaml", configMap(e.app, "web-"+shard, "shard", shard))
	}
	e.repo.Commit("both")
	for shard := range shards {
		e.makeSync(e.system, "apps-"+shard, "  path: apps/"+shard+"\n  interval: 1s\n")
		e.kubectl("", "label", "sync", "apps-"+shard, "-n", e.system, "shard="+shard)
		shards[shard] = e.replica("--watch-label-selector", "shard="+shard)
	}
	for shard, agent := range shards {
		e.eventually("shard "+shard, func(ctx context.Context) error { return e.configMapValue(ctx, "web-"+shard, "shard", shard) })
		for other := range shards {
			if other != shard && strings.Contains(agent.log(), "apps-"+other) {
				t.Errorf("the agent of shard %s has to do with Sync apps-%s", shard, other)
			}
		}
	}
}
