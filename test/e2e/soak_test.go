package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

const (
	soakRounds  = 30  // GITSEAL_SOAK=n makes it n
	soakObjects = 40  // names that come and go
	soakKill    = 600 // ms, the longest that an agent lives after what it is killed for
)

// TestSoakKillAtRandomPoints kills agents while they work, and compares cluster
// and inventory with git after each round. GITSEAL_SOAK is the number of rounds
// (default 30, a bit more than a minute), GITSEAL_SOAK_SEED repeats the choices of a run
// that failed; when exactly a kill hits is up to the machine.
func TestSoakKillAtRandomPoints(t *testing.T) {
	t.Parallel()
	rounds := number(t, "GITSEAL_SOAK", soakRounds)
	seed := uint64(number(t, "GITSEAL_SOAK_SEED", int(time.Now().UnixNano()&0x7fffffff)))
	s := &soak{env: newEnv(t).withKeys(), rng: rand.New(rand.NewPCG(seed, 0)), want: map[string]string{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("round %d; repeat with GITSEAL_SOAK_SEED=%d", s.round, seed)
		}
	})
	var err error
	if s.public, err = keys.FetchPublic(t.Context(), s.client, s.system); err != nil {
		t.Fatal(err)
	}
	s.repo.Remove("apps/begin.yaml")
	cluster, err := s.cluster()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for s.round = 1; s.round <= rounds && !t.Failed(); s.round++ {
		for range 1 + s.rng.IntN(4)/3 { // one time in four twice in a row
			s.killOne()
		}
		if s.rng.IntN(3) == 0 { // the agent that comes next finds yet another commit
			s.commit()
		}
		s.mustOnce("--prune-limit", "100%", "-o", "json")
		s.check(cluster)
		if s.round%10 == 0 {
			s.checkIdle()
		}
	}
	took := time.Since(start)
	t.Logf("%d rounds in %s, %s each; of %d kills %d hit before anything of the commit was applied, %d in the middle, %d after it was done",
		rounds, took.Round(time.Second), (took / time.Duration(rounds)).Round(time.Millisecond), s.before+s.middle+s.after, s.before, s.middle, s.after)
}

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

type soak struct {
	*env
	rng    *rand.Rand
	public keys.Public
	want   map[string]string // Kind/name → value, of the last commit
	round  int

	before, middle, after int // where kills hit
}

// commit creates, changes and removes some of the objects. Values come from a
// short list, so that a commit often brings back what was there before.
func (s *soak) commit() {
	s.t.Helper()
	for i := range soakObjects {
		id := "ConfigMap/cm-" + strconv.Itoa(i)
		switch i {
		case 0:
			id = "Secret/sops"
		case 1:
			id = "Secret/sealed"
		}
		_, there := s.want[id]
		switch n := s.rng.IntN(10); {
		case there && n == 0:
			delete(s.want, id)
			s.repo.Remove("apps/" + strings.ToLower(strings.ReplaceAll(id, "/", "-")) + ".yaml")
		case there && n < 4, !there && n < 5:
			value := "SOAK-CANARY-" + strconv.Itoa(s.rng.IntN(3))
			s.want[id] = value
			s.repo.Write("apps/"+strings.ToLower(strings.ReplaceAll(id, "/", "-"))+".yaml", s.manifest(id, value))
		}
	}
	s.want["ConfigMap/always"] = strconv.Itoa(s.rng.Int())
	s.repo.Write("apps/configmap-always.yaml", s.manifest("ConfigMap/always", s.want["ConfigMap/always"]))
	s.repo.Commit("round " + strconv.Itoa(s.round))
}

// manifest seals in this process: sixty times seal would take longer than all
// the rest.
func (s *soak) manifest(id, value string) string {
	s.t.Helper()
	kind, name, _ := strings.Cut(id, "/")
	if kind == "ConfigMap" {
		return configMap(s.app, name, "v", value)
	}
	plain, err := crypto.NewManifest{Name: name, Namespace: s.app, Values: map[string]crypto.Secret{"v": crypto.NewSecretString(value)}}.YAML()
	if err != nil {
		s.t.Fatal(err)
	}
	var out []byte
	if name == "sops" {
		out, err = crypto.SealSOPS(crypto.SealRequest{
			Plain: plain, Format: crypto.YAML, Rule: crypto.Rule{Recipients: s.public.Recipients, EncryptedRegex: crypto.KubernetesSelector}, Now: time.Now(),
		})
	} else {
		var sealed []map[string]any
		sealed, err = crypto.SealManifests(crypto.SealManifestRequest{Plain: plain, Cert: s.public.Cert, Now: time.Now()})
		if err == nil {
			out, err = yaml.Marshal(sealed[0])
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return string(out)
}

// killOne runs an agent and kills it, a little after something happened: it was
// started upon a commit, the commit was pushed while it ran, or it has fetched
// the commit and is about to apply it.
func (s *soak) killOne() {
	s.t.Helper()
	pushedFirst := s.rng.IntN(4) > 0
	if pushedFirst {
		s.commit()
	}
	fetched := s.fetches()
	a := s.start("--prune-limit", "100%", "--log-level", "debug")
	if !pushedFirst {
		s.logSays(a, "commit=")
		fetched = s.fetches()
		s.commit()
	}
	wait := time.Duration(s.rng.IntN(soakKill)) * time.Millisecond
	if s.rng.IntN(5) > 0 {
		s.eventually("the commit is fetched", func(context.Context) error {
			if s.fetches() == fetched {
				return fmt.Errorf("%d fetches", fetched)
			}
			return nil
		})
		wait /= 3 // applying takes two or three tenths of a second
	}
	time.Sleep(wait)
	a.kill()
	s.count(a)
	for form, text := range disguises("SOAK-CANARY-") {
		if strings.Contains(a.log(), text) {
			s.t.Errorf("a value is in the log (%s):\n%s", form, tail(a.log(), 40))
		}
	}
	s.dropLease()
}

// fetches counts packs that the git server has sent.
func (s *soak) fetches() int {
	n := 0
	for _, r := range s.git.Requests() {
		if strings.HasSuffix(r.Path, "/git-upload-pack") {
			n++
		}
	}
	return n
}

// count says where the kill hit, by the one object that every commit changes
// and by the agent's log.
func (s *soak) count(a *agent) {
	s.t.Helper()
	current := s.configMapValue(s.t.Context(), "always", "v", s.want["ConfigMap/always"]) == nil
	switch done := strings.Contains(a.log(), "commit="+s.repo.Head()); {
	case done:
		s.after++
	case current:
		s.middle++
	default:
		s.before++
	}
}

// dropLease does what half a minute would do otherwise: the Lease of a killed
// agent is good for that long, and the next one waits for its end. Here nobody
// holds it any more.
func (s *soak) dropLease() {
	s.t.Helper()
	err := s.client.CoordinationV1().Leases(s.system).Delete(s.t.Context(), "gitseal-sync-default", metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		s.t.Fatal(err)
	}
}

func (s *soak) cluster() (*apply.Cluster, error) {
	cfg, err := s.cp.RESTConfig()
	if err != nil {
		return nil, err
	}
	return apply.Connect(cfg)
}

// check compares cluster and inventory with git.
func (s *soak) check(c *apply.Cluster) {
	s.t.Helper()
	got := map[string]string{}
	configMaps, err := s.client.CoreV1().ConfigMaps(s.app).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, o := range configMaps.Items {
		if o.Name != "kube-root-ca.crt" { // the cluster's own
			got["ConfigMap/"+o.Name] = o.Data["v"]
		}
	}
	secrets, err := s.client.CoreV1().Secrets(s.app).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, o := range secrets.Items {
		got["Secret/"+o.Name] = string(o.Data["v"])
	}
	if diff := cmp.Diff(got, s.want); diff != "" {
		s.t.Errorf("round %d: the cluster is not what git holds: got -, want +:\n%s", s.round, diff)
	}
	inv, err := apply.NewInventoryStore(c, apply.Owner{Namespace: s.system, Name: "default"}).Load(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var ids []string
	for id, e := range inv.Entries {
		ids = append(ids, id.Kind+"/"+id.Name)
		if e.Phase != apply.Applied || id.Namespace != s.app {
			s.t.Errorf("round %d: the inventory has %s in phase %q", s.round, id, e.Phase)
		}
	}
	slices.Sort(ids)
	if diff := cmp.Diff(ids, slices.Sorted(maps.Keys(s.want))); diff != "" {
		s.t.Errorf("round %d: the inventory is not what git holds: got -, want +:\n%s", s.round, diff)
	}
}

// checkIdle makes one more pass, which must find nothing to do.
func (s *soak) checkIdle() {
	s.t.Helper()
	var r struct{ Created, Changed, Pruned, Unchanged, Requests int }
	got := s.mustOnce("-o", "json")
	if err := json.Unmarshal([]byte(got), &r); err != nil {
		s.t.Fatal(err)
	}
	if r.Created+r.Changed+r.Pruned+r.Requests > 0 || r.Unchanged != len(s.want) {
		s.t.Errorf("round %d: a second pass is not idle: %s", s.round, got)
	}
}
