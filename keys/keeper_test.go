package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/test/harness"
)

// soon is when a test gives up: a change of the keys is to be dealt with in less than two
// seconds, which a busy machine may well miss.
const soon = 30 * time.Second

// within fails the test where something does not come in time.
func (in *installation) within(limit time.Duration, what string, check func() error) {
	in.t.Helper()
	start := time.Now()
	if err := harness.Until(in.t.Context(), limit, 20*time.Millisecond, what, func(context.Context) error { return check() }); err != nil {
		in.t.Fatal(err)
	}
	in.t.Logf("%s: %s", what, time.Since(start).Round(10*time.Millisecond))
}

func (in *installation) published() Public {
	in.t.Helper()
	p, err := FetchPublic(in.t.Context(), in.admin, in.ns)
	if err != nil {
		in.t.Fatal(err)
	}
	return p
}

// states are the published ones, newest first.
func (in *installation) states() string {
	in.t.Helper()
	var out []string
	for _, g := range in.published().Generations {
		out = append(out, fmt.Sprint(g.Number, " ", g.State))
	}
	return strings.Join(out, ", ")
}

func (in *installation) statesAre(want string) func() error {
	return func() error {
		if got := in.states(); got != want {
			return fmt.Errorf("published are %q, want %q", got, want)
		}
		return nil
	}
}

func (in *installation) relabel(number int, labels, annotations map[string]string) {
	in.t.Helper()
	meta := map[string]any{}
	if labels != nil {
		meta["labels"] = labels
	}
	if annotations != nil {
		meta["annotations"] = annotations
	}
	patch := mustJSON(in.t, map[string]any{"metadata": meta})
	if _, err := in.admin.CoreV1().Secrets(in.ns).Patch(in.t.Context(), Generation{Number: number}.SecretName(), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		in.t.Fatal(err)
	}
}

// begin makes the first generation, publishes it and follows it.
func (in *installation) begin(change func(*Keeper)) *harness.Log {
	in.t.Helper()
	in.ready()
	k, log := in.keeper(in.store(), change)
	ring, err := k.Once(in.t.Context())
	if err != nil {
		in.t.Fatal(err)
	}
	mark := in.cp.Mark()
	in.run(k, ring)
	in.watched(mark)
	return log
}

func (in *installation) ask() int {
	in.t.Helper()
	n, err := Store{Client: in.admin, Namespace: in.ns}.Ask(in.t.Context())
	if err != nil {
		in.t.Fatal(err)
	}
	return n
}

func TestAGenerationThatIsAskedForIsMadePublishedAndSealedTo(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	var changed atomic.Int32
	log := in.begin(func(k *Keeper) { k.Changed = func() { changed.Add(1) } })
	old := in.published()
	if n := in.ask(); n != 2 {
		t.Fatalf("asked for generation %d, want 2", n)
	}
	in.eventually("it is published", in.statesAre("2 active, 1 active"))
	now := in.published()
	if now.Recipients[0].String() == old.Recipients[0].String() || now.Recipients[0].String() != now.Generations[0].Recipient || now.Cert.Fingerprint() != now.Generations[0].Certificate || len(now.Recipients) != 1 {
		t.Errorf("sealed to is not the new generation alone: %v, %+v", now.Recipients, now.Generations)
	}
	cm, err := in.admin.CoreV1().ConfigMaps(in.ns).Get(t.Context(), PublicConfigMap, metav1.GetOptions{})
	if _, there := wishOf(cm); err != nil || there {
		t.Errorf("the wish is still there: %v, %v", cm.Annotations, err)
	}
	ring := in.ring()
	if len(ring.Keyring().Identities) != 2 || len(ring.CertificateKeys()) != 2 {
		t.Error("the old generation does not open any more")
	}
	if changed.Load() != 1 {
		t.Errorf("told %d times of other keys, want once", changed.Load())
	}
	t.Log("its deletion does not bring it back: the wish was fulfilled")
	if err := in.admin.CoreV1().Secrets(in.ns).Delete(t.Context(), "gitseal-key-2", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	in.within(soon, "it is gone", in.statesAre("1 active"))
	time.Sleep(2 * time.Second)
	if _, there := in.secrets()["gitseal-key-2"]; there {
		t.Error("generation 2 was made again")
	}
	if text := log.String(); strings.Contains(text, "AGE-SECRET-KEY") || strings.Contains(text, "PRIVATE KEY") || !strings.Contains(text, "key generation is gone") {
		t.Errorf("log:\n%s", text)
	}
}

func TestManyAgentsAndManyWhoAskGiveExactlyOneGeneration(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.ready()
	const agents, people = 2, 4
	for range agents {
		s := in.store()
		s.Client = in.as(func(c *rest.Config) { c.UserAgent = in.ns })
		k, _ := in.keeper(s, nil)
		ring, err := k.Once(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		in.run(k, ring)
	}
	mark := in.cp.Mark()
	in.watched(0)
	asked := make([]int, people)
	var wg sync.WaitGroup
	errs := make([]error, people)
	begin := make(chan struct{})
	for i := range people {
		client := in.as(func(*rest.Config) {})
		wg.Go(func() {
			<-begin
			asked[i], errs[i] = Store{Client: client, Namespace: in.ns}.Ask(t.Context())
		})
	}
	close(begin)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, n := range asked {
		if n != 2 {
			t.Errorf("asked for %v, want generation 2 each", asked)
		}
	}
	in.eventually("it is published", in.statesAre("2 active, 1 active"))
	time.Sleep(3 * time.Second) // a slower agent may still be making one
	if names := slices.Sorted(maps.Keys(in.secrets())); !cmp.Equal(names, []string{"gitseal-key-1", "gitseal-key-2", TokenSecret}) {
		t.Errorf("Secrets are %v", names)
	}
	ring := in.ring()
	if got := in.published().Recipients[0].String(); got != ring.Generations[0].Identity.Recipient().String() {
		t.Error("published is a key that no Secret holds")
	}
	lost := 0
	for _, e := range in.requests(mark) {
		if e.Verb == "create" && e.Resource == "secrets" && e.Code == 409 {
			lost++
		}
	}
	t.Logf("%d creates lost the race", lost)
}

// An agent that dies after the Secret was made leaves the wish behind.
func TestACrashBetweenMakingAndPublishingGivesOneGeneration(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.ready()
	k, _ := in.keeper(in.store(), nil)
	if _, err := k.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	in.ask()
	ring, err := k.settle(t.Context()) // makes the Secret; what comes next is lost
	if err != nil || ring.Newest() != 2 {
		t.Fatalf("newest is %d, %v", ring.Newest(), err)
	}
	made := in.secrets()["gitseal-key-2"]
	another, _ := in.keeper(in.store(), nil)
	if ring, err = another.Once(t.Context()); err != nil || ring.Newest() != 2 {
		t.Fatalf("newest is %d, %v", ring.Newest(), err)
	}
	if err := in.statesAre("2 active, 1 active")(); err != nil {
		t.Error(err)
	}
	if now := in.secrets()["gitseal-key-2"]; now.ResourceVersion != made.ResourceVersion || len(in.secrets()) != 3 {
		t.Errorf("it was made again, or one more: %v", slices.Collect(maps.Keys(in.secrets())))
	}
	if n := in.ask(); n != 3 {
		t.Errorf("the next one is %d, want 3: the wish was not taken off", n)
	}
}

func TestAWishThatCanNotBeFulfilledIsIgnoredAndTakenOff(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	log := in.begin(nil)
	for _, text := range []string{"3", "0", "-1", "02", "+2", "two", "99999999999999999999", ""} {
		in.edit(func(c *corev1.ConfigMap) { c.Annotations = map[string]string{GenerationAnnotation: text} })
		in.eventually(fmt.Sprintf("%q is taken off", text), func() error {
			cm, err := in.admin.CoreV1().ConfigMaps(in.ns).Get(t.Context(), PublicConfigMap, metav1.GetOptions{})
			if _, there := wishOf(cm); err == nil && there {
				err = errors.New("it is there")
			}
			return err
		})
	}
	if len(in.secrets()) != 2 {
		t.Errorf("Secrets are %v", slices.Collect(maps.Keys(in.secrets())))
	}
	if n := strings.Count(log.String(), "can not be made: ignored"); n < 8 {
		t.Errorf("%d warnings, want eight:\n%s", n, log)
	}
}

func TestKeysThatAreRelabelledAddedOrRemovedCountAtOnce(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	var changed atomic.Int32
	in.begin(func(k *Keeper) { k.Changed = func() { changed.Add(1) } })
	state := func(s State) map[string]string { return map[string]string{StateLabel: string(s)} }
	third := in.sample(2, 3, Standby).secret(in.ns)
	for i, step := range []struct {
		what   string
		do     func()
		states string
		opens  int
		sealed int // which of the samples is sealed to
	}{
		{"a second one appears", func() { in.put(in.sample(1, 2, Active).secret(in.ns)) }, "2 active, 1 active", 2, 1},
		{"one on standby is not published", func() { in.put(third) }, "3 standby, 2 active, 1 active", 3, 1},
		{"the first is retired", func() { in.relabel(1, state(Retired), nil) }, "3 standby, 2 active, 1 retired", 2, 1},
		{"and taken back", func() { in.relabel(1, state(Active), nil) }, "3 standby, 2 active, 1 active", 3, 1},
		{"the third becomes active", func() { in.relabel(3, state(Active), nil) }, "3 active, 2 active, 1 active", 3, 2},
		{"it loses its label", func() { in.drop(3, StateLabel) }, "2 active, 1 active", 2, 1},
		{"the second is deleted", func() {
			if err := in.admin.CoreV1().Secrets(in.ns).Delete(t.Context(), "gitseal-key-2", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}, "1 active", 1, 0},
	} {
		step.do()
		in.within(soon, step.what, in.statesAre(step.states))
		if n := len(in.ring().CertificateKeys()); n != step.opens {
			t.Errorf("%s: %d keys open, want %d", step.what, n, step.opens)
		}
		if got, want := in.published().Recipients[0].String(), in.sample(step.sealed, 1, Active).Identity.Recipient().String(); got != want {
			t.Errorf("%s: published is %s, want %s", step.what, got, want)
		}
		if int(changed.Load()) < i+1 {
			t.Errorf("%s: nobody was told", step.what)
		}
	}
}

func (in *installation) drop(number int, label string) {
	in.t.Helper()
	in.relabelJSON(number, fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, label))
}

func (in *installation) relabelJSON(number int, patch string) {
	in.t.Helper()
	if _, err := in.admin.CoreV1().Secrets(in.ns).Patch(in.t.Context(), Generation{Number: number}.SecretName(), types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		in.t.Fatal(err)
	}
}

func activeOf(t *testing.T, r *Ring) string {
	t.Helper()
	g, err := r.Active()
	if err != nil {
		t.Fatal(err)
	}
	return g.Identity.Recipient().String()
}

func TestANewGenerationWaitsForItsBackup(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.begin(func(k *Keeper) { k.RequireBackup = true })
	if err := in.statesAre("1 active")(); err != nil { // the first one does not wait
		t.Fatal(err)
	}
	first := in.published().Recipients[0].String()
	in.ask()
	in.eventually("it is on standby", in.statesAre("2 standby, 1 active"))
	if got := in.published().Recipients[0].String(); got != first {
		t.Error("a generation without a backup is sealed to")
	}
	in.relabel(2, nil, map[string]string{BackedUpAnnotation: "yesterday"})
	time.Sleep(1500 * time.Millisecond)
	if err := in.statesAre("2 standby, 1 active")(); err != nil {
		t.Errorf("a backup at no time counts: %v", err)
	}
	at := time.Date(2026, 11, 22, 6, 0, 0, 0, time.UTC)
	in.relabel(2, nil, map[string]string{BackedUpAnnotation: at.Format(time.RFC3339)})
	in.within(soon, "with a backup it becomes active", in.statesAre("2 active, 1 active"))
	p := in.published()
	if p.Recipients[0].String() == first || !p.Generations[0].BackedUp.Equal(at) || !p.Generations[1].BackedUp.IsZero() {
		t.Errorf("published are %+v", p.Generations)
	}
	t.Log("somebody puts it on standby by hand: it stays there")
	in.relabel(2, map[string]string{StateLabel: string(Standby)}, nil)
	in.within(soon, "on standby", in.statesAre("2 standby, 1 active"))
	time.Sleep(1500 * time.Millisecond)
	if err := in.statesAre("2 standby, 1 active")(); err != nil {
		t.Error(err)
	}
}

func TestNoFirstKeyWhereSyncsWereApplied(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "gitseal-inventory-x-0", Labels: map[string]string{inventoryLabel: "x.y"}}})
	mark := in.cp.Mark()
	_, err := in.store().Ensure(t.Context())
	if !errors.Is(err, ErrKeysLost) || !strings.Contains(err.Error(), "gitseal-inventory-x-0") || !strings.Contains(err.Error(), "seal keys restore") {
		t.Fatalf("got %v", err)
	}
	if w := in.writes(mark); len(w) > 0 {
		t.Errorf("it sent %v; a token key of its own would stand in the way of the restored one", w)
	}
}

func TestAnAgentThatHadRefusedGoesOnWhenTheKeysAreBack(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	public := in.ready()
	k, log := in.keeper(in.store(), nil)
	if _, err := k.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	saved := in.secrets()
	for name := range saved {
		if err := in.admin.CoreV1().Secrets(in.ns).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	mark := in.cp.Mark()
	done := make(chan *Ring, 1)
	go func() {
		ring, err := k.Prepare(t.Context())
		if err != nil {
			t.Error(err)
		}
		done <- ring
	}()
	harness.Eventually(t, "it has tried three times: the next try is four seconds away", func(context.Context) error {
		if n := strings.Count(log.String(), "keys are not ready"); n < 3 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	if w := in.writes(mark); len(w) > 0 {
		t.Errorf("it sent %v", w)
	}
	if !strings.Contains(log.String(), "seal keys restore") {
		t.Errorf("log:\n%s", log)
	}
	for _, name := range []string{TokenSecret, "gitseal-key-1"} { // the order of a restore
		s := saved[name]
		s.ResourceVersion = ""
		in.put(&s)
	}
	select {
	case ring := <-done:
		if ring == nil || activeOf(t, ring) != public.Recipients[0].String() || len(ring.Generations) != 1 {
			t.Errorf("got %+v", ring)
		}
	case <-time.After(soon):
		t.Error("it does not go on")
	}
}

func TestAskWithoutRightsOrKeys(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	s := Store{Client: in.admin, Namespace: in.ns}
	if _, err := s.Ask(t.Context()); !apierrors.IsNotFound(unwrapped(err)) {
		t.Errorf("without an agent: got %v", err)
	}
	in.begin(nil)
	dev := in.as(func(c *rest.Config) {
		c.Impersonate = rest.ImpersonationConfig{UserName: "dev", Groups: []string{"system:authenticated"}}
	})
	s.Client = dev
	if _, err := s.Ask(t.Context()); !apierrors.IsForbidden(unwrapped(err)) {
		t.Errorf("without rights: got %v", err)
	}
	if n := len(in.secrets()); n != 2 {
		t.Errorf("%d Secrets", n)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// late calls do before the first request that changes a ConfigMap.
type late struct {
	http.RoundTripper
	do *sync.Once
	f  func()
}

func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut {
		l.do.Do(l.f)
	}
	return l.RoundTripper.RoundTrip(r)
}

func TestWhoAsksTooLateGetsTheGenerationOfTheOther(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	in.ready()
	k, _ := in.keeper(in.store(), nil)
	if _, err := k.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	client := in.as(func(c *rest.Config) {
		c.Wrap(func(rt http.RoundTripper) http.RoundTripper {
			return late{rt, &sync.Once{}, func() { // between reading and writing
				in.ask()
				if _, err := k.Once(t.Context()); err != nil {
					t.Error(err)
				}
			}}
		})
	})
	n, err := Store{Client: client, Namespace: in.ns}.Ask(t.Context())
	if err != nil || n != 2 {
		t.Errorf("asked for %d, %v; want generation 2, which is there by now", n, err)
	}
	if _, err := k.Once(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := in.statesAre("2 active, 1 active")(); err != nil {
		t.Error(err)
	}
}
