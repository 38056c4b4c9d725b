package crypto

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const secretYAML = `# who may see this: nobody
apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: prod
  labels: {app: shop}
stringData:
  password: "p@ss: word"   # inline comment
  port: 5432
  ratio: 0.5
  on: true
  empty: ""
  nothing: null
  multi: |
    line one
    line two
`

var kubernetesRule = Rule{EncryptedRegex: KubernetesSelector}

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// seal seals text for the given identities.
func seal(t testing.TB, text string, format Format, rule Rule, binding Binding, ids ...Identity) []byte {
	t.Helper()
	for _, id := range ids {
		rule.Recipients = append(rule.Recipients, id.Recipient())
	}
	out, err := SealSOPS(SealRequest{Plain: NewSecretString(text), Format: format, Rule: rule, Binding: binding, Now: testTime})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func leafTexts(f *SOPSFile) map[string]string {
	out := map[string]string{}
	for _, l := range f.Leaves {
		out[l.Path] = l.Kind + ":" + string(l.Text.Reveal())
	}
	return out
}

func TestSealedYAMLOpensToTheSameLeaves(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	sealed := seal(t, secretYAML, YAML, kubernetesRule, "prod/db", id)
	for _, word := range []string{"p@ss", "line one", "nobody\n", "prod/db"} {
		if strings.Contains(strings.ReplaceAll(string(sealed), "# who may see this: nobody\n", ""), word) {
			t.Errorf("the sealed file shows %q:\n%s", word, sealed)
		}
	}
	f, err := openWith(sealed, YAML, testIdentity(t), id)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"stringData.password": "str:p@ss: word", "stringData.port": "int:5432", "stringData.ratio": "float:0.5",
		"stringData.on": "bool:true", "stringData.multi": "str:line one\nline two\n",
	}
	if d := cmp.Diff(want, leafTexts(f)); d != "" {
		t.Errorf("leaves (-want +got):\n%s", d)
	}
	if !slices.Equal(f.Bindings(), []Binding{"prod/db"}) {
		t.Errorf("got bindings %q, want prod/db", f.Bindings())
	}
	masked, err := f.Masked(func(l Leaf) string { return "TOKEN-" + strings.TrimPrefix(l.Path, "stringData.") })
	if err != nil {
		t.Fatal(err)
	}
	wantMasked := `apiVersion: v1
kind: Secret
metadata:
    name: db
    namespace: prod
    labels:
        app: shop
stringData:
    password: TOKEN-password
    port: TOKEN-port
    ratio: TOKEN-ratio
    "on": TOKEN-on
    empty: ""
    nothing: null
    multi: TOKEN-multi
`
	if d := cmp.Diff(wantMasked, string(masked)); d != "" {
		t.Errorf("masked (-want +got):\n%s", d)
	}
	if plain := plainOf(t, f); strings.Contains(plain, "sealed-for") || !strings.Contains(plain, "p@ss: word") {
		t.Errorf("the plain file should hold the values and not the binding:\n%s", plain)
	}
}

func TestSealedDotenvKeepsBackslashN(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	sealed := seal(t, "# c\nUSER=bob\nKEY=a\\nb\nEMPTY=\nSPACE= x \n", Dotenv, Rule{}, "prod/*", id)
	f, err := openWith(sealed, Dotenv, id)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"USER": "str:bob", "KEY": `str:a\nb`, "SPACE": "str: x "}
	if d := cmp.Diff(want, leafTexts(f)); d != "" {
		t.Errorf("leaves (-want +got):\n%s", d)
	}
	if got, want := plainOf(t, f), "# c\nUSER=bob\nKEY=a\\nb\nEMPTY=\nSPACE= x \n"; got != want {
		t.Errorf("plain: got %q, want %q", got, want)
	}
	if !slices.Equal(f.Bindings(), []Binding{"prod/*"}) {
		t.Errorf("got bindings %q, want prod/*", f.Bindings())
	}
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func TestOpeningSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	id, other := testIdentity(t), testIdentity(t)
	good := string(seal(t, secretYAML, YAML, kubernetesRule, "prod/db", id))
	two := string(seal(t, secretYAML, YAML, kubernetesRule, "prod/other", id))
	value := func(file, key string) string {
		for _, line := range strings.Split(file, "\n") {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), key+": "); ok {
				return rest
			}
		}
		t.Fatalf("no %s in\n%s", key, file)
		return ""
	}
	for name, c := range map[string]struct {
		file string
		ids  []Identity
		want func(error) bool
		text []string
	}{
		"no key that fits": {good, []Identity{other}, isA[*NoKeyError],
			[]string{id.Recipient().String(), other.Recipient().String()}},
		"no key at all": {good, nil, isA[*NoKeyError], []string{"keys held: none"}},
		"a changed value": {strings.Replace(good, "password: ENC[AES256_GCM,data:", "password: ENC[AES256_GCM,data:AA", 1), []Identity{id},
			isA[*ValueError], []string{"stringData.password"}},
		"a value of another file": {strings.Replace(good, value(good, "password"), value(two, "password"), 1), []Identity{id},
			isA[*ValueError], []string{"stringData.password"}},
		"two values swapped": {strings.NewReplacer(value(good, "password"), value(good, "port"), value(good, "port"), value(good, "password")).Replace(good), []Identity{id},
			isA[*ValueError], []string{"stringData."}},
		"a plain field changed":                               {strings.Replace(good, "app: shop", "app: evil", 1), []Identity{id}, func(err error) bool { return errors.Is(err, ErrMAC) }, []string{"MAC mismatch"}},
		"the MAC removed":                                     {strings.Replace(good, "mac: "+value(good, "mac"), "mac: \"\"", 1), []Identity{id}, func(err error) bool { return errors.Is(err, ErrNoMAC) }, []string{"no MAC"}},
		"the MAC of another file":                             {strings.Replace(good, value(good, "mac"), value(two, "mac"), 1), []Identity{id}, func(err error) bool { return errors.Is(err, ErrMAC) }, nil},
		"a leaf of type bytes, which makes the library panic": {strings.Replace(good, "type:int", "type:bytes", 1), []Identity{id}, func(err error) bool { return err != nil }, nil},
		"an alias bomb": {"a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\nsops: {mac: \"ENC[AES256_GCM,\"}\n",
			[]Identity{id}, func(err error) bool { var le *LimitError; return errors.As(err, &le) }, []string{"more than 100000 values"}},
		"broken YAML": {strings.Replace(good, "kind: Secret", "kind: [Secret", 1), []Identity{id},
			func(err error) bool { var fe *FormatError; return errors.As(err, &fe) }, []string{"line ", "not valid yaml"}},
		"no sops block": {secretYAML, []Identity{id}, func(err error) bool { return errors.Is(err, ErrNotSOPS) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := openWith([]byte(c.file), YAML, c.ids...)
			if err == nil || f != nil || !c.want(err) {
				t.Fatalf("got %T %v, file %v", err, err, f != nil)
			}
			for _, w := range c.text {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not say %q: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "p@ss") || strings.Contains(err.Error(), "ENC[") {
				t.Errorf("the error shows content: %v", err)
			}
		})
	}
}

func TestForeignMasterKeysAreRefusedByNameWithoutACall(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	sealed := string(seal(t, secretYAML, YAML, kubernetesRule, "", id))
	vault := "sops:\n    hc_vault:\n        - vault_address: http://127.0.0.1:1\n          engine_path: transit\n          key_name: k\n          created_at: \"2026-01-01T00:00:00Z\"\n          enc: x\n"
	withBoth := strings.Replace(sealed, "sops:\n", vault, 1)
	if _, err := openWith([]byte(withBoth), YAML, id); err != nil {
		t.Errorf("another recipient opens it: %v", err)
	}
	_, err := openWith([]byte(withBoth), YAML, testIdentity(t))
	if err == nil || !strings.Contains(err.Error(), "hc_vault") || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("got %v, want an error that names hc_vault", err)
	}
}

func TestAgePluginsAreRefusedByName(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	sealed := string(seal(t, secretYAML, YAML, kubernetesRule, "", id))
	for _, plugin := range []string{"age1yubikey1qwertyuiop", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ"} {
		_, err := openWith([]byte(strings.Replace(sealed, id.Recipient().String(), plugin, 1)), YAML, testIdentity(t))
		var nk *NoKeyError
		if !errors.As(err, &nk) || !nk.Unsupported || !strings.Contains(err.Error(), plugin+" (age plugins and SSH keys are not supported)") {
			t.Errorf("%s: got %v", plugin, err)
		}
	}
}

func TestBindingMustBeSealedAndInItsPlace(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	rule := kubernetesRule
	rule.MACOnlyEncrypted = true // so that moving leaves keeps the MAC right
	sealed := string(seal(t, secretYAML, YAML, rule, "prod/db", id))
	line := ""
	for _, l := range strings.Split(sealed, "\n") {
		if strings.Contains(l, BindingAnnotation) && strings.Contains(l, "ENC[") {
			line = l
		}
	}
	enc := strings.TrimSpace(strings.SplitN(line, ": ", 2)[1])
	nested := strings.Replace(sealed, "    annotations:\n"+line+"\n", "", 1)
	nested = strings.Replace(nested, "stringData:\n", "\"metadata:annotations\":\n    gitseal.io/sealed-for: "+enc+"\nstringData:\n", 1)
	for name, c := range map[string]struct {
		file string
		want error
	}{
		"nested under a key with colons": {nested, ErrBindingMoved},
		"in a list":                      {strings.Replace(sealed, "    annotations:\n"+line+"\n", "    annotations:\n        - gitseal.io/sealed-for: "+enc+"\n", 1), ErrBindingMoved},
	} {
		if c.file == sealed {
			t.Fatalf("%s: the test did not change the file:\n%s", name, sealed)
		}
		if _, err := openWith([]byte(c.file), YAML, id); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	plainBinding := strings.Replace(secretYAML, "  labels:", "  annotations: {gitseal.io/sealed-for: prod/db}\n  labels:", 1)
	if _, err := SealSOPS(SealRequest{Plain: NewSecretString(plainBinding), Format: YAML, Rule: Rule{Recipients: []Recipient{id.Recipient()}, EncryptedRegex: "^stringData$"}, Now: testTime}); err == nil {
		t.Error("a binding that is in the file already should be refused")
	}
	if _, err := SealSOPS(SealRequest{Plain: NewSecretString(secretYAML), Format: YAML, Binding: "prod/db", Rule: Rule{Recipients: []Recipient{id.Recipient()}, EncryptedRegex: "^(data|stringData)$"}, Now: testTime}); !errors.Is(err, ErrBindingNotSealed) {
		t.Errorf("got %v, want ErrBindingNotSealed", err)
	}
}

func TestSealingRefusesWhatWouldLeakOrBreak(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	rcpt := []Recipient{id.Recipient()}
	var structure *StructureSealedError
	var clear *LeftInClearError
	for name, c := range map[string]struct {
		text   string
		format Format
		rule   Rule
		want   func(error) bool
	}{
		"dotenv with the Kubernetes selector": {"A=hunter2\n", Dotenv, Rule{Recipients: rcpt, EncryptedRegex: KubernetesSelector}, func(e error) bool { return errors.Is(e, ErrNothingSealed) }},
		"everything sealed":                   {secretYAML, YAML, Rule{Recipients: rcpt}, func(e error) bool { return errors.As(e, &structure) }},
		"data left in the clear":              {secretYAML + "data:\n  a: aHVudGVyMg==\n", YAML, Rule{Recipients: rcpt, EncryptedRegex: "^stringData$"}, func(e error) bool { return errors.As(e, &clear) }},
		"nobody to seal to":                   {secretYAML, YAML, kubernetesRule, func(e error) bool { return errors.Is(e, ErrNoRecipient) }},
		"sealed already":                      {string(seal(t, secretYAML, YAML, kubernetesRule, "", id)), YAML, Rule{Recipients: rcpt, EncryptedRegex: KubernetesSelector}, func(e error) bool { return errors.Is(e, ErrAlreadySealed) }},
		"broken YAML":                         {"a: hunter2\n  b: x\n", YAML, Rule{Recipients: rcpt}, func(e error) bool { return strings.Contains(e.Error(), "line 2") }},
		"broken dotenv":                       {"A=1\nhunter2\n", Dotenv, Rule{Recipients: rcpt}, func(e error) bool { return strings.Contains(e.Error(), "line 2: not KEY=value") }},
		"empty":                               {"", YAML, Rule{Recipients: rcpt}, func(e error) bool { return e != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := SealSOPS(SealRequest{Plain: NewSecretString(c.text), Format: c.format, Rule: c.rule, Now: testTime})
			if err == nil || out != nil || !c.want(err) {
				t.Fatalf("got %v, %d bytes", err, len(out))
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error shows content: %v", err)
			}
		})
	}
}

func TestUnopenedFilesAreMaskedAndMarked(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	n := 0
	token := func(string) string { n++; return fmt.Sprintf("T%d", n) }
	got, err := MaskUnopened(seal(t, "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {k: v}\n", YAML, kubernetesRule, "x/a", id), YAML, token, "MARK")
	if err != nil {
		t.Fatal(err)
	}
	want := "apiVersion: v1\nkind: Secret\nmetadata:\n    name: a\n    annotations:\n        gitseal.io/unopened: MARK\nstringData:\n    k: T1\n"
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestSOPSVersionIsTheLibrarys(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "github.com/getsops/sops/v3 v"+sopsVersion) {
		t.Errorf("go.mod requires another sops than sopsVersion %s", sopsVersion)
	}
}

func openWith(file []byte, format Format, ids ...Identity) (*SOPSFile, error) {
	return OpenSOPS(OpenRequest{File: file, Format: format, Keys: Keyring{Identities: ids}})
}

func plainOf(t *testing.T, f *SOPSFile) string {
	t.Helper()
	plain, err := f.Plain()
	if err != nil {
		t.Fatal(err)
	}
	return string(plain.Reveal())
}

// Comments stand in lists like items, sealed or not: the values after one must
// not lose their places.
func TestAfterACommentInAListValuesAreMasked(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	const text = "a:\n  - x\n  # note\n  - %s\n  - # note\n    b: %[1]s\n    c:\n      - # note\n        - %[1]s\n"
	for name, rule := range map[string]Rule{"sealed comments": {}, "plain comments": {UnencryptedCommentRegex: "^$"}, "comments in the clear": {EncryptedRegex: "^a$"}} {
		sealed := seal(t, fmt.Sprintf(text, canary), YAML, rule, "", id)
		f, err := openWith(sealed, YAML, id)
		if err != nil {
			t.Fatal(err)
		}
		masked, err := f.Masked(func(Leaf) string { return "T" })
		if err != nil {
			t.Fatal(err)
		}
		want := "a:\n    - T\n    - T\n    - b: T\n      c:\n        - - T\n"
		if d := cmp.Diff(want, string(masked)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		unopened, err := MaskUnopened(sealed, YAML, func(string) string { return "T" }, "")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, string(unopened)); d != "" {
			t.Errorf("%s, without a key (-want +got):\n%s", name, d)
		}
	}
}
