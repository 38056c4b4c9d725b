package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/deploy"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

// reasons is every right of the agent, as VERB RESOURCE[.GROUP][/NAME], with what does
// not work without it. Whoever adds one to the manifests says here why.
var reasons = map[string]string{
	"get leases.coordination.k8s.io":    "no replica leads: no Sync is looked at",
	"create leases.coordination.k8s.io": "no replica leads on a new cluster",
	"update leases.coordination.k8s.io": "the Lease is not renewed: after 30 s the agent ends, and begins again",
	"create events":                     "who leads is not told by an event of the Lease",

	"get secrets/gitseal-token-key": "the key of placeholders is not found: no pass",
	"list secrets":                  "keys and inventories are not found: no pass",
	"watch secrets":                 "nobody notices that a key was added, relabelled or removed",
	"create secrets":                "no keys on a new cluster, no inventory of a new Sync",
	"update secrets":                "the inventory does not follow: what is new in git is not applied",
	"delete secrets":                "a deleted Sync does not go",

	"get configmaps/gitseal-keys":                                    "published keys are not found: none are made, since there might have been some",
	"create configmaps":                                              "public keys are not published: nobody can seal",
	"update configmaps/gitseal-keys":                                 "public keys that somebody has changed stay changed",
	"list configmaps/gitseal-keys":                                   "as below: where the API server does not stream lists, a watch begins with one",
	"watch configmaps/gitseal-keys":                                  "nobody notices that public keys were changed",
	"get rolebindings.rbac.authorization.k8s.io/gitseal-keys-reader": "the agent warns that public keys may not be readable",

	"get configmaps/gitseal-recipients": "no Reseal is answered: whom else files may be sealed to is not known",
	"list reseals.gitseal.io":           "as for Syncs",
	"watch reseals.gitseal.io":          "no Reseal is answered",
	"delete reseals.gitseal.io":         "Reseals that nobody has deleted stay",
	"patch reseals/status.gitseal.io":   "no Reseal is answered",

	"list syncs.gitseal.io":         "no Sync is found, where the API server does not stream lists",
	"watch syncs.gitseal.io":        "changes of Syncs are not seen",
	"patch syncs.gitseal.io":        "a Sync gets no finalizer, and is not begun; a deleted one does not go",
	"patch syncs/status.gitseal.io": "a Sync has no status",
	"get serviceaccounts":           "no Sync with a service account is begun: it might not exist, and could be made by others",
	"impersonate serviceaccounts":   "nothing is applied: the agent acts as the Sync's service account",
	"get namespaces":                "a Sync of a namespace that ends, whose service account went first, keeps the namespace from ending",
	"create events.events.k8s.io":   "a Sync has no events",
	"patch events.events.k8s.io":    "an event that comes again is not counted",
}

// grant is one right of one role.
type grant struct {
	role, namespace string // "" for a ClusterRole
	verb            string
	resource        schema.GroupResource
	name            string
}

func (g grant) String() string {
	s := g.verb + " " + g.resource.String()
	if g.name != "" {
		s += "/" + g.name
	}
	return s
}

// rolesOf are the roles of the agent, with their rules split into single rights.
func rolesOf(t *testing.T, w *world) map[[2]string][]grant {
	t.Helper()
	out := map[[2]string][]grant{}
	for _, o := range w.objects {
		if k := o.GetKind(); k != "Role" && k != "ClusterRole" || o.GetName() == keys.PublicConfigMap+"-reader" || strings.HasPrefix(o.GetName(), "gitseal-syncs-") || o.GetName() == "gitseal-resealer" {
			continue
		}
		var role rbacv1.ClusterRole // a Role has the same rules
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &role); err != nil {
			t.Fatal(err)
		}
		at := [2]string{o.GetNamespace(), o.GetName()}
		for _, r := range role.Rules {
			if len(r.NonResourceURLs) > 0 {
				t.Errorf("%v: %v", at, r)
			}
			for _, group := range r.APIGroups {
				for _, resource := range r.Resources {
					for _, verb := range r.Verbs {
						names := r.ResourceNames
						if len(names) == 0 {
							names = []string{""} // all of them
						}
						for _, name := range names {
							out[at] = append(out[at], grant{at[1], at[0], verb, schema.GroupResource{Group: group, Resource: resource}, name})
						}
					}
				}
			}
		}
	}
	return out
}

// bindingsOf fails the test where the agent, or everybody, is bound to another role.
func bindingsOf(t *testing.T, w *world, roles map[[2]string][]grant) {
	t.Helper()
	bound := 0
	for _, o := range w.objects {
		if k := o.GetKind(); k != "RoleBinding" && k != "ClusterRoleBinding" {
			continue
		}
		var b rbacv1.ClusterRoleBinding // a RoleBinding has the same fields
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &b); err != nil {
			t.Fatal(err)
		}
		at := [2]string{b.Namespace, b.RoleRef.Name}
		agent := []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "gitseal-agent", Namespace: w.system}}
		switch {
		case slices.Equal(b.Subjects, agent) && roles[at] != nil && b.RoleRef.Kind == strings.TrimSuffix(o.GetKind(), "Binding"):
			bound++
		case b.RoleRef.Name == keys.PublicConfigMap+"-reader" && b.RoleRef.Kind == "Role":
		default:
			t.Errorf("%s %s gives %+v to %+v", o.GetKind(), b.Name, b.RoleRef, b.Subjects)
		}
	}
	if bound != len(roles) {
		t.Errorf("%d of %d roles are the agent's", bound, len(roles))
	}
}

// write puts rights into a role, in place of those it has.
func (w *world) write(at [2]string, grants []grant) {
	w.t.Helper()
	var rules []rbacv1.PolicyRule
	for _, g := range grants {
		r := rbacv1.PolicyRule{APIGroups: []string{g.resource.Group}, Resources: []string{g.resource.Resource}, Verbs: []string{g.verb}}
		if g.name != "" {
			r.ResourceNames = []string{g.name}
		}
		rules = append(rules, r)
	}
	var err error
	if at[0] == "" {
		var role *rbacv1.ClusterRole
		if role, err = w.client.RbacV1().ClusterRoles().Get(w.t.Context(), at[1], metav1.GetOptions{}); err == nil {
			role.Rules = rules
			_, err = w.client.RbacV1().ClusterRoles().Update(w.t.Context(), role, metav1.UpdateOptions{})
		}
	} else {
		var role *rbacv1.Role
		if role, err = w.client.RbacV1().Roles(at[0]).Get(w.t.Context(), at[1], metav1.GetOptions{}); err == nil {
			role.Rules = rules
			_, err = w.client.RbacV1().Roles(at[0]).Update(w.t.Context(), role, metav1.UpdateOptions{})
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// asked is every right that the agent has made use of, as the API server saw it.
func (w *world) asked(since harness.Mark) map[authorizationv1.ResourceAttributes]bool {
	w.t.Helper()
	requests, err := w.cp.Requests(w.t.Context(), since, func(e harness.AuditEvent) bool { return e.User == w.agentUser() && e.Resource != "" })
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[authorizationv1.ResourceAttributes]bool{}
	for _, r := range requests {
		if r.Code == 403 || r.Code == 401 {
			w.t.Errorf("the agent was refused: %s %s as %q: %d", r.Verb, r.RequestURI, r.ImpersonatedUser, r.Code)
		}
		a := authorizationv1.ResourceAttributes{Verb: r.Verb, Group: r.Group, Resource: r.Resource, Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name}
		if r.ImpersonatedUser != "" {
			parts := strings.Split(r.ImpersonatedUser, ":")
			a = authorizationv1.ResourceAttributes{Verb: "impersonate", Resource: "serviceaccounts", Namespace: parts[2], Name: parts[3]}
		}
		out[a] = true
	}
	return out
}

func (w *world) allowed(ctx context.Context, a authorizationv1.ResourceAttributes) (bool, error) {
	r, err := w.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: w.agentUser(), ResourceAttributes: &a, Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + w.system, "system:authenticated"}},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return r.Status.Allowed, nil
}

// live runs the agent through everything that it does: start, keys, publishing, Syncs of
// its own namespace and a tenant's, drift, deletion, and giving up the Lease.
func (w *world) live(team string, since harness.Mark) {
	stop := w.start()
	public := w.public()
	w.admin.Account(team, "deployer", "edit")
	w.admin.ClusterAccount(w.system, "applier", "cluster-admin")
	for path, name := range map[string]string{"tenant": "mine", "own": "ours"} {
		w.repo.Write(path+"/a.yaml", syncs.ConfigMap(team, name+"-a", "1"))
		w.repo.Write(path+"/b.yaml", syncs.ConfigMap(team, name+"-b", "1"))
		w.repo.Write(path+"/secret.yaml", syncs.Seal(w.t, public.Recipients, syncs.Secret{Namespace: team, Name: name, Password: "open sesame", Binding: team + "/" + name}))
	}
	w.repo.Commit("begin")
	both := []*v1alpha1.Sync{
		w.sync(team, "app", "deployer", "tenant", nil),
		w.sync(w.system, "app", "applier", "own", func(s *v1alpha1.Sync) { s.Spec.TargetNamespace = team }),
	}
	for _, s := range both {
		w.ready(s)
	}
	for _, name := range []string{"mine", "ours"} {
		s, err := w.client.CoreV1().Secrets(team).Get(w.t.Context(), name, metav1.GetOptions{})
		if err != nil || string(s.Data["password"]) != "open sesame" {
			w.t.Errorf("Secret %s: %v", name, err)
		}
	}
	w.t.Log("somebody changes the public keys")
	cm, err := w.client.CoreV1().ConfigMaps(w.system).Get(w.t.Context(), keys.PublicConfigMap, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	want := maps.Clone(cm.Data)
	for k := range cm.Data {
		cm.Data[k] = "forged"
	}
	if _, err := w.client.CoreV1().ConfigMaps(w.system).Update(w.t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	harness.Eventually(w.t, "they are put back", func(ctx context.Context) error {
		cm, err := w.client.CoreV1().ConfigMaps(w.system).Get(ctx, keys.PublicConfigMap, metav1.GetOptions{})
		if err == nil && !maps.Equal(cm.Data, want) {
			err = errors.New("they are not")
		}
		return err
	})
	w.t.Log("a Reseal, which goes when its time is over")
	sealed := syncs.Seal(w.t, public.Recipients, syncs.Secret{Namespace: team, Name: "mine", Password: "open sesame"})
	r := &v1alpha1.Reseal{ObjectMeta: metav1.ObjectMeta{Namespace: w.system, Name: "some"}, Spec: v1alpha1.ResealSpec{Files: []v1alpha1.ResealFile{{Name: "a", Format: "yaml", Content: sealed}}}}
	w.admin.Make(r)
	harness.Eventually(w.t, "the Reseal is answered, and goes", func(ctx context.Context) error {
		err := w.admin.Get(ctx, client.ObjectKeyFromObject(r), r)
		switch at := r.Status.CompletedAt; {
		case apierrors.IsNotFound(err):
			return nil
		case err == nil && at != nil && time.Since(at.Time) < time.Minute:
			r.Status.CompletedAt = &metav1.Time{Time: time.Now().Add(-time.Hour)}
			err = w.admin.Status().Update(ctx, r)
		}
		return errors.Join(err, errors.New("it is there"))
	})
	w.t.Log("a commit, and drift")
	w.repo.Write("tenant/c.yaml", syncs.ConfigMap(team, "mine-c", "1"))
	w.repo.Write("own/c.yaml", syncs.ConfigMap(team, "ours-c", "1"))
	w.repo.Commit("more")
	for _, s := range both {
		w.ready(s)
	}
	for _, name := range []string{"mine", "ours"} {
		for _, n := range []string{name + "-a", name + "-b"} {
			if err := w.client.CoreV1().ConfigMaps(team).Delete(w.t.Context(), n, metav1.DeleteOptions{}); err != nil {
				w.t.Fatal(err)
			}
			harness.Eventually(w.t, n+" comes back", func(ctx context.Context) error {
				_, err := w.client.CoreV1().ConfigMaps(team).Get(ctx, n, metav1.GetOptions{})
				return err
			})
		}
	}
	for _, s := range both {
		harness.Eventually(w.t, "an event is counted", func(ctx context.Context) error {
			l, err := w.client.EventsV1().Events(s.Namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			for _, e := range l.Items {
				if e.Regarding.Kind == "Sync" && e.Series != nil {
					return nil
				}
			}
			return fmt.Errorf("none of %d", len(l.Items))
		})
	}
	stop()
	w.t.Log("another one, as with an API server that does not stream lists")
	stop = w.start("KUBE_FEATURE_WatchListClient=false")
	w.repo.Write("tenant/d.yaml", syncs.ConfigMap(team, "mine-d", "1"))
	w.repo.Write("own/d.yaml", syncs.ConfigMap(team, "ours-d", "1"))
	w.repo.Commit("even more")
	for _, s := range both {
		w.ready(s)
	}
	w.t.Log("deletion: the tenant's after its service account, as in a namespace that ends")
	if err := w.client.CoreV1().ServiceAccounts(team).Delete(w.t.Context(), "deployer", metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
	for _, s := range both {
		if err := w.admin.Delete(w.t.Context(), s); err != nil {
			w.t.Fatal(err)
		}
	}
	w.gone(both[1])
	harness.Eventually(w.t, "the agent has looked whether the namespace ends", func(context.Context) error {
		if !w.asked(since)[authorizationv1.ResourceAttributes{Verb: "get", Resource: "namespaces", Namespace: team, Name: team}] {
			return errors.New("it has not")
		}
		return nil
	})
	stop()
}

// TestEveryRightIsNeededAndNoneIsMissing runs the real agent as its service account on a
// real API server. No request may be refused; and each right, taken away alone, makes
// the API server refuse a request that the agent has made.
func TestEveryRightIsNeededAndNoneIsMissing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options     func(team string) deploy.Options
		clusterwide bool
	}{
		"cluster": {func(string) deploy.Options { return deploy.Options{} }, true},
		"namespaced": {func(team string) deploy.Options {
			return deploy.Options{Namespace: "gitseal-" + team, WatchNamespaces: []string{team}}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cp := harness.Shared(t)
			team := cp.Namespace(t, "team")
			since := cp.Mark()
			w := install(t, c.options(team))
			roles := rolesOf(t, w)
			bindingsOf(t, w, roles)
			for at := range roles {
				if (at[0] == "") && !c.clusterwide {
					t.Errorf("ClusterRole %s in the variant without rights on the cluster", at[1])
				}
			}
			w.live(team, since)
			asked := w.asked(since)
			// Everybody may read the public keys; the agent does not depend on that.
			if err := w.client.RbacV1().RoleBindings(w.system).Delete(t.Context(), keys.PublicConfigMap+"-reader", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			needed := 0
			for at, grants := range roles {
				for i, g := range grants {
					if reasons[g.String()] == "" {
						t.Errorf("%v: %s has no reason in the table of this test", at, g)
					}
					w.write(at, slices.Delete(slices.Clone(grants), i, i+1))
					if !w.misses(g, asked) {
						t.Errorf("%v: nothing that the agent did needs: %s", at, g)
					}
					needed++
				}
				w.write(at, grants)
			}
			if needed < len(reasons) {
				t.Errorf("only %d rights were looked at, of %d in the table", needed, len(reasons))
			}
			for a := range asked {
				harness.Eventually(t, "the whole roles allow what was asked", func(ctx context.Context) error {
					ok, err := w.allowed(ctx, a)
					if err == nil && !ok {
						err = fmt.Errorf("%+v is not allowed", a)
					}
					return err
				})
			}
			used := map[string]bool{}
			for _, grants := range roles {
				for _, g := range grants {
					used[g.String()] = true
				}
			}
			for r := range reasons {
				if !used[r] {
					t.Errorf("the table of this test has %q, which no role has", r)
				}
			}
		})
	}
}

// misses reports whether the API server refuses something that was asked for, for lack
// of a right. Roles reach its authorizer within milliseconds.
func (w *world) misses(g grant, asked map[authorizationv1.ResourceAttributes]bool) bool {
	w.t.Helper()
	var like []authorizationv1.ResourceAttributes
	for a := range asked {
		resource := a.Resource
		if a.Subresource != "" {
			resource += "/" + a.Subresource
		}
		if a.Verb == g.verb && resource == g.resource.Resource && a.Group == g.resource.Group && (g.namespace == "" || g.namespace == a.Namespace) {
			like = append(like, a)
		}
	}
	for range 40 {
		for _, a := range like {
			ok, err := w.allowed(w.t.Context(), a)
			if err != nil {
				w.t.Fatal(err)
			}
			if !ok {
				return true
			}
		}
		if len(like) == 0 {
			return false
		}
	}
	return false
}

// TestEveryRightIsInTheDocument keeps docs/install.md and the manifests the same.
func TestEveryRightIsInTheDocument(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| ([a-z, ]+) \\| `([a-z0-9./-]+)` \\| .+ \\|$").FindAllStringSubmatch(string(b), -1) {
		for _, verb := range strings.Split(m[1], ", ") {
			documented[verb+" "+m[2]] = true
		}
	}
	got, want := slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(reasons))
	if !slices.Equal(got, want) {
		t.Errorf("docs/install.md has\n%q\nthe manifests have\n%q", got, want)
	}
}

// TestThoseWhoMayEditANamespaceMayWriteItsSyncs: the API server's roles take in ours.
func TestThoseWhoMayEditANamespaceMayWriteItsSyncs(t *testing.T) {
	t.Parallel()
	cp := harness.Shared(t)
	team, other := cp.Namespace(t, "team"), cp.Namespace(t, "other")
	w := install(t, deploy.Options{})
	want := map[string][2]bool{"view": {true, false}, "edit": {true, true}, "admin": {true, true}, "none": {false, false}} // get, create
	for role := range want {
		w.admin.Account(team, "tenant-"+role, role)
	}
	ask := func(ctx context.Context, role, verb, namespace string) (bool, error) {
		r, err := w.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User:               "system:serviceaccount:" + team + ":tenant-" + role,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: verb, Group: v1alpha1.GroupVersion.Group, Resource: "syncs"},
		}}, metav1.CreateOptions{})
		return err == nil && r.Status.Allowed, err
	}
	harness.Eventually(t, "the roles are as they should be", func(ctx context.Context) error {
		for role, may := range want {
			for i, verb := range []string{"get", "create"} {
				if got, err := ask(ctx, role, verb, team); err != nil || got != may[i] {
					return fmt.Errorf("%q may %s: %v, %w", role, verb, got, err)
				}
				if got, err := ask(ctx, role, verb, other); err != nil || got {
					return fmt.Errorf("%q may %s in another namespace: %v, %w", role, verb, got, err)
				}
			}
		}
		return nil
	})
}
