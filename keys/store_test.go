package keys

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// generations makes key pairs once for all tests: RSA-4096 takes a second each.
var generations = sync.OnceValues(func() ([3]Generation, error) {
	var out [3]Generation
	for i := range out {
		var errs [2]error
		out[i] = Generation{Number: i + 1, State: Active}
		out[i].Identity, errs[0] = crypto.GenerateIdentity()
		out[i].Certificate, errs[1] = crypto.GenerateCertificateKey(time.Now())
		if err := errors.Join(errs[:]...); err != nil {
			return out, err
		}
	}
	return out, nil
})

// installation is a namespace of a real cluster.
type installation struct {
	t      *testing.T
	cp     *harness.ControlPlane
	ns     string
	admin  kubernetes.Interface // whose requests are not counted
	client kubernetes.Interface // of the store
}

func newInstallation(t *testing.T) *installation {
	t.Helper()
	cp := harness.Shared(t)
	in := &installation{t: t, cp: cp, ns: cp.Namespace(t, "keys")}
	in.admin = in.as(func(*rest.Config) {})
	in.client = in.as(func(c *rest.Config) { c.UserAgent = in.ns })
	return in
}

func (in *installation) as(change func(*rest.Config)) kubernetes.Interface {
	in.t.Helper()
	cfg, err := in.cp.RESTConfig()
	if err != nil {
		in.t.Fatal(err)
	}
	change(cfg)
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		in.t.Fatal(err)
	}
	return c
}

func (in *installation) store() Store {
	return Store{Client: in.client, Namespace: in.ns, Now: time.Now}
}

// requests lists what the store's client asked for.
func (in *installation) requests(since harness.Mark) []harness.AuditEvent {
	in.t.Helper()
	events, err := in.cp.Requests(in.t.Context(), since, func(e harness.AuditEvent) bool { return e.UserAgent == in.ns })
	if err != nil {
		in.t.Fatal(err)
	}
	return events
}

func (in *installation) writes(since harness.Mark) []string {
	in.t.Helper()
	var out []string
	for _, e := range in.requests(since) {
		if !slices.Contains([]string{"get", "list", "watch"}, e.Verb) {
			out = append(out, e.Verb+" "+e.Resource+"/"+e.Name)
		}
	}
	return out
}

// put stores a Secret as it is.
func (in *installation) put(s *corev1.Secret) {
	in.t.Helper()
	if _, err := in.admin.CoreV1().Secrets(in.ns).Create(in.t.Context(), s, metav1.CreateOptions{}); err != nil {
		in.t.Fatal(err)
	}
}

func (in *installation) putToken() {
	in.t.Helper()
	in.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: TokenSecret}, Data: map[string][]byte{tokenDataKey: bytes.Repeat([]byte("t"), tokenKeyBytes)}})
}

// sample returns one of the shared generations with a number and a state.
func (in *installation) sample(i, number int, state State) Generation {
	in.t.Helper()
	all, err := generations()
	if err != nil {
		in.t.Fatal(err)
	}
	g := all[i]
	g.Number, g.State = number, state
	return g
}

// ready puts a token key and one active generation there, and returns what is
// to be published of it.
func (in *installation) ready() Public {
	in.t.Helper()
	in.putToken()
	in.put(in.sample(0, 1, Active).secret(in.ns))
	return in.public()
}

func (in *installation) ring() *Ring {
	in.t.Helper()
	ring, err := Store{Client: in.admin, Namespace: in.ns}.Load(in.t.Context())
	if err != nil {
		in.t.Fatal(err)
	}
	return ring
}

func (in *installation) public() Public {
	in.t.Helper()
	p, err := in.ring().Public()
	if err != nil {
		in.t.Fatal(err)
	}
	return p
}

func (in *installation) secrets() map[string]corev1.Secret {
	in.t.Helper()
	l, err := in.admin.CoreV1().Secrets(in.ns).List(in.t.Context(), metav1.ListOptions{})
	if err != nil {
		in.t.Fatal(err)
	}
	out := map[string]corev1.Secret{}
	for _, s := range l.Items {
		out[s.Name] = s
	}
	return out
}

func TestEnsureMakesOneGenerationAndOneTokenKey(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	ring, err := in.store().Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := in.secrets()
	if names := slices.Sorted(maps.Keys(got)); !cmp.Equal(names, []string{"gitseal-key-1", "gitseal-token-key"}) {
		t.Fatalf("Secrets are %v", names)
	}
	key := got["gitseal-key-1"]
	if want := map[string]string{"gitseal.io/key": "active", "gitseal.io/key-generation": "1"}; !cmp.Equal(key.Labels, want) {
		t.Errorf("labels are %v, want %v", key.Labels, want)
	}
	if keys := slices.Sorted(maps.Keys(key.Data)); !cmp.Equal(keys, []string{"identity.agekey", "tls.crt", "tls.key"}) {
		t.Errorf("the key Secret holds %v", keys)
	}
	if n := len(got["gitseal-token-key"].Data["token.key"]); n != 32 || len(got["gitseal-token-key"].Labels) != 0 {
		t.Errorf("the token key has %d bytes and labels %v, want 32 and none", n, got["gitseal-token-key"].Labels)
	}
	active, err := ring.Active()
	if err != nil || active.Number != 1 || !ring.Token.Equal(crypto.NewSecret(got["gitseal-token-key"].Data["token.key"])) {
		t.Errorf("active is generation %d (%v), or the token is not the stored one", active.Number, err)
	}

	t.Log("a second time writes nothing and gives the same")
	mark := in.cp.Mark()
	again, err := in.store().Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w := in.writes(mark); len(w) > 0 {
		t.Errorf("the second Ensure sent %v", w)
	}
	if second, _ := again.Active(); second.Identity.Recipient().String() != active.Identity.Recipient().String() || !again.Token.Equal(ring.Token) {
		t.Error("the second Ensure gave other keys")
	}
}

func TestEnsureMakesItsNamespace(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.ready()
	ns := in.ns + "-new"
	t.Cleanup(func() {
		if err := in.admin.CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), ns, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	if err := (Store{Client: in.client, Namespace: ns, Now: time.Now}).ensureNamespace(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := in.admin.CoreV1().Namespaces().Get(t.Context(), ns, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

func TestConcurrentEnsureEndsWithTheSameKeys(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	const agents = 8
	var rings [agents]*Ring
	var errs [agents]error
	var wg sync.WaitGroup
	for i := range agents {
		client := in.as(func(c *rest.Config) { c.UserAgent = in.ns })
		wg.Go(func() {
			rings[i], errs[i] = Store{Client: client, Namespace: in.ns, Now: time.Now}.Ensure(t.Context())
		})
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	for i, r := range rings {
		if len(r.Generations) != 1 || r.Generations[0].Number != 1 {
			t.Fatalf("agent %d has %d generations", i, len(r.Generations))
		}
		if r.Keyring().Identities[0].Recipient().String() != rings[0].Keyring().Identities[0].Recipient().String() || !r.Token.Equal(rings[0].Token) ||
			!bytes.Equal(r.CertificateKeys()[0].Certificate().PEM(), rings[0].CertificateKeys()[0].Certificate().PEM()) {
			t.Errorf("agent %d has other keys than agent 0", i)
		}
	}
	if names := slices.Sorted(maps.Keys(in.secrets())); !cmp.Equal(names, []string{"gitseal-key-1", TokenSecret}) {
		t.Errorf("Secrets are %v", names)
	}
	lost := 0
	for _, e := range in.requests(0) {
		if e.Code == 409 {
			lost++
		}
	}
	t.Logf("%d creates lost the race", lost)
}

func TestEnsureGoesOnAfterACrashBetweenTokenAndGeneration(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.putToken()
	ring, err := in.store().Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !ring.Token.Equal(crypto.NewSecret(bytes.Repeat([]byte("t"), tokenKeyBytes))) {
		t.Error("the token key was replaced")
	}
	if _, err := ring.Active(); err != nil {
		t.Error(err)
	}
}

func TestADamagedKeySecretFailsTheWholeAndShowsNothing(t *testing.T) {
	t.Parallel()
	const canary = "KEY-CANARY-8c1f"
	tests := map[string]struct {
		damage func(s, token *corev1.Secret)
		want   []string // in the error
	}{
		"an identity that is none": {
			func(s, _ *corev1.Secret) { s.Data[identityKey] = []byte("AGE-SECRET-KEY-1" + canary) },
			[]string{"gitseal-key-7", identityKey},
		},
		"no identity": {
			func(s, _ *corev1.Secret) { delete(s.Data, identityKey) },
			[]string{"gitseal-key-7", identityKey, "no age identity"},
		},
		"two identities": {
			func(s, _ *corev1.Secret) {
				s.Data[identityKey] = append(append(s.Data[identityKey], '\n'), s.Data[identityKey]...)
			},
			[]string{"gitseal-key-7", identityKey, "2 identities"},
		},
		"a certificate of another key": {
			func(s, _ *corev1.Secret) { s.Data[corev1.TLSCertKey] = nil }, // set below
			[]string{"gitseal-key-7"},
		},
		"a private key that is none": {
			func(s, _ *corev1.Secret) { s.Data[corev1.TLSPrivateKeyKey] = []byte(canary) },
			[]string{"gitseal-key-7"},
		},
		"a private key with damaged content": {
			func(s, _ *corev1.Secret) {
				s.Data[corev1.TLSPrivateKeyKey] = []byte("-----BEGIN RSA PRIVATE KEY-----\n" + base64.StdEncoding.EncodeToString([]byte(canary)) + "\n-----END RSA PRIVATE KEY-----\n")
			},
			[]string{"gitseal-key-7"},
		},
		"an unknown state": {
			func(s, _ *corev1.Secret) { s.Labels[StateLabel] = "sleeping" },
			[]string{"gitseal-key-7", StateLabel},
		},
		"a name without a number": {
			func(s, _ *corev1.Secret) { s.Name = "gitseal-key-first" },
			[]string{"gitseal-key-first", "name"},
		},
		"a name without the prefix": {
			func(s, _ *corev1.Secret) { s.Name = "7" },
			[]string{"/7", "name"},
		},
		"a name that another number has too": {
			func(s, _ *corev1.Secret) { s.Name = "gitseal-key-007" },
			[]string{"gitseal-key-007", "name"},
		},
		"a short token key": {
			func(_, token *corev1.Secret) { token.Data[tokenDataKey] = []byte(canary) },
			[]string{TokenSecret, tokenDataKey, "32 bytes"},
		},
		"a token key without content": {
			func(_, token *corev1.Secret) { token.Data = nil },
			[]string{TokenSecret, tokenDataKey},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t)
			s := in.sample(0, 7, Active).secret(in.ns)
			token := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: TokenSecret}, Data: map[string][]byte{tokenDataKey: bytes.Repeat([]byte("t"), tokenKeyBytes)}}
			test.damage(s, token)
			if crt, ok := s.Data[corev1.TLSCertKey]; ok && crt == nil {
				s.Data[corev1.TLSCertKey] = in.sample(1, 7, Active).Certificate.Certificate().PEM()
			}
			in.put(s)
			in.put(token)
			in.put(in.sample(2, 8, Active).secret(in.ns)) // a sound one does not help
			for what, f := range map[string]func() (*Ring, error){
				"Load":   func() (*Ring, error) { return in.store().Load(t.Context()) },
				"Ensure": func() (*Ring, error) { return in.store().Ensure(t.Context()) },
			} {
				ring, err := f()
				if err == nil || ring != nil {
					t.Fatalf("%s: got a ring and error %v", what, err)
				}
				for _, text := range append(test.want, in.ns) {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("%s: the error does not name %q: %v", what, text, err)
					}
				}
				for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
					text := fmt.Sprintf(verb, err)
					if strings.Contains(text, canary) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(canary))) || strings.Contains(text, "PRIVATE KEY-----") {
						t.Errorf("%s: the error shows content: %s", what, text)
					}
				}
			}
		})
	}
}

func TestLoadOrdersGenerations(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.putToken()
	in.put(in.sample(0, 2, Active).secret(in.ns))
	in.put(in.sample(1, 10, Active).secret(in.ns)) // by name it sorts before 2
	in.put(in.sample(2, 11, Standby).secret(in.ns))
	in.put(in.sample(2, 1, Retired).secret(in.ns))
	ring, err := in.store().Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, g := range ring.Generations {
		got = append(got, fmt.Sprint(g.Number, g.State))
		if g.State == Retired { // it comes last here
			continue
		}
		if ring.Keyring().Identities[i].Recipient().String() != g.Identity.Recipient().String() || ring.CertificateKeys()[i].Certificate().Fingerprint() != g.Certificate.Certificate().Fingerprint() {
			t.Errorf("identity or certificate %d is not of generation %d", i, g.Number)
		}
	}
	if want := []string{"11standby", "10active", "2active", "1retired"}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(ring.Keyring().Identities) != 3 || len(ring.CertificateKeys()) != 3 {
		t.Errorf("%d identities and %d certificate keys open, want all three but the retired one", len(ring.Keyring().Identities), len(ring.CertificateKeys()))
	}
	active, err := ring.Active()
	if err != nil || active.Number != 10 {
		t.Errorf("active is %d (%v), want 10", active.Number, err)
	}
	public, err := ring.Public()
	if err != nil || len(public.Recipients) != 1 || public.Recipients[0].String() != in.sample(1, 0, Active).Identity.Recipient().String() {
		t.Errorf("public is %v (%v), want the recipient of generation 10 alone", public.Recipients, err)
	}
}

func TestNoActiveGeneration(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.putToken()
	in.put(in.sample(0, 1, Retired).secret(in.ns))
	in.put(in.sample(1, 2, Standby).secret(in.ns))
	mark := in.cp.Mark()
	ring, err := in.store().Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w := in.writes(mark); len(w) > 0 {
		t.Errorf("Ensure sent %v: it must not make a generation next to others", w)
	}
	if _, err := ring.Active(); !errors.Is(err, ErrNoActive) {
		t.Errorf("Active: got %v, want ErrNoActive", err)
	}
	if _, err := ring.Public(); !errors.Is(err, ErrNoActive) {
		t.Errorf("Public: got %v, want ErrNoActive", err)
	}
}

func TestDecryptionSecret(t *testing.T) {
	t.Parallel()
	const canary = "FOREIGN-CANARY-77"
	first, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	second, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	text := func(ids ...crypto.Identity) []byte {
		out := []byte("# created by age-keygen\n")
		for _, id := range ids {
			out = append(append(out, id.Text().Reveal()...), '\n')
		}
		return out
	}
	for name, test := range map[string]struct {
		data map[string][]byte // nil for no Secret
		want []string          // recipients
		err  []string
	}{
		"entries of several keys, others left alone": {
			data: map[string][]byte{"b.agekey": text(second), "a.agekey": text(first), "README": []byte(canary)},
			want: []string{first.Recipient().String(), second.Recipient().String()},
		},
		"two identities in one entry": {
			data: map[string][]byte{"all.agekey": text(second, first)},
			want: []string{second.Recipient().String(), first.Recipient().String()},
		},
		"one bad entry": {
			data: map[string][]byte{"a.agekey": text(first), "bad.agekey": []byte("AGE-SECRET-KEY-1" + canary)},
			err:  []string{"/sops-age", "key bad.agekey", "line 1"},
		},
		"no entry":        {data: map[string][]byte{"age.txt": text(first)}, err: []string{"/sops-age", "no *.agekey or *.asc entry"}},
		"no such Secret":  {err: []string{"sops-age", "NotFound"}},
		"an empty agekey": {data: map[string][]byte{"a.agekey": nil}, err: []string{"/sops-age", "key a.agekey", "no age identity"}},
		"a bad PGP key":   {data: map[string][]byte{"sops.asc": []byte(canary)}, err: []string{"/sops-age", "key sops.asc", "not an armored"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t)
			in.ready()
			if test.data != nil {
				in.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "sops-age"}, Data: test.data})
			}
			s := in.store()
			s.DecryptionSecret = "sops-age"
			ring, err := s.Load(t.Context())
			if len(test.err) > 0 {
				if err == nil {
					t.Fatal("no error")
				}
				for _, text := range append(test.err, in.ns) {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("the error does not name %q: %v", text, err)
					}
				}
				if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), canary) {
					t.Errorf("the error shows content: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, id := range ring.Keyring().Identities[1:] { // the agent's own comes first
				got = append(got, id.Recipient().String())
			}
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("got -, want +:\n%s", diff)
			}
			if p, err := ring.Public(); err != nil || len(p.Recipients) != 1 {
				t.Errorf("foreign keys are published: %v, %v", p.Recipients, err)
			}
		})
	}
}

func TestPublishedKeysCanBeReadByEveryUserAndNothingElse(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	public := in.ready()
	changed, warning, err := in.store().Publish(t.Context(), public)
	if !changed || warning != nil || err != nil {
		t.Fatalf("first: changed %v, warning %v, error %v", changed, warning, err)
	}
	dev := in.as(func(c *rest.Config) {
		c.Impersonate = rest.ImpersonationConfig{UserName: "dev", Groups: []string{"system:authenticated"}}
	})
	got, err := FetchPublic(t.Context(), dev, in.ns)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got.data(), public.data()); diff != "" {
		t.Errorf("got -, want +:\n%s", diff)
	}
	ctx, core, other := t.Context(), dev.CoreV1(), metav1.ObjectMeta{Name: "other"}
	for what, try := range map[string]func() error{
		"list Secrets":       func() error { _, err := core.Secrets(in.ns).List(ctx, metav1.ListOptions{}); return err },
		"read the key":       func() error { _, err := core.Secrets(in.ns).Get(ctx, "gitseal-key-1", metav1.GetOptions{}); return err },
		"read the token key": func() error { _, err := core.Secrets(in.ns).Get(ctx, TokenSecret, metav1.GetOptions{}); return err },
		"list ConfigMaps":    func() error { _, err := core.ConfigMaps(in.ns).List(ctx, metav1.ListOptions{}); return err },
		"read another": func() error {
			_, err := core.ConfigMaps(in.ns).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
			return err
		},
		"delete public keys": func() error { return core.ConfigMaps(in.ns).Delete(ctx, PublicConfigMap, metav1.DeleteOptions{}) },
		"create a ConfigMap": func() error {
			_, err := core.ConfigMaps(in.ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: other}, metav1.CreateOptions{})
			return err
		},
		"change public keys": func() error {
			_, err := core.ConfigMaps(in.ns).Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: PublicConfigMap}}, metav1.UpdateOptions{})
			return err
		},
		"read another's keys": func() error { _, err := FetchPublic(ctx, dev, "default"); return unwrapped(err) },
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want Forbidden", what, err)
		}
	}
	anonymous := in.as(func(c *rest.Config) {
		c.Impersonate = rest.ImpersonationConfig{UserName: "system:anonymous", Groups: []string{"system:unauthenticated"}}
	})
	if _, err := FetchPublic(t.Context(), anonymous, in.ns); !apierrors.IsForbidden(unwrapped(err)) {
		t.Errorf("without authentication: got %v, want Forbidden", err)
	}

	t.Log("a second time writes nothing")
	mark := in.cp.Mark()
	changed, warning, err = in.store().Publish(t.Context(), public)
	if changed || warning != nil || err != nil {
		t.Errorf("second: changed %v, warning %v, error %v", changed, warning, err)
	}
	if w := in.writes(mark); len(w) > 0 {
		t.Errorf("the second Publish sent %v", w)
	}

	t.Log("what was changed is put back")
	for what, edit := range edits() {
		in.edit(edit)
		changed, warning, err := in.store().Publish(t.Context(), public)
		if !changed || warning != nil || err != nil {
			t.Errorf("%s: changed %v, warning %v, error %v", what, changed, warning, err)
		}
		if err := in.publishedIs(public); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func unwrapped(err error) error {
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	return err
}

// edits are changes that somebody could make to the ConfigMap; nil deletes it.
func edits() map[string]func(*corev1.ConfigMap) {
	return map[string]func(*corev1.ConfigMap){
		"another recipient": func(c *corev1.ConfigMap) {
			c.Data[RecipientsKey] += "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p\n"
		},
		"no certificate":  func(c *corev1.ConfigMap) { delete(c.Data, CertificateKey) },
		"one key more":    func(c *corev1.ConfigMap) { c.Data["more"] = "x" },
		"binary data":     func(c *corev1.ConfigMap) { c.BinaryData = map[string][]byte{"b": {1}} },
		"nothing in it":   func(c *corev1.ConfigMap) { c.Data = nil },
		"its deletion":    nil,
		"something empty": func(c *corev1.ConfigMap) { c.Data[RecipientsKey] = "" },
	}
}

func (in *installation) edit(change func(*corev1.ConfigMap)) {
	in.t.Helper()
	if err := in.tryEdit(change); err != nil {
		in.t.Fatal(err)
	}
}

func (in *installation) tryEdit(change func(*corev1.ConfigMap)) error {
	configMaps := in.admin.CoreV1().ConfigMaps(in.ns)
	if change == nil {
		return configMaps.Delete(in.t.Context(), PublicConfigMap, metav1.DeleteOptions{})
	}
	cm, err := configMaps.Get(in.t.Context(), PublicConfigMap, metav1.GetOptions{})
	if err != nil {
		return err
	}
	change(cm)
	_, err = configMaps.Update(in.t.Context(), cm, metav1.UpdateOptions{})
	return err
}

func (in *installation) publishedIs(p Public) error {
	cm, err := in.admin.CoreV1().ConfigMaps(in.ns).Get(in.t.Context(), PublicConfigMap, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if diff := cmp.Diff(cm.Data, p.data()); diff != "" || len(cm.BinaryData) > 0 {
		return fmt.Errorf("the ConfigMap is not what it should be (got -, want +; %d binary keys):\n%s", len(cm.BinaryData), diff)
	}
	return nil
}

func TestAnIdentityWithoutRightsOnRBACIsWarned(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	public := in.ready()
	user := "agent-" + in.ns
	meta := metav1.ObjectMeta{Name: "agent"}
	_, err := in.admin.RbacV1().Roles(in.ns).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"secrets", "configmaps"}, Verbs: []string{"get", "list", "watch", "create", "update"},
	}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = in.admin.RbacV1().RoleBindings(in.ns).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := in.store()
	s.Client = in.as(func(c *rest.Config) { c.Impersonate.UserName = user })
	if _, err := s.Ensure(t.Context()); err != nil {
		t.Errorf("Ensure needs more than Secrets: %v", err)
	}
	changed, warning, err := s.Publish(t.Context(), public)
	if !changed || err != nil {
		t.Errorf("changed %v, error %v", changed, err)
	}
	if warning == nil || !strings.Contains(warning.Error(), "Forbidden") || !strings.Contains(warning.Error(), in.ns) {
		t.Errorf("warning is %v, want one that says Forbidden and the namespace", warning)
	}
	if err := in.publishedIs(public); err != nil {
		t.Error(err)
	}
}

func TestFetchPublicErrors(t *testing.T) {
	t.Parallel()
	good := func(t *testing.T) map[string]string {
		all, err := generations()
		if err != nil {
			t.Fatal(err)
		}
		p, err := (&Ring{Generations: all[:1]}).Public()
		if err != nil {
			t.Fatal(err)
		}
		return p.data()
	}
	for name, test := range map[string]struct {
		change func(map[string]string) // nil for no ConfigMap
		want   []string
	}{
		"no ConfigMap":        {nil, []string{"not found"}},
		"no recipients":       {func(d map[string]string) { delete(d, RecipientsKey) }, []string{RecipientsKey, "no recipient"}},
		"only a comment":      {func(d map[string]string) { d[RecipientsKey] = "# none yet\n" }, []string{RecipientsKey, "no recipient"}},
		"not a recipient":     {func(d map[string]string) { d[RecipientsKey] += "AGE-SECRET-KEY-1CANARY\n" }, []string{RecipientsKey, "line 2"}},
		"no certificate":      {func(d map[string]string) { delete(d, CertificateKey) }, []string{CertificateKey}},
		"damaged certificate": {func(d map[string]string) { d[CertificateKey] = strings.Replace(d[CertificateKey], "MII", "AAA", 1) }, []string{CertificateKey}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t)
			if test.change != nil {
				data := good(t)
				test.change(data)
				cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: PublicConfigMap}, Data: data}
				if _, err := in.admin.CoreV1().ConfigMaps(in.ns).Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			p, err := FetchPublic(t.Context(), in.client, in.ns)
			if err == nil || len(p.Recipients) > 0 || !p.Cert.IsZero() {
				t.Fatalf("got %v and error %v", p.Recipients, err)
			}
			for _, text := range append(test.want, in.ns+"/"+PublicConfigMap) {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not name %q: %v", text, err)
				}
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the error shows content: %v", err)
			}
		})
	}
}

// Not parallel: klog is global.
func TestNoKeyMaterialInTheClientsLog(t *testing.T) {
	in := newInstallation(t)
	defer klog.CaptureState().Restore()
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	for k, v := range map[string]string{"logtostderr": "false", "alsologtostderr": "false", "stderrthreshold": "FATAL", "v": "10"} {
		if err := fs.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	klog.SetOutput(&log)

	foreign, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	s := in.store()
	s.Client = in.as(func(*rest.Config) {}) // made at this verbosity
	s.DecryptionSecret = "sops-age"
	in.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s.DecryptionSecret}, Data: map[string][]byte{"a.agekey": foreign.Text().Reveal()}})
	log.Reset() // that was the test's own
	ring, err := s.Ensure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	public, err := ring.Public()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Publish(t.Context(), public); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	klog.Flush()
	text := log.String() + "\n" + harness.Undump(log.String())
	if !strings.Contains(text, public.Recipients[0].String()) {
		t.Fatal("not even the public keys are in the log: it does not hold bodies, and the test sees nothing")
	}
	search := map[string][]byte{"token": ring.Token.Reveal(), "foreign identity": foreign.Text().Reveal()}
	for _, g := range ring.Generations {
		search["identity"] = g.Identity.Text().Reveal()
		search["certificate key"] = g.Certificate.PEM().Reveal()[100:200] // a part: line ends may be quoted
	}
	for what, secret := range search {
		for form, needle := range map[string]string{
			"raw": string(secret), "base64": base64.StdEncoding.EncodeToString(secret)[:32], "hex": fmt.Sprintf("%x", secret[:16]),
		} {
			if strings.Contains(text, needle) {
				t.Errorf("the %s is in the log (%s)", what, form)
			}
		}
	}
	for _, needle := range []string{"AGE-SECRET-KEY-1", "QUdFLVNFQ1JFVC1LRVkt", "PRIVATE KEY-----", base64.StdEncoding.EncodeToString([]byte("-----BEGIN RSA PRIVATE"))[:24]} {
		if strings.Contains(text, needle) {
			t.Errorf("%q is in the log", needle)
		}
	}
}
