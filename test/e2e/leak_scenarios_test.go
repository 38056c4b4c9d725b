package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/harness"
)

// leaks is a repository with a sealed value in every way that there is. A text
// names its values by «object key»: a random value that may show in the Secret of
// that name only.
type leaks struct {
	*env
	to, foreign   crypto.Recipient
	cert, another crypto.Certificate
	values        map[string]string
	resources     []string
}

func newLeaks(e *env) *leaks {
	e.t.Helper()
	l := &leaks{env: e, values: map[string]string{}}
	held := recipientPattern.FindString(e.read(".gitseal/recipients.txt"))
	key, err := crypto.GenerateCertificateKey(time.Now())
	other, err2 := crypto.GenerateIdentity()
	to, err3 := crypto.ParseRecipient(held)
	cert, err4 := crypto.ParseCertificate([]byte(e.read(".gitseal/cert.pem")))
	if err := errors.Join(err, err2, err3, err4); err != nil {
		e.t.Fatal(err)
	}
	l.to, l.foreign, l.cert, l.another = to, other.Recipient(), cert, key.Certificate()
	return l
}

var valueName = regexp.MustCompile(`«([^»]+)»`)

// fill puts random values, and the names of this test, into a text.
func (l *leaks) fill(text string) string {
	text = strings.ReplaceAll(text, "NAMESPACE", l.app)
	return valueName.ReplaceAllStringFunc(text, func(s string) string {
		name := strings.Trim(s, "«»")
		if l.values[name] == "" {
			l.values[name] = canary(l.t)
		}
		return l.values[name]
	})
}

// seal seals a text as a SOPS file.
func (l *leaks) seal(file, text, selector string, binding crypto.Binding, to crypto.Recipient) string {
	l.t.Helper()
	out, err := crypto.SealSOPS(crypto.SealRequest{
		Plain: crypto.NewSecretString(l.fill(text)), Format: crypto.FormatOf(file), Binding: binding, Now: time.Now(),
		Rule: crypto.Rule{EncryptedRegex: selector, Recipients: []crypto.Recipient{to}},
	})
	if err != nil {
		l.t.Fatalf("%s: %v", file, err)
	}
	return string(out)
}

// object writes a resource that is a sealed object.
func (l *leaks) object(name, rest string) {
	l.t.Helper()
	l.resource(name, l.seal(name+".yaml", object("Secret", name, rest), crypto.KubernetesSelector, "", l.to))
}

func (l *leaks) resource(name, content string) {
	l.t.Helper()
	l.repo.Write("apps/"+name+".yaml", strings.ReplaceAll(content, "NAMESPACE", l.app))
	if !slices.Contains(l.resources, name+".yaml") {
		l.resources = append(l.resources, name+".yaml")
	}
}

func object(kind, name, rest string) string {
	return "apiVersion: v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: NAMESPACE}\n" + rest
}

// sealedSecret writes a SealedSecret with one value and more fields of its spec.
func (l *leaks) sealedSecret(name, key, value, spec string, to crypto.Certificate) {
	l.t.Helper()
	text, err := crypto.SealValue(to, crypto.Target{Namespace: l.app, Name: name, Scope: crypto.Strict}, crypto.NewSecretString(l.fill(value)), time.Now())
	if err != nil {
		l.t.Fatal(err)
	}
	if key != "" {
		text = "{" + key + ": " + text + "}"
	}
	field := "encryptedData"
	if key == "" {
		field = "data"
	}
	l.resource(name, "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: "+name+", namespace: NAMESPACE}\nspec:\n  "+field+": "+text+"\n"+spec)
}

// commit writes the kustomization and commits.
func (l *leaks) commit(message, more string) {
	l.t.Helper()
	l.repo.Write("apps/kustomization.yaml", "resources: ["+strings.Join(l.resources, ", ")+"]\n"+generators+strings.ReplaceAll(more, "NAMESPACE", l.app))
	l.repo.Commit(message)
}

const generators = `generatorOptions: {disableNameSuffixHash: true}
secretGenerator:
  - {name: files, files: [values.yaml, config.json, my.ini, blob.bin]}
  - {name: envs, envs: [app.env]}
`

// good is applied. Its keys are objects, with one key each that has the value of
// that name.
func (l *leaks) good() {
	l.t.Helper()
	unit := func(name string) string {
		return l.seal("units.yaml", object("Secret", name, "stringData: {password: '«"+name+" password»'}\n"), crypto.KubernetesSelector, crypto.Binding(l.app+"/"+name), l.to)
	}
	l.resource("units", object("ConfigMap", "beside", "data: {a: b}\n")+"---\n"+unit("unit-a")+"---\n# plain\n"+object("ConfigMap", "between", "data: {a: b}\n")+"---\n"+unit("unit-b"))
	for file, text := range map[string]string{
		"values.yaml": "# «files comment»\na: [x, '«files list»'] # «files inline»\nb:\n  # note\n  - c: «files values.yaml»\n",
		"config.json": `{"a": "«files config.json»", "b": [1, {"c": "«files json»"}]}`,
		"my.ini":      "top = «files top»\n[a]\nk = «files my.ini»\n",
		"blob.bin":    "\x00\x01«files blob.bin»\xff",
		"app.env":     "# «envs comment»\nA=«envs A»\nB=x\\ny\n",
	} {
		l.repo.Write("apps/"+file, l.seal(file, text, "", "", l.to))
	}
	l.resource("outside", l.seal("outside.yaml", object("ConfigMap", "outside", "data: {host: '«outside host»', plain: x}\n"), "^host$", "", l.to))
	l.sealedSecret("template", "password", "«template password»", "  template:\n    data:\n      url: postgres://u:{{ .password }}@h\n      encoded: '{{ .password | b64enc }}'\n", l.cert)
	l.sealedSecret("volatile", "password", "«volatile password»", "  template:\n    data: {salted: '{{ randAlphaNum 8 }}{{ .password }}'}\n", l.cert)
	blob := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"},"data":{"password":"` + base64.StdEncoding.EncodeToString([]byte(l.fill("«deprecated password»"))) + `"}}`
	l.sealedSecret("deprecated", "", blob, "", l.cert)
	l.resource("unverified", strings.Replace(l.seal("x.yaml", object("Secret", "unverified", "type: untouched\nstringData: {password: '«unverified password»'}\n"), crypto.KubernetesSelector, "", l.to), "untouched", "Opaque", 1))
	l.object("fixed", "immutable: true\nstringData: {password: '«fixed password»'}\n")
	l.resource("pasted", object("Secret", "pasted", "stringData:\n  inner.yaml: |\n    "+strings.ReplaceAll(l.seal("inner.yaml", "password: «pasted inner»\n", "", "", l.to), "\n", "\n    ")+"\n"))
	l.object("loose", "stringData: {password: '«loose password»'}\n")
	l.resource("piece", object("Secret", "piece", "stringData: {url: 'user:x:host'}\n"))
}

// pieces puts a sealed value into a longer text.
const pieces = `  - source: {kind: Secret, name: loose, fieldPath: stringData.password}
    targets: [{select: {kind: Secret, name: piece}, fieldPaths: [stringData.url], options: {delimiter: ':', index: 1}}]
`

// bad is refused, each by name and reason.
func (l *leaks) bad() map[string]string {
	l.t.Helper()
	want := map[string]string{}
	secret := func(name, rest, says string) {
		l.object(name, rest)
		want["Secret/"+l.app+"/"+name] = says
	}
	secret("tls-half", "type: kubernetes.io/tls\nstringData: {tls.crt: '«tls-half crt»'}\n", "Invalid (422) at data[tls.key]")
	secret("docker", "type: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: '{\"auths\": «docker json»'}\n", "Invalid (422) at data[.dockerconfigjson]")
	secret("basic", "type: kubernetes.io/basic-auth\nstringData: {other: '«basic other»'}\n", "Invalid (422)")
	secret("bad-key", "stringData: {a b: '«bad-key value»'}\n", "Invalid (422)")
	secret("too-large", "stringData: {a: '«too-large a»"+strings.Repeat("x", 1<<20)+"'}\n", "the API server refused it")
	secret("not-base64", "data: {password: '«not-base64 password»'}\n", "is not base64 once")
	l.object("structure", "stringData: {k: '«structure k»\"}'}\n")
	l.resource("into-json", object("Secret", "into-json", "stringData: {config: '{\"password\": \"x\"}'}\n"))
	want["Secret/"+l.app+"/into-json"] = "is YAML or JSON with a placeholder in it"

	file := func(name, content, says string) {
		l.resource(name, content)
		want["apps/"+name+".yaml"] = says
	}
	rest := "type: untouched\nstringData: {k: '«NAME k»'}\n"
	sealed := func(name string, binding crypto.Binding, to crypto.Recipient) string {
		return l.seal("x.yaml", object("Secret", name, strings.ReplaceAll(rest, "NAME", name)), crypto.KubernetesSelector, binding, to)
	}
	file("foreign", sealed("foreign", "", l.foreign), "NoKey")
	file("tampered", strings.Replace(sealed("tampered", "", l.to), "k: ENC[AES256_GCM,data:", "k: ENC[AES256_GCM,data:AAAA", 1), "ValueAltered")
	want["Secret/"+l.app+"/shadowed"] = "the API server refused it" // there is no such field
	l.resource("shadowed", strings.Replace(sealed("shadowed", "", l.to), "sops:\n", "\"\":\n    stringData:\n        k: \"\"\nsops:\n", 1))
	l.resource("bound", sealed("bound", "elsewhere/bound", l.to))
	want["Secret/"+l.app+"/bound"] = "BindingMismatch"
	l.resource("pasted-foreign", object("Secret", "pasted-foreign", "stringData:\n  inner.yaml: |\n    "+strings.ReplaceAll(l.seal("inner.yaml", "password: «pasted-foreign k»\n", "", "", l.foreign), "\n", "\n    ")+"\n"))
	want["Secret/"+l.app+"/pasted-foreign"] = "NoKey"
	l.resource("label", l.seal("label.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: label, namespace: NAMESPACE, labels: {bad: '«label bad»'}}\n", "^bad$", "", l.to))
	want["ConfigMap/"+l.app+"/label"] = "Invalid (422) at metadata.labels"
	l.resource("victim", object("ConfigMap", "victim", "data: {k: x}\n"))
	want["ConfigMap/"+l.app+"/victim"] = "PlaceholderOutsideSecret"
	want["ConfigMap/"+l.app+"/published"] = "PlaceholderOutsideSecret"

	value := func(name, text, spec, says string, to crypto.Certificate) {
		l.sealedSecret(name, "password", text, spec, to)
		want["/"+l.app+"/"+name] = says
	}
	template := func(text string) string { return "  template:\n    data: {k: '" + text + "'}\n" }
	value("fails", "«fails password»", template("{{ fail .password }}"), "TemplateFailed", l.cert)
	value("no-date", "«no-date password»", template(`{{ .password | mustToDate "x" }}`), "TemplateFailed", l.cert)
	value("no-json", "«no-json password»", template("{{ mustFromJson .password }}"), "TemplateFailed", l.cert)
	value("no-number", "«no-number password»", template("{{ slice .password 1 (int .password) | mustRegexMatch .password }}"), "TemplateFailed", l.cert)
	value("too-long", "«too-long password»", template("{{ repeat 1000000000 .password }}"), "TemplateFailed", l.cert)
	value("half-parsed", "«half-parsed password»", template("{{ .password"), "InvalidSealedSecret", l.cert)
	value("foreign-value", "«foreign-value password»", "", "NoKey", l.another)
	value("sealed-inside", "ENC[AES256_GCM,data:«sealed-inside password»", "", "StillSealed", l.cert)
	value("typed", "«typed password»", "  template: {type: kubernetes.io/tls}\n", "Invalid (422)", l.cert)
	return want
}

// outsiders would show sealed values, and into-json would be broken by one.
const outsiders = `configMapGenerator: [{name: published, namespace: NAMESPACE, files: [config.json]}]
replacements:
  - source: {kind: Secret, name: unit-b, fieldPath: stringData.password}
    targets: [{select: {kind: ConfigMap, name: victim}, fieldPaths: [data.k]}]
  - source: {kind: Secret, name: structure, fieldPath: stringData.k}
    targets: [{select: {kind: Secret, name: into-json}, fieldPaths: [stringData.config], options: {delimiter: '"', index: 3}}]
` + pieces

// applied says whether all that is good is there, with its values.
func (l *leaks) applied(ctx context.Context) error {
	v := func(name string) string { return l.values[name] }
	errs := []error{l.configMapValue(ctx, "outside", "host", v("outside host"))}
	for name, want := range map[string][2]string{
		"unit-a": {"password", v("unit-a password")}, "unit-b": {"password", v("unit-b password")}, "envs": {"A", v("envs A")},
		"files": {"blob.bin", "\x00\x01" + v("files blob.bin") + "\xff"}, "template": {"url", "postgres://u:" + v("template password") + "@h"},
		"volatile": {"password", v("volatile password")}, "deprecated": {"password", v("deprecated password")}, "unverified": {"password", v("unverified password")},
		"fixed": {"password", v("fixed password")}, "pasted": {"inner.yaml", "password: " + v("pasted inner") + "\n"}, "piece": {"url", "user:" + v("loose password") + ":host"}, "loose": {"password", v("loose password")},
	} {
		errs = append(errs, l.secret(ctx, name, want[0], want[1]))
	}
	return errors.Join(errs...)
}

// home reports whether a place is where a value belongs.
func (l *leaks) home(value, place string) bool {
	name := strings.Fields(value)[0]
	switch {
	case strings.HasPrefix(place, "data of Secret "+l.app+"/"+name+" "):
		return true
	case name == "loose": // it is a piece of another
		return strings.HasPrefix(place, "data of Secret "+l.app+"/piece ")
	case name == "outside":
		return place == "etcd /registry/configmaps/"+l.app+"/outside"
	case name == "label": // the API server quotes it in its own log
		return place == "audit log"
	}
	return false
}

// TestNoValueIsAnywhereButAtHome takes the agent at its most talkative through
// every way of sealing, every way in which that fails, and every repair, and
// searches everything that it could have left a value in.
func TestNoValueIsAnywhereButAtHome(t *testing.T) {
	t.Parallel()
	sops := harness.Oracle(t, "sops")
	e := newEnv(t).withKeys()
	l := newLeaks(e)
	since := e.cp.Mark()
	tmp := t.TempDir()
	var said []haystack
	agent := filepath.Join(e.bin, "agent")
	flags := e.syncArgs("--mac", "Warn", "--outside-secrets", "Allow", "--accept-deprecated-v1-data", "--plaintext-secrets", "Warn", "--decryption-secret", "flux-gpg", "--prune-limit", "100%", "--log-level", "debug", "-v", "10")

	home, fingerprint, private := openPGPKey(t)
	if _, err := e.client.CoreV1().Secrets(e.system).Create(t.Context(), secretObject("flux-gpg", map[string][]byte{"sops.asc": private}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	e.repo.Write("apps/pgp.yaml", l.fill(object("Secret", "pgp", "stringData: {password: '«pgp password»'}\n")))
	if _, errOut, code := e.run("", "env", "GNUPGHOME="+home, "SOPS_GPG_EXEC=/nonexistent", sops, "--config", os.DevNull, "encrypt", "--in-place",
		"--pgp", fingerprint, "--encrypted-regex", "^(data|stringData)$", "apps/pgp.yaml"); code != 0 {
		t.Fatalf("sops: %s", errOut)
	}
	l.resources = append(l.resources, "pgp.yaml")
	e.repo.Remove("apps/begin.yaml")
	l.good()
	fine := slices.Clone(l.resources)
	want := l.bad()
	l.commit("everything", outsiders)

	t.Log("all that can fail fails, by name, in each form of the report and of the log")
	for _, output := range []string{"", "json", "yaml"} {
		format := "text"
		if output == "json" {
			format = "json"
		}
		out, errOut, code := e.run("", "env", append([]string{"HOME=" + tmp, "TMPDIR=" + tmp, agent}, append(slices.Clone(flags), "--once", "-o", output, "--log-format", format)...)...)
		if code != 1 {
			t.Fatalf("exit code %d\n%s", code, tail(errOut, 20))
		}
		said = append(said, haystack{"report, " + output, []byte(out)}, haystack{"log of agent sync --once, " + format, []byte(errOut)})
		failures := slices.Collect(strings.SplitSeq(errOut, "\n"))
		failures = slices.DeleteFunc(failures, func(line string) bool { return !strings.HasPrefix(line, "failed: ") })
		for _, who := range slices.Sorted(maps.Keys(want)) {
			if !slices.ContainsFunc(failures, func(f string) bool { return strings.Contains(f, who) && strings.Contains(f, want[who]) }) {
				t.Errorf("%q: no failure of %s says %q", output, who, want[who])
			}
		}
		if t.Failed() {
			t.Fatal(strings.Join(failures, "\n"))
		}
		if len(failures) < len(want) || !strings.Contains(errOut, "PartialObjectMetadata") {
			t.Errorf("%d failures, want %d or more; or the log is not verbose", len(failures), len(want))
		}
	}
	if err := l.applied(t.Context()); err != nil {
		t.Fatalf("what is good was not applied: %v", err)
	}
	for _, args := range [][]string{{"build", "apps"}, {"build", "apps", "-o", "json"}} {
		out, errOut, code := e.run("", "env", append([]string{"HOME=" + tmp, "TMPDIR=" + tmp, filepath.Join(e.bin, "seal")}, args...)...)
		if code != 0 || !strings.Contains(out, "gitseal1") {
			t.Fatalf("seal %v: exit code %d\n%s", args, code, errOut)
		}
		said = append(said, haystack{"output of seal build", []byte(out + errOut)})
	}

	t.Log("an agent that runs, and logs JSON")
	l.resources = fine
	l.commit("only what is good", "replacements:\n"+pieces)
	a := e.startArgs(append(slices.Clone(flags), "--log-format", "json")...)
	e.logSays(a, `"msg":"holding the lease"`, `"idle":true`)
	said = append(said, process(t, a.cmd.Process.Pid)...)
	l.drift()

	for _, c := range []struct {
		name, says string
		change     func() (kustomization string)
	}{
		{"an immutable Secret changes", "Secret/" + e.app + "/fixed: the API server refused it", func() string {
			l.object("fixed", "immutable: true\nstringData: {password: '«changed password»'}\n")
			return "replacements:\n" + pieces
		}},
		{"a replacement would cut a value", "would cut a sealed value", func() string {
			return "replacements:\n- source: {kind: Secret, name: unit-a, fieldPath: stringData.password, options: {delimiter: /}}\n  targets: [{select: {kind: Secret, name: piece}, fieldPaths: [stringData.url]}]\n"
		}},
		{"a patch tests a value", "can not test a sealed value", func() string {
			return "patches: [{target: {kind: Secret, name: unit-a}, patch: '[{\"op\": \"test\", \"path\": \"/stringData/password\", \"value\": \"x\"}]'}]\n"
		}},
		{"a value looks like a placeholder", "looks like a gitseal placeholder", func() string {
			l.object("forged", "stringData: {k: '«forged k» gitseal0abcdefghijklmnopqrstuvwxyz23'}\n")
			return ""
		}},
	} {
		t.Log(c.name)
		before, base := len(a.log()), e.repo.Head()
		l.commit(c.name, c.change())
		e.eventually("the log names it", func(context.Context) error {
			if !strings.Contains(a.log()[before:], c.says) {
				return fmt.Errorf("no %q in it", c.says)
			}
			return nil
		})
		l.resources = fine
		e.repo.Git("reset", "-q", "--hard", base)
		e.repo.Git("commit", "-q", "--allow-empty", "-m", "put right "+c.name)
		e.repo.Git("push", "-q", "-f", "origin", "HEAD")
	}
	if err := l.applied(t.Context()); err != nil {
		t.Errorf("something was lost: %v", err)
	}

	t.Log("an agent that is asked what it is doing")
	if err := a.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-a.done
	if !strings.Contains(a.log(), "SIGQUIT: quit") || !strings.Contains(a.log(), "goroutine ") {
		t.Fatal("no goroutine dump")
	}
	said = append(said, haystack{"log of the agent", []byte(a.log())})

	where := slices.Concat(e.places(since), e.filesBelow(tmp), e.filesBelow(a.tmp), said)
	for _, s := range search(parts(l.values), where, l.home) {
		t.Error(s)
	}
	t.Logf("searched %d places for %d values", len(where), len(l.values))
}

// drift changes and deletes each object by hand, and waits for its repair.
func (l *leaks) drift() {
	l.t.Helper()
	ctx := l.t.Context()
	list, err := l.client.CoreV1().Secrets(l.app).List(ctx, metav1.ListOptions{LabelSelector: syncLabel})
	if err != nil || len(list.Items) < 10 {
		l.t.Fatalf("%d Secrets: %v", len(list.Items), err)
	}
	var errs []error
	for _, s := range list.Items {
		if s.Immutable == nil {
			for key := range s.Data {
				_, err := l.client.CoreV1().Secrets(l.app).Patch(ctx, s.Name, types.MergePatchType, []byte(fmt.Sprintf(`{"stringData":{%q:"edited"}}`, key)), metav1.PatchOptions{FieldManager: "kubectl-edit"})
				errs = append(errs, err)
			}
		}
	}
	_, err = l.client.CoreV1().ConfigMaps(l.app).Patch(ctx, "outside", types.MergePatchType, []byte(`{"data":{"host":"edited"}}`), metav1.PatchOptions{FieldManager: "kubectl-edit"})
	if err := errors.Join(append(errs, err)...); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("edits are put back", l.applied)
	for _, s := range list.Items {
		if err := l.client.CoreV1().Secrets(l.app).Delete(ctx, s.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			l.t.Fatal(err)
		}
	}
	if err := l.client.CoreV1().ConfigMaps(l.app).Delete(ctx, "outside", metav1.DeleteOptions{}); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("what was deleted is back", l.applied)
}
