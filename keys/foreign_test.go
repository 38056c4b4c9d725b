package keys

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
)

// controllerKeys are two keys of sealed-secrets, made once for all tests.
var controllerKeys = sync.OnceValues(func() (map[string]crypto.CertificateKey, error) {
	older, err := crypto.GenerateCertificateKey(time.Now().Add(-48 * time.Hour))
	newer, errNewer := crypto.GenerateCertificateKey(time.Now())
	return map[string]crypto.CertificateKey{"older": older, "newer": newer}, errors.Join(err, errNewer)
})

// controllerKey is a key Secret as the controller of sealed-secrets makes it.
func controllerKey(t *testing.T, name, which, label string) *corev1.Secret {
	t.Helper()
	all, err := controllerKeys()
	if err != nil {
		t.Fatal(err)
	}
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: all[which].Certificate().PEM(), corev1.TLSPrivateKeyKey: all[which].PEM().Reveal()},
	}
	if label != "" {
		s.Labels = map[string]string{sealedSecretsLabel: label}
	}
	return s
}

// opens names the keys of sealed-secrets that a Ring opens with, in its order. The
// agent's own key comes before them, and is the only one that is published.
func opens(t *testing.T, ring *Ring) []string {
	t.Helper()
	all, err := controllerKeys()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for name, k := range all {
		names[k.Certificate().Fingerprint()] = name
	}
	own := ring.Generations[0].Certificate.Certificate().Fingerprint()
	names[own] = "own"
	got := []string{}
	for _, k := range ring.CertificateKeys() {
		got = append(got, names[k.Certificate().Fingerprint()])
	}
	if p, err := ring.Public(); err != nil || p.Cert.Fingerprint() != own {
		t.Errorf("published is %s (%v), want the agent's own certificate", names[p.Cert.Fingerprint()], err)
	}
	if len(got) == 0 || got[0] != "own" {
		t.Fatalf("got the keys %v, want the agent's own first", got)
	}
	return got[1:]
}

func TestTheAgentOpensWithTheKeysThatTheSealedSecretsControllerUses(t *testing.T) {
	t.Parallel()
	const active, compromised, canary = sealedSecretsActive, "compromised", "CERT-KEY-CANARY-51"
	key := func(name, which, label string) *corev1.Secret { return controllerKey(t, name, which, label) }
	damaged := key("a-damaged", "older", active)
	damaged.Data[corev1.TLSPrivateKeyKey] = []byte("-----BEGIN RSA PRIVATE KEY-----\n" + base64.StdEncoding.EncodeToString([]byte(canary)) + "\n-----END RSA PRIVATE KEY-----\n")
	mixed := key("b-mixed", "older", active)
	mixed.Data[corev1.TLSCertKey] = key("", "newer", "").Data[corev1.TLSCertKey]
	noKey := []string{"holds no key of sealed-secrets", sealedSecretsLabel + "=active"}
	for name, test := range map[string]struct {
		secrets []*corev1.Secret
		want    []string
		err     []string
	}{
		"all active ones, newest first":        {secrets: []*corev1.Secret{key("a", "older", active), key("b", "newer", active)}, want: []string{"newer", "older"}},
		"no compromised one":                   {secrets: []*corev1.Secret{key("a", "older", compromised), key("b", "newer", active)}, want: []string{"newer"}},
		"the unlabelled one of the old name":   {secrets: []*corev1.Secret{key(sealedSecretsLegacy, "older", "")}, want: []string{"older"}},
		"the one of the old name beside newer": {secrets: []*corev1.Secret{key(sealedSecretsLegacy, "older", ""), key("b", "newer", active)}, want: []string{"newer", "older"}},
		"the labelled one of the old name":     {secrets: []*corev1.Secret{key(sealedSecretsLegacy, "older", active)}, want: []string{"older"}},
		// The controller goes by the name here and still opens with it.
		"no compromised one of the old name":  {secrets: []*corev1.Secret{key(sealedSecretsLegacy, "older", compromised), key("b", "newer", active)}, want: []string{"newer"}},
		"no unlabelled one of another name":   {secrets: []*corev1.Secret{key("sealed-secrets-keyx7k2p", "older", ""), key("b", "newer", active)}, want: []string{"newer"}},
		"nothing where there is none":         {err: noKey},
		"nothing where all are compromised":   {secrets: []*corev1.Secret{key("a", "older", compromised), key(sealedSecretsLegacy, "newer", compromised)}, err: noKey},
		"nothing where one is damaged":        {secrets: []*corev1.Secret{damaged, key("b", "newer", active)}, err: []string{"/a-damaged of sealed-secrets"}},
		"nothing where a certificate is off":  {secrets: []*corev1.Secret{mixed, key("c", "newer", active)}, err: []string{"/b-mixed of sealed-secrets"}},
		"every damaged one is named":          {secrets: []*corev1.Secret{damaged, mixed}, err: []string{"/a-damaged of sealed-secrets", "/b-mixed of sealed-secrets"}},
		"a damaged compromised one is nobody": {secrets: []*corev1.Secret{relabelled(damaged, compromised), key("b", "newer", active)}, want: []string{"newer"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInstallation(t)
			in.ready()
			for _, s := range test.secrets {
				in.put(s)
			}
			s := in.store()
			s.SealedSecretsFrom = []string{in.ns}
			ring, err := s.Load(t.Context())
			if len(test.err) > 0 {
				if err == nil || ring != nil {
					t.Fatalf("got a ring and error %v", err)
				}
				for _, text := range append(test.err, in.ns) {
					if !strings.Contains(err.Error(), text) {
						t.Errorf("the error does not name %q: %v", text, err)
					}
				}
				text := fmt.Sprintf("%v %+v %#v %q", err, err, err, err)
				if strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(canary))) || strings.Contains(text, "PRIVATE KEY-----") {
					t.Errorf("the error shows content: %s", text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(opens(t, ring), test.want); diff != "" {
				t.Errorf("got -, want +:\n%s", diff)
			}
		})
	}
}

func relabelled(s *corev1.Secret, label string) *corev1.Secret {
	s = s.DeepCopy()
	s.Labels = map[string]string{sealedSecretsLabel: label}
	return s
}

func TestKeysOfSealedSecretsMayLieInSeveralNamespaces(t *testing.T) {
	t.Parallel()
	in, other := newInstallation(t), newInstallation(t)
	in.ready()
	in.put(controllerKey(t, "a", "older", sealedSecretsActive))
	s := in.store()
	s.SealedSecretsFrom = []string{in.ns, other.ns}
	if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), other.ns) || strings.Contains(err.Error(), in.ns) {
		t.Errorf("got %v, want an error that names the namespace without a key", err)
	}
	other.put(controllerKey(t, "a", "newer", sealedSecretsActive))
	ring, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(opens(t, ring), []string{"newer", "older"}); diff != "" {
		t.Errorf("got -, want +:\n%s", diff)
	}
}

// The controller takes notice when it is restarted only. The agent loads its keys
// for every pass.
func TestAKeyOfSealedSecretsThatIsMarkedCompromisedOpensNothingFromTheNextPassOn(t *testing.T) {
	t.Parallel()
	in := newInstallation(t)
	public := in.ready()
	s := in.store()
	if _, _, err := s.Publish(t.Context(), public); err != nil {
		t.Fatal(err)
	}
	s.SealedSecretsFrom = []string{in.ns}
	in.put(controllerKey(t, "a", "older", sealedSecretsActive))
	in.put(controllerKey(t, "b", "newer", sealedSecretsActive))
	both := []string{"newer", "older"}
	for _, step := range []struct {
		label string
		want  []string
	}{{sealedSecretsActive, both}, {"compromised", []string{"newer"}}, {"", []string{"newer"}}, {sealedSecretsActive, both}} {
		if _, err := in.admin.CoreV1().Secrets(in.ns).Update(t.Context(), controllerKey(t, "a", "older", step.label), metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		mark := in.cp.Mark()
		ring, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(opens(t, ring), step.want); diff != "" {
			t.Errorf("labelled %q: got -, want +:\n%s", step.label, diff)
		}
		if w := in.writes(mark); len(w) > 0 {
			t.Errorf("labelled %q: it sent %v, want no write", step.label, w)
		}
		if err := in.publishedIs(public); err != nil {
			t.Errorf("labelled %q: %v", step.label, err)
		}
	}
}
