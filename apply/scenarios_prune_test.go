package apply

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// keepX forbids to delete the ConfigMaps x of the story.
func keepX(p *player) error {
	return all(refuse("DELETE", "", "configmaps", "request.namespace.startsWith('NS') && request.name == 'x'", "x is precious"), eventually(refuses(deletable)))(p)
}

// deletable checks whether x may be deleted, without deleting it.
func deletable(p *player) error {
	return p.client.CoreV1().ConfigMaps(p.ns).Delete(p.t.Context(), "x", metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
}

func refuses(a act) act {
	return func(p *player) error {
		if err := a(p); !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
			return errors.New("it is not refused yet")
		}
		return nil
	}
}

func loseInventory(p *player) error {
	return p.client.CoreV1().Secrets(p.ns).DeleteCollection(p.t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: inventoryLabel})
}

// copied carries the label of the story's Sync, but nobody applied it.
const copied = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: copy, namespace: NS, labels: {gitseal.io/sync: NS.test}}\n"

// strays checks which objects of this Sync are not in its inventory; one that is still
// being deleted is not told.
func strays(want string) act {
	return func(p *player) error {
		var got []string
		for _, id := range p.run.Strays(p.t.Context(), p.inv) {
			got = append(got, short(id))
		}
		if got := strings.Join(got, ", "); got != want {
			return fmt.Errorf("strays are %q, want %q", got, want)
		}
		return nil
	}
}

var pruneStories = map[string]story{
	// 21
	"a renamed object is made first and then the old one goes": {
		{git: configMaps("a=1"), done: "create ConfigMap/a"},
		{git: configMaps("b=1"), done: "create ConfigMap/b, prune ConfigMap/a", cluster: "ConfigMap/a gone, ConfigMap/b made",
			requests: "delete configmaps/a, get configmaps/a, patch configmaps/b", order: "patch configmaps/b, get configmaps/a, delete configmaps/a"},
	},
	// 18, 29, hazard: empty render
	"a commit without any object prunes nothing, and with the next one all goes on": {
		{git: configMaps("a=1", "b=1"), done: "create ConfigMap/a, create ConfigMap/b"},
		{plan: func(in *PlanInput) { in.Desired = nil }, blocked: "git renders no objects", requests: "none", cluster: "ConfigMap/a same, ConfigMap/b same", inventory: "ConfigMap/a applied, ConfigMap/b applied"},
		{git: configMaps("a=1", "b=1"), requests: "none", cluster: "ConfigMap/a same, ConfigMap/b same"},
		{git: configMaps("a=1"), done: "prune ConfigMap/b"},
	},
	// 17, 26, hazard: DELETE rejected
	"a delete that was refused is reported, kept in the inventory and tried again": {
		{git: configMaps("x=1", "z=1", "keep=1"), done: "create ConfigMap/x, create ConfigMap/z, create ConfigMap/keep"},
		{meanwhile: keepX, git: configMaps("keep=1"), done: "prune ConfigMap/z",
			kept: []string{"ConfigMap/NS/x: the API server refused it: Invalid (422)"}, inventory: "ConfigMap/keep applied, ConfigMap/x applied",
			cluster: "ConfigMap/keep same, ConfigMap/x same, ConfigMap/z gone"},
		{kept: []string{"x is precious"}, inventory: "ConfigMap/keep applied, ConfigMap/x applied", requests: "delete configmaps/x, get configmaps/x"},
		{meanwhile: all(allowAgain, eventually(deletable)), done: "prune ConfigMap/x"},
	},
	// 27, hazard: NoMatch stuck
	"a CRD that somebody deleted does not hold up what left git with it": {
		{meanwhile: create(strings.TrimSuffix(versions("true", "false")+newVersion, "---\n")), git: configMaps("keep=1"), done: "create ConfigMap/keep"},
		{meanwhile: eventually(served), git: widget("v1") + "---\n" + configMaps("keep=1"), done: "create Widget/one"},
		{meanwhile: all(remove("CustomResourceDefinition/widgets.GROUP"), gone("CustomResourceDefinition/widgets.GROUP"), eventually(notServed)), git: configMaps("keep=1"), drift: []string{"Widget/NS/one: it is not in the cluster any more"}},
		{requests: "none"},
	},
	// 27
	"a CRD that somebody deleted comes back with its objects": {
		{git: versions("true", "false") + newVersion + widget("v1"), done: "create CustomResourceDefinition/widgets.GROUP, create Widget/one"},
		{meanwhile: all(remove("CustomResourceDefinition/widgets.GROUP"), gone("CustomResourceDefinition/widgets.GROUP"), eventually(notServed)),
			drift:   []string{"CustomResourceDefinition/widgets.GROUP: it is not in the cluster any more", "Widget/NS/one: it is not in the cluster any more"},
			done:    "change CustomResourceDefinition/widgets.GROUP, change Widget/one",
			cluster: "CustomResourceDefinition/widgets.GROUP made, Widget/one made"},
	},
	// 25, hazard: copied labels
	"an object that only carries our label is nobody's to prune": {
		{meanwhile: create(copied), git: configMaps("a=1"), done: "create ConfigMap/a", then: holds("ConfigMap/copy", "metadata.name=copy")},
		{git: configMaps("b=1"), done: "create ConfigMap/b, prune ConfigMap/a", then: holds("ConfigMap/copy", "metadata.name=copy")},
	},
	// hazard: inventory lost
	"after the inventory was lost git's objects are found again and all others stay": {
		{git: configMaps("a=1", "b=1"), done: "create ConfigMap/a, create ConfigMap/b"},
		{meanwhile: all(create(copied), loseInventory), git: configMaps("a=1"), done: "adopt ConfigMap/a", cluster: "ConfigMap/a same, ConfigMap/b same", requests: "patch configmaps/a", then: strays("ConfigMap/b")},
		{requests: "none", cluster: "ConfigMap/a same, ConfigMap/b same"},
		{git: configMaps("a=1", "b=1"), done: "adopt ConfigMap/b", then: strays("")},
	},
	// hazard: namespace in prune set
	"the agent's own namespace is kept when it leaves git": {
		{git: namespace("NS", "") + configMaps("a=1"), done: "adopt Namespace/NS, create ConfigMap/a"},
		{git: namespace("NS-b", ""), done: "create Namespace/NS-b, prune ConfigMap/a", kept: []string{"Namespace/NS: holds Secret/gitseal-inventory-"},
			inventory: "Namespace/NS applied, Namespace/NS-b applied", cluster: "ConfigMap/a gone, Namespace/NS same, Namespace/NS-b made"},
	},
	// hazards: namespace in prune set, retain annotation
	"a namespace with an object that asked to be kept stays with it": {
		{git: namespace("NS-in", "") + strings.ReplaceAll(configMaps("a=1"), "namespace: NS", `namespace: NS-in, annotations: {gitseal.io/prune: disabled}`) + "---\n" + configMaps("keep=1"), done: "create Namespace/NS-in, create ConfigMap/a, create ConfigMap/keep"},
		{git: configMaps("keep=1"), kept: []string{"Namespace/NS-in: holds ConfigMap/a"}, inventory: "ConfigMap/keep applied, Namespace/NS-in applied", cluster: "ConfigMap/a changed, ConfigMap/keep same, Namespace/NS-in same"},
	},
	// hazard: namespace in prune set
	"a namespace with objects of another Sync stays": {
		{git: namespace("NS-in", "") + configMaps("keep=1"), done: "create Namespace/NS-in, create ConfigMap/keep"},
		{meanwhile: otherSync("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other, namespace: NS-in}\n", ""), git: configMaps("keep=1"), kept: []string{"Namespace/NS-in: holds ConfigMap/other"},
			inventory: "ConfigMap/keep applied, Namespace/NS-in applied", cluster: "ConfigMap/keep same, Namespace/NS-in same"},
	},
	// hazard: Terminating namespaces and finalizers
	"what a finalizer holds is remembered until it is gone": {
		{git: namespace("NS-in", "") + inside("NS-in", configMaps("held=1", "free=1")) + "---\n" + configMaps("keep=1"),
			done: "create Namespace/NS-in, create ConfigMap/held, create ConfigMap/free, create ConfigMap/keep"},
		{meanwhile: patch("ConfigMap/NS-in/held", `{"metadata":{"finalizers":["example.com/hold"]}}`), git: configMaps("keep=1"),
			done:      "prune ConfigMap/free, prune ConfigMap/held, prune Namespace/NS-in",
			inventory: "ConfigMap/held terminating, ConfigMap/keep applied, Namespace/NS-in terminating", cluster: "ConfigMap/free gone, ConfigMap/held leaving, ConfigMap/keep same, Namespace/NS-in leaving"},
		{requests: "get configmaps/held, get namespaces/NS-in", inventory: "ConfigMap/held terminating, ConfigMap/keep applied, Namespace/NS-in terminating"},
		{meanwhile: all(patch("ConfigMap/NS-in/held", `{"metadata":{"finalizers":null}}`), gone("Namespace/NS-in")), requests: "get configmaps/held, get namespaces/NS-in"},
	},
	// hazard: Terminating namespaces and finalizers
	"an object that comes back to git while it is being deleted is made anew": {
		{git: configMaps("a=1", "keep=1"), done: "create ConfigMap/a, create ConfigMap/keep"},
		{meanwhile: patch("ConfigMap/a", `{"metadata":{"finalizers":["example.com/hold"]}}`), git: configMaps("keep=1"), done: "prune ConfigMap/a", inventory: "ConfigMap/a terminating, ConfigMap/keep applied"},
		{git: configMaps("a=1", "keep=1"), done: "change ConfigMap/a", cluster: "ConfigMap/a leaving, ConfigMap/keep same"},
		{meanwhile: all(patch("ConfigMap/a", `{"metadata":{"finalizers":null}}`), gone("ConfigMap/a")), drift: []string{"ConfigMap/NS/a: it is not in the cluster any more"},
			done: "change ConfigMap/a", cluster: "ConfigMap/a made, ConfigMap/keep same"},
	},
	// 16, 24, hazard: retain annotation
	"an object that git itself asked to keep stays when it leaves git": {
		{git: strings.ReplaceAll(configMaps("a=1"), "namespace: NS", `namespace: NS, annotations: {argocd.argoproj.io/sync-options: "Validate=false,Prune=false"}`) + "---\n" + configMaps("keep=1"), done: "create ConfigMap/a, create ConfigMap/keep"},
		{git: configMaps("keep=1"), requests: "get configmaps/a, patch configmaps/a", cluster: "ConfigMap/a changed, ConfigMap/keep same", then: holds("ConfigMap/a", "metadata.labels=")},
		{requests: "none"},
	},
	// 19, hazard: object moved from one Sync to another
	"an object that moves to another Sync without more ado is refused there until it is gone here": {
		{git: configMaps("x=1", "keep=1"), done: "create ConfigMap/x, create ConfigMap/keep"},
		{meanwhile: otherSync(configMaps("x=2"), "ConfigMap/NS/x: the Sync NS/test has applied it already"), cluster: "ConfigMap/keep same, ConfigMap/x same", requests: "none"},
		{git: configMaps("keep=1"), done: "prune ConfigMap/x"},
		{meanwhile: otherSync(configMaps("x=2"), ""), git: configMaps("x=3", "keep=1"), failed: []string{"ConfigMap/NS/x: the Sync NS/other has applied it already; remove it from one of the two"},
			inventory: "ConfigMap/keep applied, ConfigMap/x intended", requests: "patch configmaps/x", cluster: "ConfigMap/keep same, ConfigMap/x same"},
		{git: configMaps("keep=1"), cluster: "ConfigMap/keep same, ConfigMap/x same", requests: "get configmaps/x"},
	},
	// 26
	"prunes go from the highest wave down, also in a process that did not apply them": {
		{git: wave("low", "-1", "{}") + wave("high", "2", "{}") + wave("mid", "1", "{}") + configMaps("keep=1"), done: "create ConfigMap/low, create ConfigMap/high, create ConfigMap/mid, create ConfigMap/keep",
			order: "patch configmaps/low, patch configmaps/keep, patch configmaps/mid, patch configmaps/high"},
		{git: configMaps("keep=1"), done: "prune ConfigMap/high, prune ConfigMap/mid, prune ConfigMap/low", order: "delete configmaps/high, delete configmaps/mid, delete configmaps/low"},
	},
}

// otherSync applies manifests to the same namespace; refusal is a part of the only
// failure, "" for none.
func otherSync(manifests, refusal string) act {
	return func(p *player) error {
		other := p.sibling("other")
		res := other.apply(other.input(manifests))
		if got := fmt.Sprint(res.Failed); len(res.Failed) > 1 || (refusal == "") != (len(res.Failed) == 0) || !strings.Contains(got, p.text(refusal)) {
			return fmt.Errorf("failed: %s, want %s", got, refusal)
		}
		return nil
	}
}

func served(p *player) error {
	_, err := p.client.Discovery().ServerResourcesForGroupVersion(p.group + "/v1")
	return err
}

func notServed(p *player) error {
	if served(p) == nil {
		return errors.New("the group is still served")
	}
	return nil
}

// Hazard: an object that moves elsewhere at the moment of its prune.
func TestAnObjectThatChangesAtTheMomentOfItsPruneIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	const twice = "delete configmaps/x, get configmaps/x, get configmaps/x"
	for name, c := range map[string]struct {
		change act
		want   step
	}{
		"it is annotated":        {patch("ConfigMap/x", `{"metadata":{"annotations":{"gitseal.io/prune":"disabled"}}}`), step{requests: twice + ", patch configmaps/x", then: holds("ConfigMap/x", "metadata.labels=")}},
		"another Sync takes it":  {patch("ConfigMap/x", `{"metadata":{"labels":{"gitseal.io/sync":"other.sync"}}}`), step{requests: twice, then: holds("ConfigMap/x", "metadata.name=x")}},
		"somebody makes it anew": {all(remove("ConfigMap/x"), create(configMaps("x=theirs"))), step{requests: twice, then: holds("ConfigMap/x", "data.v=theirs")}},
		"somebody edits it":      {patch("ConfigMap/x", `{"data":{"v":"2"}}`), step{requests: "delete configmaps/x, " + twice, done: "prune ConfigMap/x", then: gone("ConfigMap/x")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlayer(t, false)
			p.step(step{git: configMaps("x=1", "keep=1"), done: "create ConfigMap/x, create ConfigMap/keep"})
			var once sync.Once
			var err error
			p.run.Cluster = p.through(func(rt http.RoundTripper) roundTrip {
				return func(r *http.Request) (*http.Response, error) {
					if r.Method == http.MethodDelete {
						once.Do(func() { err = c.change(p) })
					}
					return rt.RoundTrip(r)
				}
			})
			c.want.git = configMaps("keep=1")
			p.step(c.want)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// Hazard: what is known of a kind may be old.
func TestAKindThatCanNotBeWatchedIsNotPruned(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	var blind atomic.Bool
	blind.Store(true)
	c := p.through(func(rt http.RoundTripper) roundTrip {
		return func(r *http.Request) (*http.Response, error) {
			if blind.Load() && strings.HasSuffix(r.URL.Path, "/configmaps") {
				return nil, errors.New("no route")
			}
			return rt.RoundTrip(r)
		}
	})
	p.run.Drift = NewDrift(t.Context(), c, p.owner)
	watched := func(want int) act {
		return eventually(func(p *player) error {
			if got := p.run.Drift.Unhealthy(); len(got) != want {
				return fmt.Errorf("unhealthy: %v", got)
			}
			return nil
		})
	}
	sees := func(*player) error {
		blind.Store(false)
		return nil
	}
	const role = "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: r, namespace: NS}\n"
	p.play(story{
		{git: configMaps("a=1", "keep=1") + role, done: "create ConfigMap/a, create ConfigMap/keep, create Role/r"},
		{meanwhile: watched(1), git: configMaps("keep=1"), done: "prune Role/r", kept: []string{"ConfigMap/NS/a: its kind can not be watched"},
			inventory: "ConfigMap/a applied, ConfigMap/keep applied", cluster: "ConfigMap/a same, ConfigMap/keep same, Role/r gone"},
		{meanwhile: all(sees, watched(0)), done: "prune ConfigMap/a"},
	})
}

// 30, hazards: discovery or an aggregated API is down, unknown scope.
func TestABrokenAPIServiceHoldsUpOnlyItsOwnObjects(t *testing.T) {
	t.Parallel()
	p := newPlayerIn(newWorldOn(t, harness.NewControlPlane(t)), false)
	p.play(story{
		{git: configMaps("a=1", "keep=1") + "---\n" + namespace("NS-in", ""), done: "create ConfigMap/a, create ConfigMap/keep, create Namespace/NS-in"},
		{meanwhile: all(create(brokenAPI), rememberBroken), git: configMaps("keep=2", "new=1") + "---\n" + namespace("NS-in", ""), done: "change ConfigMap/keep, create ConfigMap/new, prune ConfigMap/a",
			kept:      []string{"Thing/NS/x: the API server refused it: ServiceUnavailable (503)"},
			inventory: "ConfigMap/keep applied, ConfigMap/new applied, Namespace/NS-in applied, Thing/x intended"},
		{git: configMaps("keep=2"), done: "prune ConfigMap/new", kept: []string{"Namespace/NS-in: holds objects that could not be listed", "Thing/NS/x: "},
			inventory: "ConfigMap/keep applied, Namespace/NS-in applied, Thing/x intended"},
		{meanwhile: all(remove("APIService/v1.GROUP"), eventually(notServed)), done: "prune Namespace/NS-in", inventory: "ConfigMap/keep applied, Namespace/NS-in terminating"},
	})
}

const brokenAPI = `apiVersion: v1
kind: Service
metadata: {name: broken, namespace: NS}
spec: {ports: [{port: 443}]}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.GROUP}
spec: {group: GROUP, version: v1, groupPriorityMinimum: 1000, versionPriority: 15, insecureSkipTLSVerify: true, service: {name: broken, namespace: NS}}
`

// rememberBroken writes an object of the broken API into the inventory.
func rememberBroken(p *player) error {
	p.inv.Entries[ID{Group: p.group, Kind: "Thing", Namespace: p.ns, Name: "x"}] = Entry{Version: "v1", Resource: "things", Phase: Intended}
	return errors.Join(p.run.Store.Save(p.t.Context(), p.inv), eventually(func(p *player) error {
		if _, err := p.client.Discovery().ServerGroups(); err != nil {
			return err
		}
		_, err := p.client.Discovery().ServerResourcesForGroupVersion(p.group + "/v1")
		if !apierrors.IsServiceUnavailable(err) {
			return errors.New("it is not broken yet")
		}
		return nil
	})(p))
}
