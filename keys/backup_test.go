package keys

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/crypto"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// adminStore acts as the one at the laptop.
func (in *installation) adminStore() Store {
	return Store{Client: in.admin, Namespace: in.ns, Now: time.Now}
}

func (in *installation) export() crypto.Secret {
	in.t.Helper()
	e, err := in.adminStore().Export(in.t.Context(), noon)
	if err != nil {
		in.t.Fatal(err)
	}
	return e.Text
}

// data is what the Secrets hold.
func (in *installation) data() map[string]map[string][]byte {
	in.t.Helper()
	out := map[string]map[string][]byte{}
	for name, s := range in.secrets() {
		out[name] = s.Data
	}
	return out
}

func TestABackupBringsEverythingBack(t *testing.T) {
	t.Parallel()
	in, empty := newInstallation(t), newInstallation(t)
	in.ready()
	in.put(in.sample(1, 2, Active).secret(in.ns))
	in.put(in.sample(2, 3, Standby).secret(in.ns))
	in.relabel(1, map[string]string{StateLabel: string(Retired)}, map[string]string{corev1.LastAppliedConfigAnnotation: "KEY-COPY-CANARY"})
	text := in.export()
	if strings.Contains(string(text.Reveal()), "KEY-COPY-CANARY") {
		t.Error("the backup holds foreign annotations")
	}
	done, err := empty.adminStore().Restore(t.Context(), text)
	if err != nil || !cmp.Equal(done.Created, []string{TokenSecret, "gitseal-key-3", "gitseal-key-2", "gitseal-key-1"}) || len(done.Kept) > 0 {
		t.Fatalf("got %+v, %v", done, err)
	}
	if diff := cmp.Diff(empty.data(), in.data()); diff != "" {
		t.Error("other Secrets than before")
	}
	mark := empty.cp.Mark()
	ring, err := empty.store().Ensure(t.Context())
	if err != nil || !ring.same(in.ring()) || !ring.Token.Equal(in.ring().Token) {
		t.Fatalf("an agent has other keys, or %v", err)
	}
	if w := empty.writes(mark); len(w) > 0 {
		t.Errorf("its first start sent %v", w)
	}
	for _, g := range ring.Generations {
		if !g.BackedUp.Equal(noon) {
			t.Errorf("generation %d was backed up at %s", g.Number, g.BackedUp)
		}
	}

	t.Log("again: nothing; one that was lost: that one; a state that was changed since stays")
	if err := empty.admin.CoreV1().Secrets(empty.ns).Delete(t.Context(), "gitseal-key-2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	empty.relabel(3, map[string]string{StateLabel: string(Active)}, nil)
	for _, want := range [][]string{{"gitseal-key-2"}, nil} {
		done, err := empty.adminStore().Restore(t.Context(), text)
		if err != nil || !slices.Equal(done.Created, want) || len(done.Kept)+len(want) != 4 {
			t.Errorf("got %+v, %v; want %v", done, err, want)
		}
	}
	if s := empty.secrets()["gitseal-key-3"].Labels[StateLabel]; s != string(Active) {
		t.Errorf("generation 3 is %s", s)
	}
}

func TestARestoreThatDiffersWritesNothing(t *testing.T) {
	t.Parallel()
	for name, other := range map[string]struct {
		put  func(in *installation)
		says []string
	}{
		"another key": {func(in *installation) { in.put(in.sample(1, 1, Active).secret(in.ns)) }, []string{"gitseal-key-1", "age1", "SHA256:"}},
		"another token key": {func(in *installation) {
			in.put(tokenSecret(in.ns, crypto.NewSecretString(strings.Repeat("u", tokenKeyBytes))))
		}, []string{TokenSecret, "token key "}},
		"what is no key": {func(in *installation) {
			in.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "gitseal-key-1"}, Data: map[string][]byte{"a": []byte("b")}})
		}, []string{"gitseal-key-1", "what is no key"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in, there := newInstallation(t), newInstallation(t)
			in.ready()
			in.put(in.sample(2, 2, Active).secret(in.ns))
			other.put(there)
			before := slices.Collect(maps.Keys(there.secrets()))
			done, err := there.adminStore().Restore(t.Context(), in.export())
			var differs *DiffersError
			if !errors.As(err, &differs) || len(differs.Secrets) != 1 || differs.Secrets[0].Cluster == differs.Secrets[0].Backup || len(done.Created) > 0 {
				t.Fatalf("got %+v, %v", done, err)
			}
			for _, text := range append(other.says, there.ns) {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not name %s: %v", text, err)
				}
			}
			if now := slices.Collect(maps.Keys(there.secrets())); !cmp.Equal(now, before) {
				t.Errorf("Secrets are %v, were %v", now, before)
			}
			noKeyIn(t, err.Error())
		})
	}
}

// noKeyIn fails the test where a text holds a private key.
func noKeyIn(t *testing.T, text string) {
	t.Helper()
	text = strings.ReplaceAll(text, "AGE-SECRET-KEY-1…", "") // what a message says is expected
	for _, needle := range []string{"AGE-SECRET-KEY-", "QUdFLVNFQ1JFVC1LRVkt", "PRIVATE KEY", "LS0tLS1CRUdJTiBSU0"} {
		if strings.Contains(text, needle) {
			t.Errorf("a private key is in %s", text)
		}
	}
}

func TestWhatIsNoBackupIsRefusedAndNotQuoted(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.ready()
	good := string(in.export().Reveal())
	for name, text := range map[string]string{
		"nothing":             "",
		"other YAML":          "apiVersion: v1\nkind: ConfigMap\n",
		"bad YAML":            "apiVersion: v1\nkind: List\nitems: [CANARY",
		"an unknown field":    good + "canary: CANARY\n",
		"another object":      strings.Replace(good, "kind: Secret", "kind: Pod", 1),
		"another name":        strings.Replace(good, "name: gitseal-key-1", "name: gitseal-key-CANARY", 1),
		"no key":              good[:strings.LastIndex(good, "- apiVersion")],
		"a damaged key":       strings.Replace(good, "identity.agekey: ", "identity.agekey: QUFB", 1),
		"a key without label": strings.Replace(good, "gitseal.io/key: active", "gitseal.io/key: CANARY", 1),
	} {
		there := newInstallation(t)
		_, err := there.adminStore().Restore(t.Context(), crypto.NewSecretString(text))
		if !errors.Is(err, ErrNoKeys) || len(there.secrets()) > 0 {
			t.Errorf("%s: got %v and %d Secrets", name, err, len(there.secrets()))
		}
		if all := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(all, "CANARY") && name != "another name" {
			t.Errorf("%s: it is quoted: %s", name, all)
		} else {
			noKeyIn(t, all)
		}
	}
}

func TestABackupIsNotedOnTheKeysThatItHolds(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.begin(nil)
	e, err := in.adminStore().Export(t.Context(), noon)
	if err != nil {
		t.Fatal(err)
	}
	in.put(in.sample(1, 2, Active).secret(in.ns)) // made after the backup
	if err := in.adminStore().NoteBackup(t.Context(), e.Generations, noon); err != nil {
		t.Fatal(err)
	}
	in.within(soon, "it is published", func() error {
		g := in.published().Generations
		if len(g) != 2 || !g[0].BackedUp.IsZero() || !g[1].BackedUp.Equal(noon) {
			return fmt.Errorf("it is %+v", g)
		}
		return nil
	})
	if err := in.admin.CoreV1().Secrets(in.ns).Delete(t.Context(), "gitseal-key-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	in.put(in.sample(2, 1, Active).secret(in.ns))
	if err := in.adminStore().NoteBackup(t.Context(), e.Generations, noon); err == nil || !strings.Contains(err.Error(), "holds another key than the backup") {
		t.Errorf("got %v", err)
	}
	if in.secrets()["gitseal-key-1"].Annotations[BackedUpAnnotation] != "" {
		t.Error("a key that is in no backup is said to be in one")
	}
}

func TestOnlyOneThatIsNotSealedToCanBeRetired(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.putToken()
	for i := range 3 {
		in.put(in.sample(i, i+1, Active).secret(in.ns))
	}
	s := in.adminStore()
	if _, err := s.Retire(t.Context(), 3); !errors.Is(err, ErrSealedTo) {
		t.Errorf("the newest active one: got %v", err)
	}
	if _, err := s.Retire(t.Context(), 4); !errors.Is(err, ErrNoSuchGeneration) {
		t.Errorf("one that is not there: got %v", err)
	}
	if _, err := s.Unretire(t.Context(), 1); !errors.Is(err, ErrNotRetired) {
		t.Errorf("undo of an active one: got %v", err)
	}
	for range 2 { // it is idempotent
		if g, err := s.Retire(t.Context(), 1); err != nil || g.State != Retired || g.Number != 1 {
			t.Errorf("got %+v, %v", g, err)
		}
	}
	if n := len(in.ring().CertificateKeys()); n != 2 {
		t.Errorf("%d keys open, want two", n)
	}
	if g, err := s.Unretire(t.Context(), 1); err != nil || g.State != Active {
		t.Errorf("got %+v, %v", g, err)
	}
	in.relabel(3, map[string]string{StateLabel: string(Retired)}, nil)
	if g, err := s.Unretire(t.Context(), 3); err != nil || g.State != Standby {
		t.Errorf("one that would be sealed to again: got %+v, %v", g, err)
	}
}

func TestImportMakesTheNextGeneration(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	s := in.adminStore()
	mine, own := in.sample(0, 0, Active), in.sample(1, 0, Active)
	if _, err := s.Import(t.Context(), Pair{Identity: mine.Identity}, Standby); err == nil || !strings.Contains(err.Error(), "must be active") {
		t.Errorf("a first one on standby: got %v", err)
	}
	g, err := s.Import(t.Context(), Pair{Identity: mine.Identity, Certificate: &mine.Certificate}, Active)
	if err != nil || g.Number != 1 || g.Recipient != mine.Identity.Recipient().String() || g.Certificate != mine.Certificate.Certificate().Fingerprint() {
		t.Fatalf("got %+v, %v", g, err)
	}
	ring, err := in.store().Ensure(t.Context())
	if err != nil || len(ring.Generations) != 1 || activeOf(t, ring) != g.Recipient {
		t.Fatalf("an agent takes other keys, or %v", err)
	}
	for what, p := range map[string]Pair{
		"the whole":         {mine.Identity, &mine.Certificate},
		"the identity":      {mine.Identity, &own.Certificate},
		"the certificate":   {own.Identity, &mine.Certificate},
		"the identity only": {Identity: mine.Identity},
	} {
		if _, err := s.Import(t.Context(), p, Standby); !errors.Is(err, ErrHeld) {
			t.Errorf("%s again: got %v", what, err)
		}
	}
	if g, err = s.Import(t.Context(), Pair{Identity: own.Identity}, Standby); err != nil || g.Number != 2 || g.State != Standby || g.Certificate == "" {
		t.Errorf("got %+v, %v", g, err)
	}
	if got := activeOf(t, in.ring()); got != mine.Identity.Recipient().String() {
		t.Error("a key on standby is sealed to")
	}
}

func TestWithoutRightsNothingIsSaidOfKeys(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.ready()
	text := in.export()
	s := in.adminStore()
	s.Client = in.as(func(c *rest.Config) {
		c.Impersonate = rest.ImpersonationConfig{UserName: "dev", Groups: []string{"system:authenticated"}}
	})
	ctx := context.WithoutCancel(t.Context())
	for what, do := range map[string]func() error{
		"export":  func() error { _, err := s.Export(ctx, noon); return err },
		"note":    func() error { return s.NoteBackup(ctx, nil, noon) },
		"restore": func() error { _, err := s.Restore(ctx, text); return err },
		"retire":  func() error { _, err := s.Retire(ctx, 1); return err },
		"import": func() error {
			_, err := s.Import(ctx, Pair{Identity: in.sample(1, 1, Active).Identity}, Standby)
			return err
		},
	} {
		err := do()
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want Forbidden", what, err)
		}
		noKeyIn(t, fmt.Sprintf("%v %+v %#v", err, err, err))
	}
}
