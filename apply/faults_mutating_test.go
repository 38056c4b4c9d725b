package apply

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

// pairs are objects of three kinds, and beside each one that marks how far a watch is.
func pairs(value string) string {
	return strings.Join([]string{
		pairedSecret("app", value), pairedSecret("mark", value), configMaps("app="+value, "mark="+value), paired("app", value), paired("mark", value),
	}, "---\n")
}

func pairedSecret(name, value string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + ", namespace: NS}\nstringData: {v: \"" + value + "\"}\n"
}

func paired(name, value string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %s, namespace: NS}
spec:
  replicas: 0
  selector: {matchLabels: {a: %[1]s}}
  template:
    metadata: {labels: {a: %[1]s}}
    spec: {containers: [{name: c, image: "x:%s"}]}
`, name, value)
}

// marks edits what only stands beside the others: once the watches have told of it,
// they have told of all that was before.
var marks = all(patch("Secret/mark", `{"data":{"v":"bm9uZQ=="}}`), patch("ConfigMap/mark", `{"data":{"v":"none"}}`),
	patchAs("somebody", "Deployment/mark", types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"none"}]}}}}`))

// touch makes the API server ask the webhooks about every app once more.
func touch(p *player) error {
	body := `{"metadata":{"annotations":{"seen":"` + rand.Text() + `"}}}`
	return all(patch("Secret/app", body), patch("ConfigMap/app", body), patch("Deployment/app", body))(p)
}

var (
	marked  = []string{"ConfigMap/NS/mark: it was changed", "Deployment/NS/mark: it was changed", "Secret/NS/mark: it was changed"}
	mended  = step{meanwhile: all(touch, marks), drift: marked, done: "change Secret/mark, change ConfigMap/mark, change Deployment/mark", requests: "patch configmaps/mark, patch deployments/mark, patch secrets/mark"}
	allSix  = "patch configmaps/app, patch configmaps/mark, patch deployments/app, patch deployments/mark, patch secrets/app, patch secrets/mark"
	created = "create Secret/app, create Secret/mark, create ConfigMap/app, create ConfigMap/mark, create Deployment/app, create Deployment/mark"
	changed = strings.ReplaceAll(created, "create", "change")
)

// changesApps is a webhook that changes every app on every request for it.
func changesApps(change func(*unstructured.Unstructured)) act {
	return func(p *player) error {
		p.mutating(func(u *unstructured.Unstructured) {
			if u.GetName() == "app" {
				change(u)
			}
		})
		return nil
	}
}

func set(u *unstructured.Unstructured, value any, path ...string) {
	if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
		panic(err) // the manifests above have these fields
	}
}

// inject adds something to every place where a webhook may.
func inject(u *unstructured.Unstructured) {
	set(u, "mesh", "metadata", "labels", "injected")
	set(u, "mesh", "metadata", "annotations", "injected")
	if u.GetKind() != "Deployment" {
		set(u, base64.StdEncoding.EncodeToString([]byte("mesh")), "data", "injected")
		return
	}
	containers, _, _ := unstructured.NestedSlice(u.Object, "spec", "template", "spec", "containers")
	if len(containers) == 1 {
		set(u, append(containers, map[string]any{"name": "mesh", "image": "mesh"}), "spec", "template", "spec", "containers")
	}
	set(u, int64(7), "spec", "revisionHistoryLimit")
}

// override changes what git says, where it can to another value on each request.
func override() func(*unstructured.Unstructured) {
	var asked atomic.Int32
	return func(u *unstructured.Unstructured) {
		theirs := fmt.Sprint("theirs-", asked.Add(1))
		switch u.GetKind() {
		case "ConfigMap":
			set(u, theirs, "data", "v")
		case "Secret":
			set(u, base64.StdEncoding.EncodeToString([]byte(theirs)), "data", "v")
		case "Deployment": // always the same, since its controller would fight
			set(u, []any{map[string]any{"name": "c", "image": "theirs"}}, "spec", "template", "spec", "containers")
		}
	}
}

func TestWhatAWebhookAddsIsNoDriftAndCostsNothing(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, true)
	has := all(holds("ConfigMap/app", "data.injected=bWVzaA=="), holds("Secret/app", "data.injected=bWVzaA=="), holds("Secret/app", "metadata.labels.injected=mesh"),
		holds("Deployment/app", "spec.revisionHistoryLimit=7"), mentions("Deployment/app", `"image":"mesh"`), mentions("Deployment/app", `"injected":"mesh"`))
	p.play(story{
		{meanwhile: changesApps(inject), git: pairs("1"), done: created, requests: allSix, then: has},
		{git: pairs("1"), requests: "none"},
		mended, // and no app
		mended,
		{git: pairs("2"), done: changed, requests: allSix, then: has},
		mended,
		{plan: everything, done: changed, requests: allSix, then: has},
		mended,
		{git: pairs("2"), requests: "none"},
	})
}

func TestAWebhookThatRewritesWhatGitSaysIsNotFought(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, true)
	theirs := all(mentions("ConfigMap/app", `"v":"theirs-`), mentions("Secret/app", `"v":"dGhlaXJzL`), mentions("Deployment/app", `"image":"theirs"`))
	p.play(story{
		{meanwhile: changesApps(override()), git: pairs("1"), done: created, requests: allSix, then: theirs},
		{git: pairs("1"), requests: "none"},
		mended, // and no app
		mended,
		{git: pairs("2"), done: changed, requests: allSix, then: theirs},
		mended,
		{plan: everything, done: changed, requests: allSix, then: theirs}, // once for each time somebody asks
		mended,
		{git: pairs("2"), requests: "none"},
	})
}

// A limit of Kubernetes: what a webhook changes in a request of somebody else is not
// in managedFields (docs/limits.md).
func TestAWebhookThatComesLaterRewritesUnseenUntilTheNextCommit(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, true)
	const theirs = `"v":"theirs-`
	h := func(p *player) error {
		hook := p.mutating(func(u *unstructured.Unstructured) {
			if u.GetName() == "app" && u.GetKind() == "ConfigMap" {
				set(u, "theirs-", "data", "v")
			}
		})
		defer hook.stop()
		return touch(p)
	}
	unseen := mended
	unseen.meanwhile, unseen.then = all(h, marks), mentions("ConfigMap/app", theirs)
	p.play(story{
		{git: pairs("1"), done: created},
		unseen,
		{git: pairs("2"), done: changed, requests: allSix, then: holds("ConfigMap/app", "data.v=2")},
	})
}

func TestAWebhookThatTakesOffOurLabelIsNamed(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	if err := changesApps(func(u *unstructured.Unstructured) { unstructured.RemoveNestedField(u.Object, "metadata", "labels") })(p); err != nil {
		t.Fatal(err)
	}
	p.run.Drift = NewDrift(t.Context(), p.c, p.owner)
	in, mark := p.input(configMaps("app=1", "mark=1")), p.cp.Mark()
	for range 2 {
		res := p.apply(in)
		if len(res.Failed) != 1 || !strings.Contains(res.Failed[0].Error(), "ConfigMap/"+p.ns+"/app: came back without the label gitseal.io/sync: an admission webhook") {
			t.Fatalf("failed: %v", res.Failed)
		}
	}
	if got := p.writes(mark, "configmaps"); got != 3 { // app twice, mark once
		t.Errorf("got %d writes, want 3: %v", got, p.log(mark))
	}
	if drifted := p.run.Drift.Take(); len(drifted) > 0 {
		t.Errorf("drifted: %v", drifted)
	}
}
