package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/gitseal/gitseal/test/harness"
)

// withSyncs installs the CRD and returns a client of Syncs in the agent's namespace.
func (e *env) withSyncs() dynamic.ResourceInterface {
	e.t.Helper()
	cfg, err := e.cp.RESTConfig()
	if err != nil {
		e.t.Fatal(err)
	}
	e.cp.InstallSyncs(e.t)
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		e.t.Fatal(err)
	}
	return client.Resource(harness.SyncsResource()).Namespace(e.system)
}

// replica starts an agent as a controller of the env's own namespace.
func (e *env) replica(more ...string) *agent {
	e.t.Helper()
	return e.startArgs(append([]string{"--kubeconfig", e.cp.Kubeconfig, "--namespace", e.system, "--watch-namespaces", e.system,
		"--metrics-bind-address", "0", "--health-probe-bind-address", "0", "--leader-election-lease-duration", "3s",
		"--leader-election-renew-deadline", "2s", "--leader-election-retry-period", "500ms"}, more...)...)
}

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
	e := newEnv(t)
	syncs := e.withSyncs()
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
	e.sync(syncs, "apps", "apps", nil)
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
			now, err := syncs.Get(ctx, "apps", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if hash, _, _ := unstructured.NestedString(now.Object, "status", "applied", "hash"); hash != e.repo.Head() {
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

// sync makes a Sync of a folder of the env's repository, and the Secret that it needs.
func (e *env) sync(client dynamic.ResourceInterface, name, path string, labels map[string]any) {
	e.t.Helper()
	credentials := secretObject("git", map[string][]byte{"username": []byte(gitUser), "password": []byte(gitPassword)})
	if _, err := e.client.CoreV1().Secrets(e.system).Create(e.t.Context(), credentials, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		e.t.Fatal(err)
	}
	s := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gitseal.io/v1alpha1", "kind": "Sync", "metadata": map[string]any{"name": name, "labels": labels},
		"spec": map[string]any{"source": map[string]any{"url": e.git.RepoURL("shop"), "secretRef": map[string]any{"name": "git"}}, "path": path, "interval": "1s"},
	}}
	if _, err := client.Create(e.t.Context(), s, metav1.CreateOptions{}); err != nil {
		e.t.Fatal(err)
	}
}

// Agents whose selectors do not overlap share the Syncs, and each has a leader.
func TestAgentsShareSyncsByLabel(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	syncs := e.withSyncs()
	shards := map[string]*agent{"a": nil, "b": nil}
	for shard := range shards {
		e.repo.Write("apps/"+shard+"/web.yaml", configMap(e.app, "web-"+shard, "shard", shard))
	}
	e.repo.Commit("both")
	for shard := range shards {
		e.sync(syncs, "apps-"+shard, "apps/"+shard, map[string]any{"shard": shard})
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
