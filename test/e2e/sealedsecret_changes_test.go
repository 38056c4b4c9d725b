package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// TestWhatHappensToASealedSecretLaterEndsAsWithItsController has one controller for
// two tables, each with namespaces of its own.
func TestWhatHappensToASealedSecretLaterEndsAsWithItsController(t *testing.T) {
	t.Parallel()
	e := newSealedEnv(t)
	t.Run("a change in git", func(t *testing.T) { t.Parallel(); changeInGit(t, e.another(t)) })
	t.Run("a Secret deleted in the cluster", func(t *testing.T) { t.Parallel(); deleteInCluster(t, e.another(t)) })
}

// changedRow is a SealedSecret that changes in git, step by step.
type changedRow struct {
	sealedRow
	steps []changedStep
}

type changedStep struct {
	change    func(cr map[string]any)
	want      map[string]string // what the controller's Secret holds then
	complains string            // part of what the controller says; its Secret stays as it was
	// differs makes the agent's Secret of the controller's, where they are not the
	// same by design.
	differs func(p *plainSecret)
	refused bool // by the agent: its Secret stays as it was
	anew    bool // the agent deletes the Secret and makes it anew
}

// changedCase is a row with what became of it. The first step is how it begins.
type changedCase struct {
	*sealedCase
	steps     []changedStep
	manifests []string       // after each step
	made      []*plainSecret // by the controller
	applied   []appliedStep  // by the agent
}

type appliedStep struct {
	said   string
	secret *corev1.Secret
}

const forceAnnotation = "gitseal.io/force"

func changedRows(e *sealedEnv, cert, secret string) map[string]changedRow {
	pair := map[string]string{"password": "password of " + secret, "user": "user of " + secret}
	const fresh = "a new value"
	updated := with(pair, "password", fresh)
	seal := func(cr map[string]any, key, text string) {
		name, _, _ := unstructured.NestedString(cr, "metadata", "name")
		put(cr, e.sealRaw(cert, e.app, name, text), "spec", "encryptedData", key)
	}
	update := func(cr map[string]any) { seal(cr, "password", fresh) }
	force := func(cr map[string]any) {
		put(cr, "enabled", "spec", "template", "metadata", "annotations", forceAnnotation)
	}
	immutable := func(p *plainSecret) { p.Immutable = ptr.To(true) }
	forced := func(p *plainSecret) { p.Annotations = map[string]string{forceAnnotation: "enabled"} }
	const never = "field is immutable when `immutable` is set"
	return map[string]changedRow{
		"a value updated": {sealedRow: sealedRow{values: pair}, steps: []changedStep{{change: update, want: updated}}},
		"a key renamed": {sealedRow: sealedRow{values: pair}, steps: []changedStep{{change: func(cr map[string]any) {
			put(cr, encrypted(cr, "user"), "spec", "encryptedData", "login")
			drop(cr, "spec", "encryptedData", "user")
		}, want: map[string]string{"password": pair["password"], "login": pair["user"]}}}},
		"a key appended":            {sealedRow: sealedRow{values: pair}, steps: []changedStep{{change: func(cr map[string]any) { seal(cr, "token", fresh) }, want: with(pair, "token", fresh)}}},
		"a key removed":             {sealedRow: sealedRow{values: pair}, steps: []changedStep{{change: func(cr map[string]any) { drop(cr, "spec", "encryptedData", "user") }, want: map[string]string{"password": pair["password"]}}}},
		"all keys removed, one new": {sealedRow: sealedRow{values: pair}, steps: []changedStep{{change: func(cr map[string]any) { put(cr, map[string]any{}, "spec", "encryptedData") }, want: map[string]string{}}, {change: update, want: map[string]string{"password": fresh}}}},
		"a label removed, an annotation changed": {sealedRow: sealedRow{values: pair, meta: map[string]any{"labels": map[string]any{"app": "shop", "tier": "a"}, "annotations": map[string]any{"note": "old"}}},
			steps: []changedStep{{change: func(cr map[string]any) {
				drop(cr, "spec", "template", "metadata", "labels", "tier")
				put(cr, "new", "spec", "template", "metadata", "annotations", "note")
			}, want: pair}}},
		"a patched Secret loses a key": {sealedRow: sealedRow{values: pair, meta: annotated(patch)}, steps: []changedStep{{
			change: func(cr map[string]any) { drop(cr, "spec", "encryptedData", "user") }, want: pair,
			// The controller never takes a key out of a Secret that it patches. The
			// agent takes back what it put there.
			differs: func(p *plainSecret) { delete(p.Data, "user") },
		}}},
		// The controller never makes a Secret immutable that is there already.
		"made immutable, then updated": {sealedRow: sealedRow{values: pair}, steps: []changedStep{
			{change: func(cr map[string]any) { put(cr, true, "spec", "template", "immutable") }, want: pair, differs: immutable},
			{change: update, want: updated, refused: true, differs: func(p *plainSecret) { immutable(p); p.Data = pair }},
			{change: force, want: updated, anew: true, differs: immutable},
		}},
		"immutable, then updated": {sealedRow: sealedRow{values: pair, secret: map[string]any{"immutable": true}}, steps: []changedStep{
			{change: update, want: pair, complains: never, refused: true},
			{change: force, want: pair, complains: never, anew: true, differs: func(p *plainSecret) { forced(p); p.Data = updated }},
		}},
		"immutable, then not, and updated": {sealedRow: sealedRow{values: pair, secret: map[string]any{"immutable": true}}, steps: []changedStep{
			{change: func(cr map[string]any) { drop(cr, "spec", "template", "immutable"); update(cr) }, want: pair, complains: never, refused: true},
			{change: force, want: pair, complains: never, anew: true, differs: func(p *plainSecret) { forced(p); p.Data, p.Immutable = updated, nil }},
		}},
	}
}

// changeInGit takes each row through its steps, first by the controller, then by
// the agent, and compares the Secrets after each step.
func changeInGit(t *testing.T, e *sealedEnv) {
	secret := canary(t)
	cert := e.file("cert.pem", string(e.controller.CertPEM))
	cases := map[string]*changedCase{}
	var all []*sealedCase
	rows := changedRows(e, cert, secret)
	most := 0
	for name, row := range rows {
		row.namespace = e.app
		c := &changedCase{sealedCase: &sealedCase{sealedRow: row.sealedRow, name: slug(name)}}
		c.cr = e.sealRow(c.sealedCase, cert)
		c.steps = append([]changedStep{{want: row.values}}, row.steps...)
		for _, s := range c.steps {
			if s.change != nil {
				s.change(c.cr)
			}
			c.manifests = append(c.manifests, manifest(t, c.cr))
		}
		cases[name], all, most = c, append(all, c.sealedCase), max(most, len(c.steps))
	}
	for i := range most {
		var manifests []string
		for _, c := range cases {
			manifests = append(manifests, c.manifests[min(i, len(c.steps)-1)])
		}
		// Not --server-side: it makes null of encryptedData when all keys go.
		e.kubectl(strings.Join(manifests, "---\n"), "apply", "-f", "-")
		for name, c := range cases {
			if i < len(c.steps) {
				e.recordStep(name, c, i)
			}
		}
	}
	e.clear(all)
	flags := []string{"--sealed-secrets-keys-from", e.controller.Namespace, "-o", "json", "--log-level", "debug"}
	for i := range most {
		refused := 0
		for _, c := range cases {
			now := min(i, len(c.steps)-1)
			e.repo.Write("apps/"+c.name+".yaml", c.manifests[now])
			if c.steps[now].refused {
				refused++
			}
		}
		e.repo.Commit(fmt.Sprintf("step %d", i))
		r := e.sealedReport(flags...)
		if len(r.Failures) != refused {
			t.Errorf("step %d: got the failures %q, want %d", i, r.Failures, refused)
		}
		for _, found := range shown(map[string]string{"the secret": secret}, haystack{"report", []byte(r.text)}, haystack{"log of the agent", []byte(r.log)}) {
			t.Error(found)
		}
		for _, c := range cases {
			if i < len(c.steps) {
				c.applied = append(c.applied, appliedStep{r.about(e.app, c.name), e.secrets([]string{c.name})[c.name]})
			}
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { c.compareSteps(t) })
	}
}

// recordStep keeps what the controller made, and checks that it is what the step
// is about.
func (e *sealedEnv) recordStep(name string, c *changedCase, i int) {
	e.t.Helper()
	step := c.steps[i]
	ok, message := e.synced(e.app, c.name)
	if ok != (step.complains == "") || !strings.Contains(message, step.complains) {
		e.t.Errorf("%s, step %d: the controller says %q, want %q", name, i, message, step.complains)
	}
	made := plainOf(e.secrets([]string{c.name})[c.name])
	if diff := cmp.Diff(step.want, made.Data); diff != "" {
		e.t.Errorf("%s, step %d: the controller made (-want +got):\n%s", name, i, diff)
	}
	c.made = append(c.made, made)
}

func (c *changedCase) compareSteps(t *testing.T) {
	for i, step := range c.steps {
		want, got := c.made[i], c.applied[i]
		if step.differs != nil {
			if cmp.Equal(want, plainOf(got.secret), cmpopts.EquateEmpty()) {
				t.Errorf("step %d: the agent's Secret is the same as the controller's", i)
			}
			step.differs(want)
		}
		if diff := cmp.Diff(want, plainOf(got.secret), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("step %d: Secret (-controller +agent):\n%s", i, diff)
		}
		if !step.refused && got.said != "" {
			t.Errorf("step %d: the agent says %q, want no failure", i, got.said)
		}
		if i == 0 {
			continue
		}
		before := c.applied[i-1].secret
		if step.refused {
			t.Logf("step %d: %s", i, got.said)
			for _, part := range []string{"Secret/" + c.namespace + "/" + c.name, "immutable", forceAnnotation + ": enabled"} {
				if !strings.Contains(got.said, part) {
					t.Errorf("step %d: the agent says %q, want %q in it", i, got.said, part)
				}
			}
			if got.secret.ResourceVersion != before.ResourceVersion {
				t.Errorf("step %d: the Secret was refused and yet written", i)
			}
		}
		if anew := got.secret.UID != before.UID; anew != step.anew {
			t.Errorf("step %d: the Secret was made anew: %v, want %v", i, anew, step.anew)
		}
	}
}

// deletedRow is a SealedSecret whose Secret somebody deletes.
type deletedRow struct {
	sealedRow
	gone bool // the controller does not make it anew
}

func deletedRows(secret string) map[string]deletedRow {
	pair := map[string]string{"password": "password of " + secret, "user": "user of " + secret}
	row := func(existing *corev1.Secret, meta map[string]any) sealedRow {
		return sealedRow{values: pair, existing: existing, meta: meta}
	}
	const skip, notManaged = "sealedsecrets.bitnami.com/skip-set-owner-references", "already exists and is not managed by SealedSecret"
	patched := row(existingSecret(patch), overExisting(patch))
	patched.want = with(pair, "old", "an old value")
	both := row(existingSecret(managed, patch), overExisting(managed, patch))
	both.want = patched.want
	unowned := row(nil, annotated(skip))
	unowned.complains = notManaged
	foreign := row(existingSecret(), overExisting())
	foreign.complains, foreign.want = notManaged, map[string]string{"old": "an old value", "user": "an old user"}
	return map[string]deletedRow{
		"owned":                {sealedRow: row(nil, nil)},
		"owned and immutable":  {sealedRow: sealedRow{values: pair, secret: map[string]any{"immutable": true}}},
		"managed":              {sealedRow: row(existingSecret(managed), overExisting(managed))},
		"managed and then not": {sealedRow: row(existingSecret(managed), overExisting())},
		"managed and unowned":  {sealedRow: row(nil, annotated(managed, skip))},
		"managed and patched":  {sealedRow: both},
		// The controller makes anew what it owns or manages. The agent makes anew
		// whatever git says, with what is in git: nothing of a foreign Secret.
		"unowned": {unowned, true},
		"patched": {patched, true},
		"foreign": {foreign, true},
	}
}

// lastDeleted is deleted after the others: the controller works in this order, so
// when it is back, those that are not back will not be.
const lastDeleted = "owned"

// deleteInCluster deletes the Secrets under the controller, then under the agent.
func deleteInCluster(t *testing.T, e *sealedEnv) {
	rows := deletedRows(canary(t))
	cert := e.file("cert.pem", string(e.controller.CertPEM))
	cases := map[string]*sealedCase{}
	var names, back []string // of objects
	for name, row := range rows {
		row.namespace = e.app
		c := &sealedCase{sealedRow: row.sealedRow, name: slug(name)}
		c.cr = e.sealRow(c, cert)
		cases[name] = c
		names = append(names, c.name)
		if !row.gone {
			back = append(back, c.name)
		}
		e.createExisting(c)
		e.kubectlApply(c.cr)
		e.recordController(name, c)
	}
	for name, c := range cases {
		if c.complains != "" { // each of its tries would make a deleted Secret anew
			e.eventually("the controller gives up on "+name, func(context.Context) error { return e.gaveUp(c.name) })
		}
	}
	before := e.secrets(names)
	e.deleteSecrets(names)
	e.awaitAnew("the controller", uids(before, back))
	for name, c := range cases {
		if rows[name].gone {
			e.assertNoSecret("the controller, after the deletion", name, c)
		}
	}
	again := e.secrets(back)
	e.clear(slices.Collect(maps.Values(cases)))

	for _, c := range cases {
		e.createExisting(c)
		e.repo.Write("apps/"+c.name+".yaml", manifest(t, c.cr))
	}
	e.repo.Commit("all of them")
	a := e.start("--sealed-secrets-keys-from", e.controller.Namespace, "--interval", "10m") // git has nothing new
	e.eventually("the agent has applied all of them", func(ctx context.Context) error { return e.applied(ctx, names) })
	before = e.secrets(names)
	e.deleteSecrets(names)
	e.awaitAnew("the agent", uids(before, names))
	a.stop()
	now := e.secrets(names)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := plainOf(now[c.name])
			if diff := cmp.Diff(c.values, got.Data); diff != "" {
				t.Errorf("made anew by the agent (-want +got):\n%s", diff)
			}
			if rows[name].gone {
				return
			}
			if diff := cmp.Diff(plainOf(again[c.name]), got); diff != "" {
				t.Errorf("made anew (-controller +agent):\n%s", diff)
			}
		})
	}
}

// gaveUp reports an error while the controller may try again.
func (e *sealedEnv) gaveUp(name string) error {
	for line := range strings.Lines(e.controller.Log()) {
		if strings.Contains(line, "giving up") && strings.Contains(line, "key="+e.app+"/"+name+" ") {
			return nil
		}
	}
	return errors.New("its log does not say so")
}

func (e *sealedEnv) deleteSecrets(names []string) {
	e.t.Helper()
	others := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == lastDeleted })
	for _, name := range append(others, lastDeleted) {
		if err := e.client.CoreV1().Secrets(e.app).Delete(e.t.Context(), name, metav1.DeleteOptions{}); err != nil {
			e.t.Fatal(err)
		}
	}
}

// uids returns those of some of the Secrets.
func uids(of map[string]*corev1.Secret, names []string) map[string]types.UID {
	out := map[string]types.UID{}
	for _, name := range names {
		out[name] = of[name].UID
	}
	return out
}

// awaitAnew waits until there are Secrets of these names with other uids.
func (e *sealedEnv) awaitAnew(who string, was map[string]types.UID) {
	e.t.Helper()
	e.eventually(who+" makes them anew", func(ctx context.Context) error {
		var left []error
		for name, uid := range was {
			s, err := e.client.CoreV1().Secrets(e.app).Get(ctx, name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) || err == nil && s.UID == uid {
				err = fmt.Errorf("%s is not there anew", name)
			}
			left = append(left, err)
		}
		return errors.Join(left...)
	})
}

// applied reports an error while a Secret lacks the label of the agent.
func (e *sealedEnv) applied(ctx context.Context, names []string) error {
	var left []error
	for _, name := range names {
		s, err := e.client.CoreV1().Secrets(e.app).Get(ctx, name, metav1.GetOptions{})
		if err == nil && s.Labels[syncLabel] == "" {
			err = fmt.Errorf("%s is not labelled", name)
		}
		left = append(left, err)
	}
	return errors.Join(left...)
}
