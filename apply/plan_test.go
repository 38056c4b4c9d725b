package apply

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gitseal/gitseal/decrypt"
)

// want makes a desired ConfigMap without any cluster.
func want(name, input string) Desired {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": "ns"}}}
	return Desired{ID: cm(name), Object: decrypt.Object{Masked: u, Input: input}, kind: kind{schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, true}}
}

func cm(name string) ID { return ID{Kind: "ConfigMap", Namespace: "ns", Name: name} }

func have(source string, entries ...string) Inventory {
	inv := Inventory{Source: source, Entries: map[ID]Entry{}}
	for _, e := range entries {
		name, input, _ := strings.Cut(e, "=")
		inv.Entries[cm(name)] = Entry{Version: "v1", Resource: "configmaps", Phase: Applied, Input: input}
	}
	return inv
}

func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("n%02d=1", i)
	}
	return out
}

func steps(p Plan) []string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, string(s.Action)+" "+s.ID.Name)
	}
	return out
}

func TestPlanSaysWhatWillBeDone(t *testing.T) {
	t.Parallel()
	limit := func(s string) PruneLimit {
		l, err := ParsePruneLimit(s)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	keep := func(in []string, n int) []Desired {
		var out []Desired
		for _, e := range in[:n] {
			name, input, _ := strings.Cut(e, "=")
			out = append(out, want(name, input))
		}
		return out
	}
	many := numbered(30)
	for name, c := range map[string]struct {
		in      PlanInput
		steps   []string // nil: only blocked is compared
		prunes  int
		blocked string
	}{
		"new, changed, unchanged and gone": {
			in:    PlanInput{Desired: []Desired{want("a", "1"), want("b", "2"), want("c", "1")}, Inventory: have("s", "b=1", "c=1", "d=1"), Source: "s", Prune: true},
			steps: []string{"create a", "change b", "leave c", "prune d"}, prunes: 1,
		},
		"drift is a change": {
			in:    PlanInput{Desired: []Desired{want("a", "1")}, Inventory: have("s", "a=1"), Source: "s", Drifted: map[ID]string{cm("a"): "edited"}, Prune: true},
			steps: []string{"change a"},
		},
		"a refused object is neither applied nor pruned": {
			in:    PlanInput{Desired: []Desired{want("a", "1")}, Inventory: have("s", "a=1", "b=1"), Source: "s", Refused: []ID{cm("b")}, Incomplete: "b was refused", Prune: true},
			steps: []string{"leave a"},
		},
		"an incomplete pass prunes nothing": {
			in:      PlanInput{Desired: []Desired{want("a", "1")}, Inventory: have("s", "a=1", "c=1"), Source: "s", Incomplete: "b was refused", Prune: true},
			blocked: "incomplete: b was refused",
		},
		"an empty render prunes nothing": {in: PlanInput{Inventory: have("s", "a=1"), Source: "s", Prune: true}, blocked: "renders no objects"},
		"prune is off":                   {in: PlanInput{Desired: []Desired{want("b", "1")}, Inventory: have("s", "a=1"), Source: "s"}, blocked: "pruning is off"},
		"another source prunes nothing":  {in: PlanInput{Desired: []Desired{want("b", "1")}, Inventory: have("old", "a=1"), Source: "new", Prune: true}, blocked: "the source changed from old to new"},
		"another source, confirmed":      {in: PlanInput{Desired: []Desired{want("b", "1")}, Inventory: have("old", "a=1"), Source: "new", Prune: true, ConfirmSourceChange: true}, prunes: 1},
		"10 of 12 are within the limit":  {in: PlanInput{Desired: keep(many, 2), Inventory: have("s", many[:12]...), Source: "s", Prune: true}, prunes: 10},
		"16 of 30 are over the limit":    {in: PlanInput{Desired: keep(many, 14), Inventory: have("s", many...), Source: "s", Prune: true}, blocked: "16 of 30 objects"},
		"15 of 30 are within it":         {in: PlanInput{Desired: keep(many, 15), Inventory: have("s", many...), Source: "s", Prune: true}, prunes: 15},
		"over the limit, confirmed":      {in: PlanInput{Desired: keep(many, 14), Inventory: have("s", many...), Source: "s", Prune: true, ConfirmPrune: true}, prunes: 16},
		"over a limit of objects":        {in: PlanInput{Desired: keep(many, 27), Inventory: have("s", many...), Source: "s", Prune: true, Limit: limit("2")}, blocked: "3 of 30"},
		"over a limit in percent":        {in: PlanInput{Desired: keep(many, 26), Inventory: have("s", many...), Source: "s", Prune: true, Limit: limit("10%")}, blocked: "4 of 30"},
		"within a limit in percent":      {in: PlanInput{Desired: keep(many, 27), Inventory: have("s", many...), Source: "s", Prune: true, Limit: limit("10%")}, prunes: 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := c.in.Inventory.Clone()
			p := NewPlan(c.in)
			if c.steps != nil {
				if d := cmp.Diff(c.steps, steps(p)); d != "" {
					t.Errorf("steps (-want +got):\n%s", d)
				}
			}
			if got := p.Count(Prune); got != c.prunes {
				t.Errorf("got %d prunes, want %d (%s)", got, c.prunes, p.PruneBlocked)
			}
			if !strings.Contains(p.PruneBlocked, c.blocked) || (c.blocked == "") != (p.PruneBlocked == "") {
				t.Errorf("got blocked %q, want %q", p.PruneBlocked, c.blocked)
			}
			if d := cmp.Diff(before.IDs(), c.in.Inventory.IDs()); d != "" {
				t.Errorf("the plan changed its argument:\n%s", d)
			}
		})
	}
}

func TestPruneGoesFromUsersToWhatTheyUse(t *testing.T) {
	t.Parallel()
	inv := Inventory{Source: "s", Entries: map[ID]Entry{}}
	for _, id := range []ID{
		{Kind: "Namespace", Name: "n"}, {Kind: "Secret", Namespace: "n", Name: "s"}, {Group: "apps", Kind: "Deployment", Namespace: "n", Name: "d"},
		{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "c"}, {Group: "example.com", Kind: "Thing", Namespace: "n", Name: "t"},
		{Group: "admissionregistration.k8s.io", Kind: "ValidatingWebhookConfiguration", Name: "w"},
	} {
		inv.Entries[id] = Entry{Phase: Applied}
	}
	p := NewPlan(PlanInput{Desired: []Desired{want("keep", "1")}, Inventory: inv, Source: "s", Prune: true})
	if d := cmp.Diff([]string{"create keep", "prune w", "prune d", "prune t", "prune s", "prune c", "prune n"}, steps(p)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestPruneLimitTexts(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"lots", "-1", "101%", "%", "1.5"} {
		if _, err := ParsePruneLimit(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
