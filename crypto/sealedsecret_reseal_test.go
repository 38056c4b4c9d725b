package crypto

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/gitseal/gitseal/test/harness"
)

// stockKubeseal runs the real kubeseal.
type stockKubeseal struct{ path, dir string }

func (k stockKubeseal) run(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	if !slices.Contains(args, "-o") {
		args = append(args, "-o", "yaml")
	}
	cmd := exec.Command(k.path, args...)
	cmd.Stdin = strings.NewReader(in)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+k.dir+"/none")
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(errOut.String())
	}
	return string(out), err
}

func (k stockKubeseal) file(t *testing.T, name string, content []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(p, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// unseal returns the values that kubeseal finds with a private key.
func (k stockKubeseal) unseal(t *testing.T, key CertificateKey, manifest string) (map[string]string, error) {
	t.Helper()
	out, err := k.run(t, manifest, "--recovery-unseal", "--recovery-private-key", k.file(t, "tls.key", key.PEM().Reveal()))
	if err != nil {
		return nil, err
	}
	var s struct{ Data map[string]string }
	if err := yaml.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for name, v := range s.Data {
		b, err := base64.StdEncoding.DecodeString(v)
		if err != nil {
			t.Fatal(err)
		}
		values[name] = string(b)
	}
	return values, nil
}

var longBase64 = regexp.MustCompile(`[A-Za-z0-9+/=]{200,}`)

func TestSealedSecretsOfStockKubesealAreSealedAnewAndNothingElseChanges(t *testing.T) {
	t.Parallel()
	kubeseal := stockKubeseal{path: harness.Oracle(t, "kubeseal"), dir: t.TempDir()}
	old, new_ := testCertificateKey(t), otherCertificateKey(t)
	cert := kubeseal.file(t, "cert.pem", old.Certificate().PEM())
	want := map[string]string{"password": "p@ss: \"word\"\n", "empty": "", "bytes": "\x00\xff"}
	plain := `apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: shop
  labels: {app: shop}
  annotations: {note: hi}
type: Opaque
data: {bytes: AP8=, empty: ""}
stringData: {password: "p@ss: \"word\"\n"}
`
	by := func(args ...string) string {
		out, err := kubeseal.run(t, plain, append([]string{"--cert", cert}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	strict := by()
	line := regexp.MustCompile(`(?m)^(    \w+): ([A-Za-z0-9+/=]{200,})$`)
	for name, c := range map[string]struct{ file, scope string }{
		"strict":         {strict, "strict"},
		"namespace-wide": {by("--scope", "namespace-wide"), "namespace-wide"},
		"cluster-wide":   {by("--scope", "cluster-wide"), "cluster-wide"},
		// CVE-2026-22728: the template is not what the scope comes from.
		"the template says another scope": {strings.Replace(strict, "      annotations:\n", "      annotations:\n        sealedsecrets.bitnami.com/cluster-wide: \"true\"\n", 1), "strict"},
		"comments and layout":             {"# head\n" + strings.NewReplacer("spec:", "spec: # the spec\n\n  # ümläut", "    template:", "    # about the template\n    template:").Replace(strict) + "# tail\n", "strict"},
		"double quotes":                   {line.ReplaceAllString(strict, `$1: "$2"`), "strict"},
		"single quotes":                   {line.ReplaceAllString(strict, `$1: '$2' # ü`), "strict"},
		"a block":                         {line.ReplaceAllString(strict, "$1: |\n      $2"), "strict"},
		"a folded block":                  {line.ReplaceAllString(strict, "$1: >-\n      $2\n"), "strict"},
		"in a flow map":                   {flowed(strict), "strict"},
		"a template that would fail":      {strings.Replace(strict, "    template:\n", "    template:\n      data:\n        x: '{{ fail \"no\" }}'\n", 1), "strict"},
		"JSON":                            {by("-o", "json"), "strict"},
		"line ends of Windows":            {strings.ReplaceAll(strict, "\n", "\r\n"), "strict"},
		"no newline at the end":           {strings.TrimRight(strict, "\n"), "strict"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := kubeseal.unseal(t, old, c.file); err != nil && name != "a template that would fail" {
				t.Fatalf("the case itself is broken: %v", err)
			}
			got, listed, err := ResealSealedSecrets(SealedSecretsRequest{File: []byte(c.file), Keys: []CertificateKey{new_, old}, To: new_.Certificate(), Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if len(listed) != 1 || string(listed[0].Target.Scope) != c.scope || len(listed[0].Fields) != len(want) || listed[0].OpenedBy[0] != old.Certificate().Fingerprint() {
				t.Errorf("listed: %v", listed)
			}
			if d := cmp.Diff(longBase64.ReplaceAllString(c.file, "ENC"), longBase64.ReplaceAllString(string(got), "ENC")); d != "" {
				t.Errorf("outside of the values (-want +got):\n%s", d)
			}
			for _, text := range longBase64.FindAllString(c.file, -1) {
				if strings.Contains(string(got), text) {
					t.Error("a value is still the old one")
				}
			}
			for _, v := range longBase64.FindAllString(string(got), -1) {
				if _, err := OpenValue(OpenValueRequest{Keys: []CertificateKey{new_}, Target: Target{"shop", "db", Scope(c.scope)}, Text: v}); err != nil {
					t.Errorf("another scope? %v", err)
				}
			}
			if name == "a template that would fail" {
				return
			}
			values, err := kubeseal.unseal(t, new_, string(got))
			if err != nil {
				t.Fatalf("kubeseal with the new key: %v\n%s", err, got)
			}
			if d := cmp.Diff(want, values); d != "" {
				t.Errorf("kubeseal --recovery-unseal (-want +got):\n%s", d)
			}
			if _, err := kubeseal.unseal(t, old, string(got)); err == nil {
				t.Error("kubeseal still opens it with the old key")
			}
		})
	}
}

// flowed writes encryptedData as a flow map.
func flowed(s string) string {
	head, rest, _ := strings.Cut(s, "  encryptedData:\n")
	lines := strings.SplitAfter(rest, "\n")
	n := 0
	for n < len(lines) && strings.HasPrefix(lines[n], "    ") {
		lines[n] = strings.TrimSpace(lines[n])
		n++
	}
	return head + "  encryptedData: {" + strings.Join(lines[:n], ", ") + "}\n" + strings.Join(lines[n:], "")
}

func TestAFileOfManySealedSecretsAndOtherThings(t *testing.T) {
	t.Parallel()
	old, new_ := testCertificateKey(t), otherCertificateKey(t)
	one := func(name string, scope Scope) string {
		v, err := SealValue(old.Certificate(), Target{"ns", name, scope}, NewSecretString("v-"+name), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		annotations := ""
		if a := scope.Annotation(); a != "" {
			annotations = "\n  annotations: {" + a + ": \"true\"}"
		}
		return "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: " + name + "\n  namespace: ns" + annotations + "\nspec:\n  encryptedData:\n    ü.a: " + v + "\n"
	}
	indent := func(s string) string {
		return "- " + strings.TrimSuffix(strings.ReplaceAll(s, "\n", "\n  "), "  ")
	}
	blob := strings.Replace(one("blob", Strict), "  encryptedData:\n    ü.a:", "  data:", 1)
	file := "# top\n" + plainDoc + "--- # a\n" + one("a", Strict) + "---\n" + one("b", ClusterWide) + "---\n---\napiVersion: v1\nkind: List\nitems:\n" + indent(one("c", NamespaceWide)) + indent(plainDoc) + "---\n" + blob
	got, listed, err := ResealSealedSecrets(SealedSecretsRequest{File: []byte(file), Keys: []CertificateKey{old}, To: new_.Certificate(), Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(longBase64.ReplaceAllString(file, "ENC"), longBase64.ReplaceAllString(string(got), "ENC")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	texts := longBase64.FindAllString(string(got), -1)
	want := []Target{{"ns", "a", Strict}, {"ns", "b", ClusterWide}, {"ns", "c", NamespaceWide}, {"ns", "blob", Strict}}
	if len(listed) != len(want) || len(texts) != len(want) {
		t.Fatalf("%d listed, %d values", len(listed), len(texts))
	}
	for i, w := range want {
		v, err := OpenValue(OpenValueRequest{Keys: []CertificateKey{new_}, Target: w, Text: texts[i]})
		if err != nil || string(v.Reveal()) != "v-"+w.Name || listed[i].Target != w {
			t.Errorf("%v: %v", w, err)
		}
	}
	if listed[0].Fields[0] != `encryptedData["ü.a"]` || listed[3].Fields[0] != "data" {
		t.Errorf("fields %q and %q", listed[0].Fields, listed[3].Fields)
	}
}

func TestSealedSecretsThatCanNotBeSealedAnewAreRefused(t *testing.T) {
	t.Parallel()
	old, new_ := testCertificateKey(t), otherCertificateKey(t)
	v, err := SealValue(old.Certificate(), Target{"ns", "a", Strict}, NewSecretString("hunter2"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	good := "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: a\n  namespace: ns\nspec:\n  encryptedData:\n    k: " + v + "\n"
	for name, c := range map[string]struct {
		file  string
		keys  []CertificateKey
		says  string
		wants func(error) bool
	}{
		"another key":              {good, []CertificateKey{new_}, "line 8: SealedSecret ns/a: encryptedData.k: no key opens it", isA[*SealedValueError]},
		"no key":                   {good, nil, "no key held", isA[*SealedValueError]},
		"a wider scope":            {strings.Replace(good, "  name: a\n", "  name: a\n  annotations: {sealedsecrets.bitnami.com/cluster-wide: \"true\"}\n", 1), []CertificateKey{old}, "sealed with scope strict", isA[*SealedValueError]},
		"renamed":                  {strings.Replace(good, "name: a", "name: b", 1), []CertificateKey{old}, "SealedSecret ns/b", isA[*SealedValueError]},
		"no namespace":             {strings.Replace(good, "  namespace: ns\n", "", 1), []CertificateKey{old}, "", func(err error) bool { return errors.Is(err, ErrNamespaceMissing) }},
		"a value that is no text":  {strings.Replace(good, v, "{a: b}", 1), []CertificateKey{old}, "not a text", isA[*SealedSecretError]},
		"an alias":                 {strings.Replace(good, "k: ", "k: &x ", 1), []CertificateKey{old}, "one line", isA[*SealedSecretError]},
		"a list for encryptedData": {strings.Replace(good, "k: ", "- ", 1), []CertificateKey{old}, "not a map", isA[*SealedSecretError]},
		"not YAML":                 {good + "  {\n", []CertificateKey{old}, "line ", isA[*FormatError]},
		"something else":           {"kind: SealedSecrets\n", nil, "", func(err error) bool { return errors.Is(err, ErrNoSealedSecret) }},
	} {
		got, listed, err := ResealSealedSecrets(SealedSecretsRequest{File: []byte(c.file), Keys: c.keys, To: new_.Certificate(), Now: time.Now()})
		if err == nil || !c.wants(err) || got != nil || listed != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		hides(t, err, "hunter2", v[:40])
	}
	withNamespace := SealedSecretsRequest{File: []byte(strings.Replace(good, "  namespace: ns\n", "", 1)), Keys: []CertificateKey{old}, To: new_.Certificate(), Namespace: "ns", Now: time.Now()}
	if _, _, err := ResealSealedSecrets(withNamespace); err != nil {
		t.Error(err)
	}
	expired := SealedSecretsRequest{File: []byte(good), Keys: []CertificateKey{old}, To: new_.Certificate(), Now: new_.Certificate().NotAfter().Add(time.Hour)}
	if _, _, err := ResealSealedSecrets(expired); !errors.Is(err, ErrExpiredCertificate) {
		t.Errorf("got %v", err)
	}
}
