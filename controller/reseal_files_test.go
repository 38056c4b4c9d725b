package controller

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

// What is in the sealed files of these tests: it may be in no answer.
const resealCanary = "reseal-canary-7a1c"

// generations are two of a cluster, made once: RSA keys take their time.
var generations = sync.OnceValues(func() ([]keys.Generation, error) {
	out := make([]keys.Generation, 2)
	var errs []error
	for i := range out {
		out[i] = keys.Generation{Number: 2 - i, State: keys.Active}
		var err error
		out[i].Identity, err = crypto.GenerateIdentity()
		errs = append(errs, err)
		out[i].Certificate, err = crypto.GenerateCertificateKey(time.Now())
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
})

// resealWorld is a cluster whose second generation is new, and a person whom an
// administrator has listed.
type resealWorld struct {
	t        *testing.T
	terms    resealTerms
	old, now keys.Generation
	listed   crypto.Identity
}

func newResealWorld(t *testing.T) *resealWorld {
	t.Helper()
	g, err := generations()
	if err != nil {
		t.Fatal(err)
	}
	w := &resealWorld{t: t, now: g[0], old: g[1]}
	w.listed = w.identity()
	w.terms = resealTerms{ring: &keys.Ring{Generations: g}, active: g[0], listed: []crypto.Recipient{w.listed.Recipient()}, now: time.Now()}
	return w
}

func (w *resealWorld) identity() crypto.Identity {
	w.t.Helper()
	id, err := crypto.GenerateIdentity()
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// sops is a file as `seal encrypt` makes it.
func (w *resealWorld) sops(rule crypto.Rule, to ...crypto.Recipient) string {
	w.t.Helper()
	rule.Recipients = to
	if rule.EncryptedRegex == "" && rule.UnencryptedSuffix == "" {
		rule.EncryptedRegex = crypto.KubernetesSelector
	}
	plain := "# by hand\napiVersion: v1\nkind: Secret\nmetadata:\n    name: db\n    namespace: shop\nstringData:\n    password: " + resealCanary + "\n    second: " + resealCanary + "-2\n"
	sealed, err := crypto.SealSOPS(crypto.SealRequest{Plain: crypto.NewSecretString(plain), Format: crypto.YAML, Now: time.Now(), Rule: rule})
	if err != nil {
		w.t.Fatal(err)
	}
	return string(sealed)
}

func (w *resealWorld) sealedSecret(scope crypto.Scope, annotations, template string) string {
	w.t.Helper()
	value, err := crypto.SealValue(w.old.Certificate.Certificate(), crypto.Target{Namespace: "shop", Name: "api", Scope: scope}, crypto.NewSecretString(resealCanary), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	return "# by hand\napiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: api\n  namespace: shop\n" + annotations +
		"spec:\n  encryptedData:\n    token: " + value + " # a comment\n" + template
}

func (w *resealWorld) ask(f v1alpha1.ResealFile, keep bool) v1alpha1.ResealedFile {
	w.t.Helper()
	out := resealFiles(v1alpha1.ResealSpec{Files: []v1alpha1.ResealFile{f}, KeepDataKey: keep}, w.terms)
	if len(out) != 1 || out[0].Name != f.Name || (out[0].Content == "") == (out[0].Reason == "") {
		w.t.Fatalf("answer %+v", out)
	}
	if strings.Contains(out[0].Content+out[0].Message, resealCanary) {
		w.t.Errorf("plaintext in the answer:\n%s", out[0].Content+out[0].Message)
	}
	return out[0]
}

func (w *resealWorld) opens(file string, id crypto.Identity) bool {
	w.t.Helper()
	f, err := crypto.OpenSOPS(crypto.OpenRequest{File: []byte(file), Format: crypto.YAML, Keys: crypto.Keyring{Identities: []crypto.Identity{id}}, MAC: crypto.MACRequired})
	if err != nil {
		return false
	}
	plain, err := f.Plain()
	if err != nil || !strings.Contains(string(plain.Reveal()), resealCanary) {
		w.t.Errorf("it opens to something else: %v", err)
	}
	return true
}

// A file is sealed to the active key, and to those of its recipients whom an
// administrator has listed. Older keys of the cluster do not open it any more.
func TestResealedFilesOpenForWhomTheyShould(t *testing.T) {
	t.Parallel()
	w := newResealWorld(t)
	before := w.sops(crypto.Rule{}, w.old.Identity.Recipient(), w.listed.Recipient())
	for keep, oldOpens := range map[bool]bool{false: false, true: false} {
		got := w.ask(v1alpha1.ResealFile{Name: "db.yaml", Format: "yaml", Content: before}, keep)
		if got.Reason != "" || got.Reformatted {
			t.Fatalf("keep %v: %+v", keep, got)
		}
		if !w.opens(got.Content, w.now.Identity) || !w.opens(got.Content, w.listed) || w.opens(got.Content, w.old.Identity) != oldOpens {
			t.Errorf("keep %v: it opens for others than it should", keep)
		}
		same := regexp.MustCompile(`ENC\[[^]]*\]`).FindString(got.Content) == regexp.MustCompile(`ENC\[[^]]*\]`).FindString(before)
		if same != keep {
			t.Errorf("keep %v: the data key is the old one: %v", keep, same)
		}
		if !strings.HasPrefix(got.Content, "# by hand\napiVersion: v1\nkind: Secret\n") {
			t.Errorf("it is written in another way:\n%s", got.Content)
		}
	}
	t.Log("others whom the caller wants, and nobody whom he does not")
	second := w.identity()
	w.terms.listed = append(w.terms.listed, second.Recipient())
	asked := w.ask(v1alpha1.ResealFile{Name: "db.yaml", Format: "yaml", Content: before, Recipients: []string{second.Recipient().String(), w.now.Identity.Recipient().String()}}, false)
	if asked.Reason != "" || !w.opens(asked.Content, second) || !w.opens(asked.Content, w.now.Identity) || w.opens(asked.Content, w.listed) {
		t.Errorf("asked for a listed recipient: %+v", asked)
	}

	got := w.ask(v1alpha1.ResealFile{Name: "api.yaml", Format: v1alpha1.FormatSealedSecret, Content: w.sealedSecret(crypto.Strict, "", "")}, false)
	if got.Reason != "" || !strings.HasPrefix(got.Content, "# by hand\n") || !strings.Contains(got.Content, " # a comment\n") {
		t.Fatalf("%+v", got)
	}
	value := regexp.MustCompile(`token: (\S+)`).FindStringSubmatch(got.Content)[1]
	for _, c := range []struct {
		key   keys.Generation
		scope crypto.Scope
		name  string
		opens bool
	}{{w.now, crypto.Strict, "api", true}, {w.old, crypto.Strict, "api", false}, {w.now, crypto.ClusterWide, "api", false}, {w.now, crypto.NamespaceWide, "api", false}, {w.now, crypto.Strict, "other", false}} {
		_, err := crypto.OpenValue(crypto.OpenValueRequest{Keys: []crypto.CertificateKey{c.key.Certificate}, Target: crypto.Target{Namespace: "shop", Name: c.name, Scope: c.scope}, Field: "token", Text: value})
		if (err == nil) != c.opens {
			t.Errorf("generation %d, scope %v, name %s: %v, want to open: %v", c.key.Number, c.scope, c.name, err, c.opens)
		}
	}
}

// Whoever may make Reseals learns nothing and gains nothing by them.
func TestAResealIsNoOracle(t *testing.T) {
	t.Parallel()
	w := newResealWorld(t)
	attacker := w.identity()
	good := w.sops(crypto.Rule{}, w.old.Identity.Recipient())
	ask := func(content string, keep bool) v1alpha1.ResealedFile {
		t.Helper()
		return w.ask(v1alpha1.ResealFile{Name: "x", Format: "yaml", Content: content}, keep)
	}

	t.Log("a recipient whom the caller has added")
	own := w.sops(crypto.Rule{}, w.old.Identity.Recipient(), attacker.Recipient())
	stanza := own[strings.LastIndex(own, "        - enc: |"):strings.Index(own, "    encrypted_regex:")]
	added := strings.Replace(good, "    age:\n", "    age:\n"+stanza, 1)
	if !strings.Contains(stanza, attacker.Recipient().String()) || added == good {
		t.Fatalf("nothing was added to\n%s", good)
	}
	got := ask(added, false)
	if got.Reason != v1alpha1.ResealUnlistedRecipient || !strings.Contains(got.Message, attacker.Recipient().String()) {
		t.Errorf("%+v", got)
	}
	got = w.ask(v1alpha1.ResealFile{Name: "x", Format: "yaml", Content: good, Recipients: []string{attacker.Recipient().String()}}, false)
	if got.Reason != v1alpha1.ResealUnlistedRecipient {
		t.Errorf("asked for: %+v", got)
	}
	got = ask(added, true)
	if got.Reason != "" || w.opens(got.Content, attacker) || !w.opens(got.Content, w.now.Identity) {
		t.Errorf("with its data key kept: %+v", got)
	}

	t.Log("all that does not open gets one answer")
	flipped := func(in, begin string) string {
		i := strings.Index(in, begin)
		if i < 0 {
			t.Fatalf("no %q in\n%s", begin, in)
		}
		i += len(begin)
		return in[:i] + string(map[bool]byte{true: 'A', false: 'B'}[in[i] != 'A']) + in[i+1:]
	}
	other := w.sops(crypto.Rule{}, attacker.Recipient())
	answers := map[string]v1alpha1.ResealedFile{
		"another key":      ask(strings.ReplaceAll(other, attacker.Recipient().String(), w.old.Identity.Recipient().String()), false),
		"a changed value":  ask(flipped(good, "password: ENC[AES256_GCM,data:"), false),
		"a changed tag":    ask(flipped(good, ",tag:"), false),
		"a changed MAC":    ask(flipped(good, "mac: ENC[AES256_GCM,data:"), false),
		"values exchanged": ask(strings.NewReplacer("password:", "second:", "second:", "password:").Replace(good), false),
		"a plain change":   ask(strings.Replace(good, "name: db", "name: other", 1), false),
		"another date":     ask(regexp.MustCompile(`lastmodified: "[^"]*"`).ReplaceAllString(good, `lastmodified: "2020-01-01T00:00:00Z"`), false),
		"kept, changed":    ask(flipped(good, "password: ENC[AES256_GCM,data:"), true),
	}
	for name, scope := range map[string]string{"cluster-wide": "sealedsecrets.bitnami.com/cluster-wide", "namespace-wide": "sealedsecrets.bitnami.com/namespace-wide"} {
		widened := w.sealedSecret(crypto.Strict, "  annotations: {"+scope+": \"true\"}\n", "")
		answers["scope widened to "+name] = w.ask(v1alpha1.ResealFile{Name: "x", Format: v1alpha1.FormatSealedSecret, Content: widened}, false)
	}
	moved := strings.Replace(w.sealedSecret(crypto.Strict, "", ""), "namespace: shop", "namespace: mine", 1)
	answers["moved to another namespace"] = w.ask(v1alpha1.ResealFile{Name: "x", Format: v1alpha1.FormatSealedSecret, Content: moved}, false)
	for name, a := range answers {
		if want := (v1alpha1.ResealedFile{Name: "x", Reason: v1alpha1.ResealCanNotBeOpened, Message: saysCanNotBeOpened}); a != want {
			t.Errorf("%s: %+v", name, a)
		}
	}

	t.Log("selectors that the caller has changed uncover nothing")
	for name, change := range map[string][2]string{
		"encrypted_regex":           {"encrypted_regex: " + crypto.KubernetesSelector, "encrypted_regex: ^nothing$"},
		"only one value":            {"encrypted_regex: " + crypto.KubernetesSelector, "encrypted_regex: ^(password|gitseal)$"},
		"unencrypted_suffix":        {"encrypted_regex: " + crypto.KubernetesSelector, "unencrypted_suffix: word"},
		"mac_only_encrypted":        {"encrypted_regex: ", "mac_only_encrypted: true\n    encrypted_regex: "},
		"mac_only_encrypted, regex": {"encrypted_regex: " + crypto.KubernetesSelector, "mac_only_encrypted: true\n    encrypted_regex: ^second$"},
	} {
		changed := strings.Replace(good, change[0], change[1], 1)
		if changed == good {
			t.Fatalf("%s: nothing was changed in\n%s", name, good)
		}
		for _, keep := range []bool{false, true} {
			if got := ask(changed, keep); got.Reason == "" && w.opens(got.Content, attacker) {
				t.Errorf("%s: it opens for the caller", name)
			}
		}
	}

	t.Log("templates are not rendered, and what they say of the scope counts for nothing")
	template := "  template:\n    metadata:\n      annotations: {sealedsecrets.bitnami.com/cluster-wide: \"true\"}\n    data: {guess: '{{ if hasPrefix \"r\" .token }}{{ fail \"yes\" }}{{ end }}'}\n"
	got = w.ask(v1alpha1.ResealFile{Name: "x", Format: v1alpha1.FormatSealedSecret, Content: w.sealedSecret(crypto.Strict, "", template)}, false)
	if got.Reason != "" || !strings.HasSuffix(got.Content, template) {
		t.Fatalf("%+v", got)
	}
	value := regexp.MustCompile(`token: (\S+)`).FindStringSubmatch(got.Content)[1]
	if _, err := crypto.OpenValue(crypto.OpenValueRequest{Keys: []crypto.CertificateKey{w.now.Certificate}, Target: crypto.Target{Namespace: "mine", Name: "mine", Scope: crypto.ClusterWide}, Field: "token", Text: value}); err == nil {
		t.Error("the template has widened the scope")
	}

	t.Log("what is no sealed file")
	for want, f := range map[string]v1alpha1.ResealFile{
		v1alpha1.ResealNotSealed: {Name: "x", Format: "yaml", Content: "a: b\n"},
		v1alpha1.ResealMalformed: {Name: "x", Format: v1alpha1.FormatSealedSecret, Content: "kind: SealedSecret\na: [\n"},
		v1alpha1.ResealTooLarge:  {Name: "x", Format: "yaml", Content: strings.Repeat("x", v1alpha1.ResealBytes+1)},
	} {
		if got := w.ask(f, false); got.Reason != want {
			t.Errorf("got %+v, want %s", got, want)
		}
	}
	if got := w.ask(v1alpha1.ResealFile{Name: "x", Format: v1alpha1.FormatSealedSecret, Content: "kind: ConfigMap\n"}, false); got.Reason != v1alpha1.ResealNotSealed {
		t.Errorf("%+v", got)
	}
	threshold := strings.Replace(good, "    encrypted_regex:", "    shamir_threshold: 2\n    encrypted_regex:", 1)
	if got := ask(threshold, false); got.Reason != v1alpha1.ResealUnsupported {
		t.Errorf("%+v", got)
	}
}
