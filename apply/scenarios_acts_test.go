package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/test/harness"
)

// act is something that others do to the cluster, or look for in it.
type act func(*player) error

func all(acts ...act) act {
	return func(p *player) error {
		for _, a := range acts {
			if err := a(p); err != nil {
				return err
			}
		}
		return nil
	}
}

// at finds an object by Kind/name, or Kind.group/name, or with Kind/namespace/name
// one of another namespace.
func (p *player) at(ref string) (dynamic.ResourceInterface, string, error) {
	parts := strings.Split(p.text(ref), "/")
	kind, group, _ := strings.Cut(strings.ToLower(parts[0]), ".")
	gvk, err := p.c.mapper.KindFor(schema.GroupVersionResource{Group: group, Resource: kind})
	if err != nil {
		return nil, "", err
	}
	k, err := p.c.lookup(gvk)
	if err != nil {
		return nil, "", err
	}
	r, ns := p.dynamic.Resource(k.resource), p.ns
	if len(parts) == 3 {
		ns = parts[1]
	}
	if !k.namespaced {
		return r, parts[len(parts)-1], nil
	}
	return r.Namespace(ns), parts[len(parts)-1], nil
}

func (p *player) read(ref string) (*unstructured.Unstructured, error) {
	r, name, err := p.at(ref)
	if err != nil {
		return nil, err
	}
	return r.Get(p.t.Context(), name, metav1.GetOptions{})
}

// patch merges, as a client called somebody.
func patch(ref, body string) act { return patchAs("somebody", ref, types.MergePatchType, body) }

func patchAs(manager, ref string, how types.PatchType, body string) act {
	return func(p *player) error {
		r, name, err := p.at(ref)
		if err != nil {
			return err
		}
		o := metav1.PatchOptions{FieldManager: manager}
		if how == types.ApplyPatchType {
			force := true
			o.Force = &force
		}
		_, err = r.Patch(p.t.Context(), name, how, []byte(p.text(body)), o)
		return err
	}
}

func remove(ref string) act {
	return func(p *player) error {
		r, name, err := p.at(ref)
		if err != nil {
			return err
		}
		return r.Delete(p.t.Context(), name, metav1.DeleteOptions{})
	}
}

func create(manifests string) act {
	return func(p *player) error {
		for _, m := range strings.Split(p.text(manifests), "---\n") {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte(m), &u.Object); err != nil {
				return err
			}
			r, _, err := p.at(u.GetKind() + "." + u.GroupVersionKind().Group + "/" + u.GetNamespace() + "/" + u.GetName())
			if err != nil {
				return err
			}
			if _, err := r.Create(p.t.Context(), u, metav1.CreateOptions{FieldManager: "somebody"}); err != nil {
				return err
			}
			p.t.Cleanup(func() {
				_ = r.Delete(context.WithoutCancel(p.t.Context()), u.GetName(), metav1.DeleteOptions{}) // if it is still there
			})
		}
		return nil
	}
}

// holds checks a field: "data.v=1", or "data.v=" for one that is not there.
func holds(ref, field string) act {
	return func(p *player) error {
		u, err := p.read(ref)
		if err != nil {
			return err
		}
		path, want, _ := strings.Cut(p.text(field), "=")
		v, found, err := unstructured.NestedFieldNoCopy(u.Object, strings.Split(path, ".")...)
		if err != nil {
			return err
		}
		if got := fmt.Sprint(v); found && got != want || !found && want != "" {
			return fmt.Errorf("%s of %s is %q (there: %v), want %q", path, ref, got, found, want)
		}
		return nil
	}
}

// mentions checks that an object's JSON contains a text.
func mentions(ref, text string) act {
	return func(p *player) error {
		u, err := p.read(ref)
		if err != nil {
			return err
		}
		b, err := u.MarshalJSON()
		if err == nil && !strings.Contains(string(b), p.text(text)) {
			err = fmt.Errorf("%s does not hold %s: %s", ref, text, b)
		}
		return err
	}
}

// gone waits until an object is not there.
func gone(ref string) act {
	return eventually(func(p *player) error {
		_, err := p.read(ref)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return cmp.Or(err, errors.New(ref+" is still there"))
	})
}

// refuse is a policy that forbids something, for a reason.
func refuse(operation, group, resource, which, reason string) act {
	return create(strings.NewReplacer("OPERATION", operation, "APIS", group, "RESOURCE", resource, "WHICH", which, "REASON", reason).Replace(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: NS-deny}
spec:
  failurePolicy: Fail
  matchConstraints: {resourceRules: [{apiGroups: ["APIS"], apiVersions: [v1], resources: [RESOURCE], operations: [OPERATION]}]}
  matchConditions: [{name: which, expression: "WHICH"}]
  validations: [{expression: "false", message: "REASON"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: NS-deny}
spec: {policyName: NS-deny, validationActions: [Deny]}
`))
}

var allowAgain = all(remove("ValidatingAdmissionPolicyBinding/NS-deny"), remove("ValidatingAdmissionPolicy/NS-deny"))

func eventually(a act) act {
	return func(p *player) error {
		return harness.Until(p.t.Context(), time.Minute, 20*time.Millisecond, "waiting", func(context.Context) error { return a(p) })
	}
}

// roundTrip stands between a client and the API server.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// through connects as the story's runner, with something in between.
func (p *player) through(between func(http.RoundTripper) roundTrip) *Cluster {
	p.t.Helper()
	cfg, err := p.cp.RESTConfig()
	if err != nil {
		p.t.Fatal(err)
	}
	cfg.UserAgent = "apply-test-" + p.t.Name()
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return between(rt) })
	c, err := Connect(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// snapshot reads every object that git or the inventory names or has named.
func (p *player) snapshot(in PlanInput) map[ID]*unstructured.Unstructured {
	p.t.Helper()
	maps.Copy(p.seen, in.Inventory.Entries)
	for _, d := range in.Desired {
		p.seen[d.ID] = Entry{Version: d.kind.resource.Version, Resource: d.kind.resource.Resource}
	}
	out := map[ID]*unstructured.Unstructured{}
	for id, e := range p.seen {
		u, err := p.dynamic.Resource(e.gvr(id)).Namespace(id.Namespace).Get(p.t.Context(), id.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), apierrors.IsServiceUnavailable(err):
			u = nil
		case err != nil:
			p.t.Fatal(err)
		}
		out[id] = u
	}
	return out
}

func (p *player) fates(before, after map[ID]*unstructured.Unstructured) string {
	var out []string
	for id, now := range after {
		out = append(out, short(id)+" "+fate(before[id], now))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// fate says what became of an object. Of one that has a status the controllers
// of the cluster write too, so its resourceVersion says nothing.
func fate(before, now *unstructured.Unstructured) string {
	switch {
	case before == nil && now == nil:
		return "absent"
	case now == nil:
		return "gone"
	case before == nil:
		return "made"
	case before.GetUID() != now.GetUID():
		return "anew"
	case now.GetDeletionTimestamp() != nil:
		return "leaving"
	case now.Object["status"] == nil && before.GetResourceVersion() != now.GetResourceVersion(), !gocmp.Equal(asked(before), asked(now)):
		return "changed"
	}
	return "same"
}

func asked(u *unstructured.Unstructured) any {
	u = u.DeepCopy()
	delete(u.Object, "status")
	u.SetResourceVersion("")
	u.SetManagedFields(nil)
	a := u.GetAnnotations()
	delete(a, "deployment.kubernetes.io/revision")
	if len(a) == 0 {
		a = nil
	}
	u.SetAnnotations(a)
	return u.Object
}

// log lists what the runner asked about objects, in the order of the audit log.
func (p *player) log(since harness.Mark) []harness.AuditEvent {
	p.t.Helper()
	ev, err := p.cp.Requests(p.t.Context(), since, func(e harness.AuditEvent) bool {
		own := e.Namespace == p.ns && strings.HasPrefix(e.Name, inventoryPrefix) || e.Resource == "secrets" && e.Verb == "create"
		watch := e.Verb == "watch" || strings.Contains(e.RequestURI, "labelSelector")
		return e.UserAgent == "apply-test-"+p.t.Name() && e.Resource != "" && !own && !watch
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return ev
}

func (p *player) requests(log []harness.AuditEvent, res Result, s step) {
	p.t.Helper()
	var all []string
	looks := 0 // at CRDs, which may be waited for
	for _, e := range log {
		all = append(all, e.Verb+" "+e.Resource+"/"+e.Name)
		if e.Verb == "get" && e.Resource == "customresourcedefinitions" {
			looks++
		}
	}
	if n := len(all) - res.Requests; n < 0 || n > looks {
		p.t.Errorf("the result says %d requests, the audit log %q", res.Requests, all)
	}
	at := 0
	for _, want := range strings.Split(p.text(s.order), ", ") {
		i := slices.Index(all[at:], want)
		if i < 0 && s.order != "" {
			p.t.Errorf("not in the order %s: %q", s.order, all)
			break
		}
		at += i + 1
	}
	if s.requests != "" {
		slices.Sort(all)
		p.equal("requests", cmp.Or(strings.Join(all, ", "), "none"), s.requests)
	}
}

// inventory compares what is stored, as the next process will read it.
func (p *player) inventory(desired []Desired, want string) {
	p.t.Helper()
	stored, err := NewInventoryStore(p.c, p.owner).Load(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	var got, all []string
	for id, e := range stored.Entries {
		got = append(got, short(id)+" "+map[Phase]string{Intended: "intended", Applied: "applied", Terminating: "terminating"}[e.Phase])
	}
	for _, d := range desired {
		all = append(all, short(d.ID)+" applied")
	}
	slices.Sort(got)
	slices.Sort(all)
	p.equal("inventory", strings.Join(got, ", "), cmp.Or(want, strings.Join(all, ", ")))
}

func short(id ID) string { return id.Kind + "/" + id.Name }
