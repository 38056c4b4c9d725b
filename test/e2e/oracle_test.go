package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/test/harness"
)

// awkward values: what formats and shells like to change.
var awkward = map[string]string{
	"plain": "secret", "spaces": "  two  ", "quotes": `"'` + "`$(x)", "number": "0123", "yes": "yes", "null": "null",
	"lines": "one\ntwo\n\n", "unicode": "ünï ☃", "colon": "a: b # c", "long": strings.Repeat("x", 5000), "percent": "%s%%",
}

func manifestOf(ns, name string, values map[string]string) string {
	m := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": ns}, "stringData": values}
	b, err := yaml.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (e *env) assertValues(name string, want map[string]string) {
	e.t.Helper()
	s, err := e.client.CoreV1().Secrets(e.app).Get(e.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		e.t.Error(err)
		return
	}
	for k, v := range want {
		if got := string(s.Data[k]); got != v {
			e.t.Errorf("Secret %s: %s is %q, want %q", name, k, got, v)
		}
	}
	if len(s.Data) != len(want) {
		e.t.Errorf("Secret %s has %d values, want %d", name, len(s.Data), len(want))
	}
}

// agePrivateKey takes the age key out of the cluster, as somebody who leaves
// gitseal would.
func (e *env) keySecret() *corev1.Secret {
	e.t.Helper()
	s, err := e.client.CoreV1().Secrets(e.system).Get(e.t.Context(), "gitseal-key-1", metav1.GetOptions{})
	if err != nil {
		e.t.Fatal(err)
	}
	return s
}

func TestFilesOfStockSopsAndKubesealOpenInTheAgent(t *testing.T) {
	t.Parallel()
	sops, kubeseal := harness.Oracle(t, "sops"), harness.Oracle(t, "kubeseal")
	e := newEnv(t).withKeys()
	recipient := strings.TrimSpace(e.read(".gitseal/recipients.txt"))
	e.repo.Write("apps/kustomization.yaml", fmt.Sprintf(`namespace: %s
resources: [begin.yaml, sops.yaml, strict.yaml, wide.yaml, cluster.yaml]
generatorOptions: {disableNameSuffixHash: true}
secretGenerator:
  - {name: env, envs: [app.env]}
  - {name: file, files: [settings=settings.yaml, app.env]}
`, e.app))
	stock := func(plain, name string, args ...string) string {
		t.Helper()
		file := filepath.Join(e.home, name)
		if err := os.WriteFile(file, []byte(plain), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errOut, code := e.run("", sops, append([]string{"--config", "/dev/null", "encrypt", "--age", recipient}, append(args, file)...)...)
		if code != 0 {
			t.Fatalf("sops: %s", errOut)
		}
		return out
	}
	e.repo.Write("apps/sops.yaml", stock(manifestOf(e.app, "sops", awkward), "sops.yaml", "--encrypted-regex", "^(data|stringData)$"))
	dotenv := "# a comment\nA=1\nQ=\" x \"\nN=one\\ntwo\nE=\nU=ünï\n"
	e.repo.Write("apps/app.env", stock(dotenv, "app.env"))
	settings := "# keep me\nlist:\n    - a: 1\n      b: \"x: y\"\n    - true\nempty: \"\"\n"
	e.repo.Write("apps/settings.yaml", stock(settings, "settings.yaml"))
	for name, args := range map[string][]string{"strict": nil, "wide": {"--scope", "namespace-wide"}, "cluster": {"--scope", "cluster-wide"}} {
		out, errOut, code := e.run(manifestOf(e.app, name, awkward), kubeseal, append([]string{"--cert", ".gitseal/cert.pem", "-o", "yaml"}, args...)...)
		if code != 0 {
			t.Fatalf("kubeseal: %s", errOut)
		}
		e.repo.Write("apps/"+name+".yaml", out)
	}
	e.repo.Commit("from stock tools")
	e.mustOnce()
	for _, name := range []string{"sops", "strict", "wide", "cluster"} {
		e.assertValues(name, awkward)
	}
	e.assertValues("env", map[string]string{"A": "1", "Q": `" x "`, "N": `one\ntwo`, "E": "", "U": "ünï"})
	// Byte for byte what stock sops would have decrypted.
	file := filepath.Join(e.home, "identity")
	if err := os.WriteFile(file, e.keySecret().Data["identity.agekey"], 0o600); err != nil {
		t.Fatal(err)
	}
	t.Logf("compare with sops decrypt")
	want := map[string]string{}
	for key, path := range map[string]string{"settings": "apps/settings.yaml", "app.env": "apps/app.env"} {
		want[key] = e.sopsDecrypt(sops, file, path)
	}
	e.assertValues("file", want)
}

func (e *env) sopsDecrypt(sops, identity, path string) string {
	e.t.Helper()
	out, errOut, code := e.run("", "env", "SOPS_AGE_KEY_FILE="+identity, sops, "decrypt", path)
	if code != 0 {
		e.t.Fatalf("sops decrypt %s: %s", path, errOut)
	}
	return out
}

func TestFilesOfSealOpenInStockSopsAndKubeseal(t *testing.T) {
	t.Parallel()
	sops, kubeseal := harness.Oracle(t, "sops"), harness.Oracle(t, "kubeseal")
	e := newEnv(t).withKeys()
	key := e.keySecret()
	identity, private := filepath.Join(e.home, "identity"), filepath.Join(e.home, "tls.key")
	for file, b := range map[string][]byte{identity: key.Data["identity.agekey"], private: key.Data["tls.key"]} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain := manifestOf(e.app, "db", awkward)
	e.repo.Write("apps/db.yaml", plain)
	e.seal("", "encrypt", "-i", "apps/db.yaml")
	var got struct {
		Metadata   struct{ Annotations map[string]string }
		StringData map[string]string
	}
	if err := yaml.Unmarshal([]byte(e.sopsDecrypt(sops, identity, "apps/db.yaml")), &got); err != nil {
		t.Fatal(err)
	}
	for k, v := range awkward {
		if got.StringData[k] != v {
			t.Errorf("sops decrypt: %s is %q, want %q", k, got.StringData[k], v)
		}
	}
	if b := got.Metadata.Annotations["gitseal.io/sealed-for"]; b != e.app+"/db" {
		t.Errorf("sops decrypt: the binding is %q", b)
	}
	env := "A=1\nN=one\\ntwo\nQ=\" x \"\n"
	e.repo.Write("apps/app.env", e.seal(env, "encrypt", "--for", e.app+"/env", "--filename", "apps/app.env", "-"))
	if got, want := e.sopsDecrypt(sops, identity, "apps/app.env"), env+"GITSEAL_SEALED_FOR="+e.app+"/env\n"; got != want {
		t.Errorf("sops decrypt: got %q, want %q", got, want)
	}
	for scope, flags := range map[string][]string{"strict": nil, "namespace-wide": {"--scope", "namespace-wide"}, "cluster-wide": {"--unbound"}} {
		sealed := e.seal(plain, append([]string{"sealedsecret"}, flags...)...)
		if strings.Contains(sealed, "secret\n") {
			t.Errorf("%s: a value shows in\n%s", scope, sealed)
		}
		out, errOut, code := e.run(sealed, kubeseal, "--recovery-unseal", "--recovery-private-key", private, "-o", "yaml")
		if code != 0 {
			t.Errorf("%s: kubeseal --recovery-unseal: %s", scope, errOut)
			continue
		}
		var s struct{ Data map[string]string }
		if err := yaml.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		for k, v := range awkward {
			b, err := base64.StdEncoding.DecodeString(s.Data[k])
			if err != nil || !bytes.Equal(b, []byte(v)) {
				t.Errorf("%s: kubeseal gives %s as %q, want %q", scope, k, b, v)
			}
		}
	}
}
