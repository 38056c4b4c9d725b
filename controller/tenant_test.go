package controller

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/test/syncs"
)

func TestATenantCanNotBreakOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files  func(w *world) []string
		edit   func(w *world, s *v1alpha1.Sync)
		reason string
		says   []string
		stays  string // of ConfigMap web, which is in git, too
	}{
		"by another namespace's object: the whole is refused": {
			files:  func(w *world) []string { return []string{"x.yaml", syncs.ConfigMap(w.other, "x", "theirs")} },
			reason: OutsideNamespace, says: []string{"ConfigMap/OTHER/x", "namespace TEAM only", "nothing of it was applied"},
		},
		"by an object of the cluster: the whole is refused": {
			files: func(*world) []string {
				return []string{"x.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: mine}\nrules: []\n"}
			},
			reason: OutsideNamespace, says: []string{"ClusterRole/mine"},
		},
		"by a Sync of another namespace: the whole is refused": {
			files: func(w *world) []string {
				return []string{"x.yaml", fmt.Sprintf("apiVersion: gitseal.io/v1alpha1\nkind: Sync\nmetadata: {name: x, namespace: %s}\nspec: {source: {url: %q}}\n", w.system, w.url())}
			},
			reason: OutsideNamespace, says: []string{"Sync/SYSTEM/x"},
		},
		"without a service account": {
			edit:   func(_ *world, s *v1alpha1.Sync) { s.Spec.ServiceAccountName = "" },
			reason: AccessDenied, says: []string{"spec.serviceAccountName", "must name a service account"},
		},
		"by a service account that does not exist": {
			edit:   func(_ *world, s *v1alpha1.Sync) { s.Spec.ServiceAccountName = "nobody" },
			reason: AccessDenied, says: []string{"service account TEAM/nobody does not exist"},
		},
		"by rights that its service account lacks": {
			files: func(w *world) []string {
				return []string{"x.yaml", fmt.Sprintf("apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: x, namespace: %s}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: admin}\nsubjects: [{kind: ServiceAccount, name: deployer, namespace: %s}]\n", w.team, w.team)}
			},
			reason: ApplyFailed, says: []string{"RoleBinding/TEAM/x", "Forbidden"}, stays: "mine",
		},
		"by the target namespace": {
			edit:   func(w *world, s *v1alpha1.Sync) { s.Spec.TargetNamespace = w.other },
			reason: AccessDenied, says: []string{"spec.targetNamespace: OTHER"},
		},
		"by a dependency elsewhere": {
			edit: func(w *world, s *v1alpha1.Sync) {
				s.Spec.DependsOn = []v1alpha1.SyncReference{{Name: "secrets", Namespace: w.other}}
			},
			reason: AccessDenied, says: []string{"spec.dependsOn: Sync OTHER/secrets is of another namespace"},
		},
		"by protected objects": {
			edit:   func(_ *world, s *v1alpha1.Sync) { s.Spec.AllowProtected = true },
			reason: AccessDenied, says: []string{"spec.allowProtected"},
		},
		"by a looser binding":   {edit: loosen(func(d *v1alpha1.Decryption) { d.Binding = "IfPresent" }), reason: AccessDenied, says: []string{"spec.decryption.binding: IfPresent is looser than Required"}},
		"by a looser MAC":       {edit: loosen(func(d *v1alpha1.Decryption) { d.MAC = "Warn" }), reason: AccessDenied, says: []string{"spec.decryption.mac: Warn is looser than Required"}},
		"by plaintext, warned":  {edit: loosen(func(d *v1alpha1.Decryption) { d.PlaintextSecrets = "Warn" }), reason: AccessDenied, says: []string{"spec.decryption.plaintextSecrets: Warn is looser than Deny"}},
		"by plaintext, allowed": {edit: loosen(func(d *v1alpha1.Decryption) { d.PlaintextSecrets = "Allow" }), reason: AccessDenied, says: []string{"spec.decryption.plaintextSecrets: Allow is looser than Deny"}},
		"by values outside of Secrets": {edit: loosen(func(d *v1alpha1.Decryption) { d.OutsideSecrets = "Allow" }),
			reason: AccessDenied, says: []string{"spec.decryption.outsideSecrets: Allow is looser than Deny"}},
		"by another tenant's ciphertext": {
			files: func(w *world) []string {
				return []string{"x.yaml", w.secret(w.other, "db", "hunter2", w.other+"/db"), "kustomization.yaml", "namespace: " + w.team + "\nresources: [x.yaml, web.yaml]\n"}
			},
			reason: RefusedByGate, says: []string{"was sealed for OTHER/db"}, stays: "mine",
		},
		"by another tenant's ciphertext, edited": {
			files: func(w *world) []string {
				return []string{"x.yaml", strings.ReplaceAll(w.secret(w.other, "db", "hunter2", w.other+"/db"), "namespace: "+w.other, "namespace: "+w.team)}
			},
			reason: DecryptionFailed, says: []string{"MAC mismatch"}, stays: "mine",
		},
		"by ciphertext that says of no object that it is for it": {
			files:  func(w *world) []string { return []string{"x.yaml", w.secret(w.team, "db", "hunter2", "")} },
			reason: RefusedByGate, says: []string{"BindingMissing"}, stays: "mine",
		},
		"by the agent's own keys": {
			files: func(w *world) []string {
				return []string{"x.yaml", fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: gitseal-key-9, namespace: %s, labels: {gitseal.io/key: active}}\n", w.system)}
			},
			reason: RefusedByGate, says: []string{"Secret/SYSTEM/gitseal-key-9", "may not come from git", "and 1 more"},
		},
		"by a file on the agent's machine": {
			edit:   func(_ *world, s *v1alpha1.Sync) { s.Spec.Source.URL = "x@y:z"; s.Spec.Source.SecretRef = nil },
			reason: InvalidSpec, says: []string{"identity is missing"},
		},
		"by the API server as a repository": {
			edit:   func(w *world, s *v1alpha1.Sync) { s.Spec.Source.URL = w.rest.Host + "/api/v1/secrets" },
			reason: AccessDenied, says: []string{"is the API server"},
		},
		"by a cloud's metadata service": {
			edit: func(_ *world, s *v1alpha1.Sync) {
				s.Spec.Source.URL = "http://169.254.169.254/latest/meta-data"
			},
			reason: AccessDenied, says: []string{"169.254.169.254:80", "metadata service"},
		},
		"by a server that redirects there": {
			edit: func(w *world, s *v1alpha1.Sync) {
				w.git.SetHandler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					http.Redirect(rw, r, "http://[fd00:ec2::254]/latest/info/refs?service=git-upload-pack", http.StatusFound)
				}))
			},
			reason: AccessDenied, says: []string{"[fd00:ec2::254]:80", "metadata service"},
		},
		"by a symlink out of the repository": {
			files: func(w *world) []string {
				if err := os.Symlink("/var/run/secrets/kubernetes.io/serviceaccount/token", filepath.Join(w.repo.Work, "token.yaml")); err != nil {
					w.t.Fatal(err)
				}
				return nil
			},
			reason: FetchFailed, says: []string{"token.yaml"},
		},
		"by a Secret that its service account may not read": {
			edit: func(w *world, s *v1alpha1.Sync) {
				w.admin.Account(w.team, "weak", "view")
				w.admin.Make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "git"}, StringData: map[string]string{"username": "u", "password": "p"}})
				s.Spec.ServiceAccountName, s.Spec.Source.SecretRef = "weak", &v1alpha1.LocalReference{Name: "git"}
			},
			reason: CredentialsFailed, says: []string{"read secret TEAM/git", "Forbidden"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			files := []string{"web.yaml", syncs.ConfigMap("", "web", "mine")}
			if c.files != nil {
				files = append(files, c.files(w)...)
			}
			w.commit("attack", files...)
			s := w.sync(w.team, "app", "", func(s *v1alpha1.Sync) {
				if c.edit != nil {
					c.edit(w, s)
				}
			})
			w.start()
			got := w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, c.reason)
			names := strings.NewReplacer(w.team, "TEAM", w.other, "OTHER", w.system, "SYSTEM")
			contains(t, "Ready", names.Replace(said(got)), c.says...)
			w.stays(w.team, "web", c.stays)
			w.stays(w.other, "x", "")
			if strings.Contains(w.log.String(), "hunter2") || strings.Contains(fmt.Sprint(got.Status), "hunter2") {
				t.Error("the plaintext was said")
			}
		})
	}
}

func loosen(f func(*v1alpha1.Decryption)) func(*world, *v1alpha1.Sync) {
	return func(_ *world, s *v1alpha1.Sync) { f(&s.Spec.Decryption) }
}

func TestLabelsForgedOnForeignObjectsAreNotPruned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.admin.Make(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "foreign", Labels: map[string]string{"gitseal.io/sync": w.team + ".app"}}, Data: map[string]string{"key": "keep"}})
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"), "more.yaml", syncs.ConfigMap("", "more", "one"))
	s := w.sync(w.team, "app", "", nil)
	w.start()
	w.ready(s)
	w.repo.Remove("more.yaml")
	w.repo.Commit("less")
	w.ready(s)
	w.value(w.team, "more", "")
	w.stays(w.team, "foreign", "keep")
}

// The floor is what an admin sets; a Sync may go up to it, and no further.
func TestTheFloor(t *testing.T) {
	t.Parallel()
	sync := func(namespace string, d v1alpha1.Decryption) *v1alpha1.Sync {
		return &v1alpha1.Sync{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "s"},
			Spec: v1alpha1.SyncSpec{ServiceAccountName: "x", Source: v1alpha1.Source{URL: "https://git.example/x.git"}, Decryption: d}}
	}
	loose := Config{Namespace: "agent", Floor: Floor{MAC: crypto.MACWarn, Plaintext: decrypt.PlaintextWarn, Outside: decrypt.OutsideAllow}}
	for name, c := range map[string]struct {
		cfg  Config
		sync *v1alpha1.Sync
		want decrypt.Policy
		err  string
	}{
		"nothing asked for is the floor": {loose, sync("team", v1alpha1.Decryption{}),
			decrypt.Policy{Binding: "Required", MAC: "Warn", Plaintext: "Warn", Outside: "Allow"}, ""},
		"stricter than the floor": {loose, sync("team", v1alpha1.Decryption{MAC: "Required", PlaintextSecrets: "Deny", OutsideSecrets: "Deny"}),
			decrypt.Policy{Binding: "Required", MAC: "Required", Plaintext: "Deny", Outside: "Deny"}, ""},
		"the default floor": {Config{Namespace: "agent"}, sync("team", v1alpha1.Decryption{}),
			decrypt.Policy{Binding: "Required", MAC: "Required", Plaintext: "Deny", Outside: "Deny"}, ""},
		"looser than a loose floor": {loose, sync("team", v1alpha1.Decryption{PlaintextSecrets: "Allow"}),
			decrypt.Policy{}, "spec.decryption.plaintextSecrets: Allow is looser than Warn"},
		"the binding has no other floor": {loose, sync("team", v1alpha1.Decryption{Binding: "IfPresent"}),
			decrypt.Policy{}, "spec.decryption.binding: IfPresent is looser than Required"},
		"the agent's own namespace has none": {Config{Namespace: "agent"}, sync("agent", v1alpha1.Decryption{Binding: "IfPresent", MAC: "Warn", PlaintextSecrets: "Allow", OutsideSecrets: "Allow"}),
			decrypt.Policy{Binding: "IfPresent", MAC: "Warn", Plaintext: "Allow", Outside: "Allow"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := c.cfg.settingsOf(c.sync)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %s", err, c.err)
				}
				return
			}
			got.reconcile.Policy.Namespace = ""
			if err != nil || got.reconcile.Policy != c.want {
				t.Errorf("got %+v, %v; want %+v", got.reconcile.Policy, err, c.want)
			}
		})
	}
}

func TestADefaultServiceAccountForTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cfg.Floor.ServiceAccount = "deployer"
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	mine := w.sync(w.team, "app", "", func(s *v1alpha1.Sync) { s.Spec.ServiceAccountName = "" })
	theirs := w.sync(w.other, "app", "", func(s *v1alpha1.Sync) { s.Spec.ServiceAccountName = "" })
	mark := w.cp.Mark()
	w.start()
	w.ready(mine)
	contains(t, "Ready", said(w.condition(theirs, v1alpha1.Ready, metav1.ConditionFalse, AccessDenied)), "service account "+w.other+"/deployer does not exist")
	w.admin.Account(w.other, "deployer", "edit")
	w.edit(theirs, func(s *v1alpha1.Sync) { s.Annotations = map[string]string{v1alpha1.ReconcileAtAnnotation: "now"} })
	w.ready(theirs)
	events, err := w.cp.Requests(t.Context(), mark, func(e harness.AuditEvent) bool {
		return e.Namespace == w.team && e.Resource == "configmaps" && e.UserAgent == "agent-"+w.system
	})
	if err != nil || len(events) == 0 {
		t.Fatalf("requests: %v, %v", events, err)
	}
	for _, e := range events {
		if e.ImpersonatedUser != "system:serviceaccount:"+w.team+":deployer" {
			t.Errorf("%s %s was made as %q", e.Verb, e.RequestURI, e.ImpersonatedUser)
		}
	}
}

// Who may not watch is not refused, but its drift is seen at the next look only.
func TestAKindThatMayNotBeWatchedIsSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.admin.Make(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "weak"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "list", "create", "patch"}}}})
	w.admin.Account(w.team, "weak", "")
	w.admin.Make(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "weak"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "weak"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.team, Name: "weak"}}})
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	s := w.sync(w.team, "app", "", func(s *v1alpha1.Sync) { s.Spec.ServiceAccountName = "weak" })
	w.start()
	w.ready(s)
	harness.Eventually(t, "it is said", func(context.Context) error {
		if got := w.get(s).Status.Unwatched; len(got) != 1 || got[0] != "ConfigMap polled" {
			return fmt.Errorf("unwatched: %q", got)
		}
		return nil
	})
	w.change(w.team, "web", "edited")
	w.value(w.team, "web", "one")
}

func TestRevokedRightsAreSaidAndNothingIsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"), "more.yaml", syncs.ConfigMap("", "more", "one"))
	s := w.sync(w.team, "app", "", nil)
	w.start()
	w.ready(s)
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "deployer"}}
	if err := w.admin.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	w.repo.Remove("more.yaml")
	w.commit("second", "web.yaml", syncs.ConfigMap("", "web", "two"))
	got := w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, ApplyFailed)
	contains(t, "Ready", said(got), "ConfigMap/"+w.team+"/web", "Forbidden")
	w.stays(w.team, "more", "one")
	w.admin.Make(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "deployer"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.team, Name: "deployer"}}})
	w.ready(s)
	w.value(w.team, "web", "two")
	w.value(w.team, "more", "")
}

func TestProtectedObjectsNeedAnOverride(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	protected := syncs.ConfigMap(w.system, "settings", "bad")
	w.commit("first", "web.yaml", syncs.ConfigMap(w.other, "web", "one"), "settings.yaml", protected)
	s := w.sync(w.system, "fleet", "", nil)
	w.start()
	got := w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, Protected)
	contains(t, "Ready", said(got), "ConfigMap/"+w.system+"/settings", "*/"+w.system+"/*", "spec.allowProtected")
	w.value(w.other, "web", "one") // the rest is applied
	w.stays(w.system, "settings", "")

	w.edit(s, func(s *v1alpha1.Sync) { s.Spec.AllowProtected = true })
	w.ready(s)
	w.value(w.system, "settings", "bad")
	w.edit(s, func(s *v1alpha1.Sync) { s.Spec.AllowProtected = false })
	w.repo.Remove("settings.yaml")
	w.repo.Commit("without")
	w.ready(s)
	time.Sleep(300 * time.Millisecond)
	w.stays(w.system, "settings", "bad") // what is protected is not pruned either
}

func TestWhoLacksTheCredentialOfARepositoryGetsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := t.TempDir()
	w.repo = harness.NewRepo(t, root, "fleet")
	w.git = harness.NewGitHTTP(t, harness.GitHTTPConfig{Root: root, Username: "team", Password: "pass"})
	w.admin.Account(w.other, "deployer", "edit")
	w.commit("first", "web.yaml", syncs.ConfigMap("", "web", "one"))
	credential := func(namespace, password string) func(*v1alpha1.Sync) {
		w.admin.Make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "git"}, StringData: map[string]string{"username": "team", "password": password}})
		return func(s *v1alpha1.Sync) { s.Spec.Source.SecretRef = &v1alpha1.LocalReference{Name: "git"} }
	}
	mine := w.sync(w.team, "app", "", credential(w.team, "pass"))
	without := w.sync(w.other, "without", "", nil)
	wrong := w.sync(w.other, "wrong", "", credential(w.other, "wrong"))
	w.start()
	w.ready(mine)
	for _, s := range []*v1alpha1.Sync{without, wrong} {
		if got := w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, AuthenticationFailed); got.Status.Applied != nil || strings.Contains(fmt.Sprint(got.Status), w.repo.Head()) {
			t.Errorf("%s: status %+v", s.Name, got.Status)
		}
	}
	w.stays(w.other, "web", "")
	// A credential that is put right is read again.
	now := &corev1.Secret{}
	if err := w.admin.Get(t.Context(), client.ObjectKey{Namespace: w.other, Name: "git"}, now); err != nil {
		t.Fatal(err)
	}
	now.Data["password"] = []byte("pass")
	if err := w.admin.Update(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	w.ready(wrong)
}

func TestSyncsOfOneRepositoryShareItsFetches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []*v1alpha1.Sync
	for i := range 10 {
		w.repo.Write(fmt.Sprintf("%d/web.yaml", i), syncs.ConfigMap("", fmt.Sprintf("web-%d", i), "one"))
	}
	w.commit("first")
	for i := range 10 {
		all = append(all, w.sync(w.team, fmt.Sprintf("app-%d", i), fmt.Sprint(i), func(s *v1alpha1.Sync) { s.Spec.Interval = metav1.Duration{Duration: time.Hour} }))
	}
	w.start()
	for _, s := range all {
		w.ready(s)
	}
	packs := 0
	for _, r := range w.git.Requests() {
		if r.Method == "POST" {
			packs++
		}
	}
	if packs != 1 {
		t.Errorf("%d packs were fetched for ten Syncs, want 1", packs)
	}
}

// What only the tenant's own key opens was meant for the tenant, whatever it says; what
// the agent's shared key opens must say so.
func TestAKeyOfTheTenantsOwnIsIsolationEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	own, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	w.admin.Make(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.team, Name: "keys"}, Data: map[string][]byte{"team.agekey": own.Text().Reveal()}})
	w.commit("first", "own.yaml", syncs.Seal(t, []crypto.Recipient{own.Recipient()}, syncs.Secret{Namespace: w.team, Name: "own", Password: "hunter2"}),
		"shared.yaml", w.secret(w.team, "shared", "hunter3", ""))
	s := w.sync(w.team, "app", "", func(s *v1alpha1.Sync) { s.Spec.Decryption.KeysFrom = &v1alpha1.LocalReference{Name: "keys"} })
	w.start()
	got := w.condition(s, v1alpha1.Ready, metav1.ConditionFalse, RefusedByGate)
	contains(t, "Ready", said(got), "Secret/"+w.team+"/shared", "BindingMissing")
	w.opened(w.team, "own", "hunter2")
	w.commit("bound", "shared.yaml", w.secret(w.team, "shared", "hunter3", w.team+"/shared"))
	got = w.ready(s)
	w.opened(w.team, "shared", "hunter3")
	counts := map[string]int32{}
	for _, k := range got.Status.Keys {
		counts[k.Fingerprint] = k.Files
	}
	if len(counts) != 2 || counts[own.Recipient().Fingerprint()] != 1 || counts[w.public.Recipients[0].Fingerprint()] != 1 {
		t.Errorf("keys: %v", counts)
	}
	// Another tenant has not got the key, nor may it read the Secret.
	w.admin.Account(w.other, "deployer", "edit")
	theirs := w.sync(w.other, "app", "", func(s *v1alpha1.Sync) { s.Spec.Decryption.KeysFrom = &v1alpha1.LocalReference{Name: "keys"} })
	contains(t, "Ready", said(w.condition(theirs, v1alpha1.Ready, metav1.ConditionFalse, KeysFailed)), "keys", w.other, "NotFound")
}
