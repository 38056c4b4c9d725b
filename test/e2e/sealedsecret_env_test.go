package e2e

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/test/harness"
)

// sealedEnv is an env whose cluster also has the controller of sealed-secrets.
type sealedEnv struct {
	*env
	dynamic    dynamic.Interface
	kubeseal   string
	controller *harness.SealedSecrets
}

func newSealedEnv(t *testing.T) *sealedEnv {
	t.Helper()
	kubeseal := harness.Oracle(t, "kubeseal")
	cp := harness.NewControlPlane(t)
	config, err := cp.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	config.WarningHandler = rest.NoWarnings{} // of fields that nobody knows
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return &sealedEnv{
		env: newEnvOn(t, cp), dynamic: client, kubeseal: kubeseal,
		controller: harness.NewSealedSecrets(t, cp, harness.SealedSecretsConfig{}),
	}
}

// another is an env of its own on the same cluster, for t.
func (e *sealedEnv) another(t *testing.T) *sealedEnv {
	t.Helper()
	return &sealedEnv{env: newEnvOn(t, e.cp), dynamic: e.dynamic, kubeseal: e.kubeseal, controller: e.controller}
}

func (e *sealedEnv) sealedSecrets(namespace string) dynamic.ResourceInterface {
	return e.dynamic.Resource(harness.SealedSecretsResource()).Namespace(namespace)
}

// file writes a file outside of the repository and returns its path.
func (e *sealedEnv) file(name, content string) string {
	e.t.Helper()
	path := filepath.Join(e.home, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		e.t.Fatal(err)
	}
	return path
}

// foreignCert makes a certificate whose key nobody has.
func (e *sealedEnv) foreignCert() string {
	e.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		e.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		e.t.Fatal(err)
	}
	return e.file("foreign.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

// sealWith seals a Secret by kubeseal. cert is a file or a URL.
func (e *sealedEnv) sealWith(cert string, secret map[string]any, args ...string) map[string]any {
	e.t.Helper()
	plain, err := yaml.Marshal(secret)
	if err != nil {
		e.t.Fatal(err)
	}
	out, errOut, code := e.run(string(plain), e.kubeseal, append([]string{"--cert", cert, "-o", "yaml"}, args...)...)
	if code != 0 {
		e.t.Fatalf("kubeseal: %s", errOut)
	}
	var sealed map[string]any
	if err := yaml.Unmarshal([]byte(out), &sealed); err != nil {
		e.t.Fatal(err)
	}
	return sealed
}

// sealRaw seals one text by kubeseal --raw.
func (e *sealedEnv) sealRaw(cert, namespace, name, text string, args ...string) string {
	e.t.Helper()
	out, errOut, code := e.run(text, e.kubeseal, append([]string{"--raw", "--cert", cert, "--namespace", namespace, "--name", name, "--from-file", "/dev/stdin"}, args...)...)
	if code != 0 {
		e.t.Fatalf("kubeseal --raw: %s", errOut)
	}
	return out
}

// manifest is the text of an object, as it lies in git.
func manifest(t *testing.T, object map[string]any) string {
	t.Helper()
	b, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// synced waits until the controller has said what became of a SealedSecret, and
// returns whether it is content, and its message.
func (e *sealedEnv) synced(namespace, name string) (ok bool, message string) {
	e.t.Helper()
	e.eventually("the controller has dealt with "+name, func(ctx context.Context) error {
		u, err := e.sealedSecrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if seen, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration"); seen != u.GetGeneration() {
			return fmt.Errorf("it has seen generation %d of %d", seen, u.GetGeneration())
		}
		conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
		for _, c := range conditions {
			c, _ := c.(map[string]any)
			if c["type"] == "Synced" {
				ok = c["status"] == "True"
				message, _ = c["message"].(string)
				return nil
			}
		}
		return fmt.Errorf("no condition Synced in %v", conditions)
	})
	return ok, message
}

// plainSecret is what we compare of a Secret.
type plainSecret struct {
	Data        map[string]string
	Type        corev1.SecretType
	Immutable   *bool
	Labels      map[string]string
	Annotations map[string]string
}

// syncLabel is what the agent adds to all that it applies.
const syncLabel = "gitseal.io/sync"

func plainOf(s *corev1.Secret) *plainSecret {
	p := &plainSecret{Data: map[string]string{}, Type: s.Type, Immutable: s.Immutable, Labels: maps.Clone(s.Labels), Annotations: s.Annotations}
	for k, v := range s.Data {
		p.Data[k] = string(v)
	}
	if delete(p.Labels, syncLabel); len(p.Labels) == 0 {
		p.Labels = nil
	}
	if len(p.Annotations) == 0 {
		p.Annotations = nil
	}
	return p
}

// needles are texts that must not show: the beginnings of the values that hold
// the secret, and lines of the private keys. Other values may show by chance.
func needles(secret string, values []string, keys ...[]byte) map[string]string {
	out := map[string]string{"the secret": secret}
	for i, v := range slices.Compact(slices.Sorted(slices.Values(values))) {
		if strings.Contains(v, secret) {
			out[fmt.Sprintf("value %d", i)] = v[:min(len(v), 64)]
		}
	}
	for i, key := range keys {
		lines := strings.Split(string(key), "\n")
		out[fmt.Sprintf("private key %d", i)] = lines[len(lines)/2]
	}
	return out
}

// shown says which of the texts show, in any disguise, in what a program printed.
func shown(values map[string]string, where ...haystack) []string {
	return search(values, where, nil)
}
