package crypto

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/test/harness"
)

// stockSOPS runs the real sops, with the private key of one identity.
type stockSOPS struct{ path, dir string }

func newStockSOPS(t *testing.T) stockSOPS {
	t.Helper()
	return stockSOPS{path: harness.Oracle(t, "sops"), dir: t.TempDir()}
}

func (s stockSOPS) run(t *testing.T, id Identity, file string, content []byte, args ...string) ([]byte, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(s.path, append(args, name)...)
	cmd.Env = append(os.Environ(), "SOPS_AGE_KEY="+string(id.Text().Reveal()), "HOME="+s.dir)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(errOut.String())
	}
	return out, err
}

// encrypt seals with a creation rule that has these lines.
func (s stockSOPS) encrypt(t *testing.T, id Identity, file, content string, rule ...string) []byte {
	t.Helper()
	text := "creation_rules:\n  - age: " + id.Recipient().String() + "\n"
	for _, line := range rule {
		if !strings.HasPrefix(line, "stores:") {
			line = "    " + line
		}
		text += line + "\n"
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--config", config, "encrypt"}
	if file == "json.yaml" {
		args = append(args, "--output-type", "json")
	}
	out, err := s.run(t, id, file, []byte(content), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s stockSOPS) decrypt(t *testing.T, id Identity, file string, sealed []byte) ([]byte, error) {
	t.Helper()
	return s.run(t, id, file, sealed, "decrypt")
}

const everyKindYAML = `# what this is
apiVersion: v1
kind: Secret
metadata:
    name: db # inline
    namespace: prod
stringData:
    # a comment that is sealed
    password: "p@ss: word" # and one beside it
    port: 5432
    big: 9007199254740993
    ratio: 0.5
    tiny: 1e-7
    on: true
    off: false
    empty: ""
    nothing: null
    day: 2026-11-22
    moment: 2026-11-22T05:37:22.5+02:00
    binary: !!binary AAEC/w==
    multi: |
        line one
        line two
    list:
        - one
        # between
        - {deep: two, deeper: [3, null, ""]}
    plain_unencrypted: seen
    token_suffix: three
    # encrypt-this
    marked: four
    # leave-this
    left: five
`

// outside is a file without ciphertexts and sops' metadata.
func outside(format Format, file []byte) string {
	text := sealedText.ReplaceAllString(string(file), "ENC")
	switch format {
	case YAML:
		text = regexp.MustCompile(`(?m)^sops:[ \t]*\r?\n(?:[ \t].*\r?\n)+`).ReplaceAllString(text, "SOPS")
		return regexp.MustCompile(`(?ms)"sops": ?\{.*`).ReplaceAllString(text, "SOPS")
	case Dotenv:
		return regexp.MustCompile(`(?m)^sops_.*$`).ReplaceAllString(text, "SOPS")
	case INI:
		return regexp.MustCompile(`(?m)^\[sops\][ \t]*\r?\n(?:[a-z].*\r?\n)+`).ReplaceAllString(text, "SOPS")
	default:
		return regexp.MustCompile(`(?s)"sops": ?\{.*`).ReplaceAllString(text, "SOPS")
	}
}

func to(ids ...Identity) func([]string) ([]Recipient, error) {
	return func([]string) ([]Recipient, error) {
		var out []Recipient
		for _, id := range ids {
			out = append(out, id.Recipient())
		}
		return out, nil
	}
}

func reseal(t *testing.T, file []byte, format Format, from Identity, ids ...Identity) ResealResult {
	t.Helper()
	got, err := ResealSOPS(ResealRequest{File: file, Format: format, Keys: Keyring{Identities: []Identity{from}}, Recipients: to(ids...), Now: testTime})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func edit(pairs ...string) func(string) string {
	return func(s string) string { return strings.NewReplacer(pairs...).Replace(s) }
}

// dataKeyOf unwraps the data key of a file.
func dataKeyOf(t *testing.T, file []byte, format Format, id Identity) []byte {
	t.Helper()
	units, err := loadUnits(file, format)
	if err != nil {
		t.Fatal(err)
	}
	ring := localKeys{ring: Keyring{Identities: []Identity{id}}}
	key, err := units[0].tree.Metadata.GetDataKeyWithKeyServices(ring.clients(), nil)
	if err != nil || len(key) != dataKeyBytes {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	return key
}

// metadataFirst moves the metadata before everything else.
func metadataFirst(s string) string {
	body, meta, _ := strings.Cut(s, "\nsops:\n")
	return "sops:\n" + meta + body + "\n"
}

func TestFilesOfStockSopsAreSealedAnewAndNothingElseChanges(t *testing.T) {
	t.Parallel()
	sops := newStockSOPS(t)
	old, new_ := testIdentity(t), testIdentity(t)
	for name, c := range map[string]struct {
		file, content string
		rule          []string            // lines of the creation rule
		layout        func(string) string // what people do to a sealed file
	}{
		"everything is sealed":        {"a.yaml", everyKindYAML, nil, nil},
		"encrypted_regex":             {"a.yaml", everyKindYAML, []string{"encrypted_regex: ^(data|stringData)$"}, nil},
		"unencrypted_regex":           {"a.yaml", everyKindYAML, []string{"unencrypted_regex: ^(metadata|kind|apiVersion)$"}, nil},
		"encrypted_suffix":            {"a.yaml", everyKindYAML, []string{"encrypted_suffix: _suffix"}, nil},
		"unencrypted_suffix":          {"a.yaml", everyKindYAML, []string{"unencrypted_suffix: Data"}, nil},
		"encrypted_comment_regex":     {"a.yaml", everyKindYAML, []string{"encrypted_comment_regex: encrypt-this"}, nil},
		"unencrypted_comment_regex":   {"a.yaml", everyKindYAML, []string{"unencrypted_comment_regex: leave-this"}, nil},
		"mac_only_encrypted":          {"a.yaml", everyKindYAML, []string{"mac_only_encrypted: true", "encrypted_regex: ^stringData$"}, edit("name: db", "name: other")},
		"several documents":           {"a.yaml", everyKindYAML + "---\n# second\na: {b: c}\n", nil, nil},
		"an anchor in the plain file": {"a.yaml", "base: &b {x: secret}\nother: *b\n", nil, nil},
		"laid out by hand":            {"a.yaml", everyKindYAML, []string{"encrypted_regex: ^stringData$"}, edit("    name: db", "    'name':   \"db\"", "kind: Secret\n", "\n\nkind:    Secret   # kind\n", "apiVersion: v1", "# free comment\n\"apiVersion\": v1")},
		"lists without indent":        {"a.yaml", "l:\n  - a\n  - b\n", nil, edit("    - ENC", "- ENC")},
		"the metadata first":          {"a.yaml", "a: b\nc: d\n", nil, metadataFirst},
		"keys behind the metadata":    {"a.yaml", "a: b\n", []string{"mac_only_encrypted: true", "encrypted_regex: ^a$"}, func(s string) string { return s + "\n# tail\nz: later\n" }},
		"indented by two":             {"a.yaml", "a:\n  b: c\n", []string{"stores: {yaml: {indent: 2}}"}, nil},
		"line ends of Windows":        {"a.yaml", "a:\n  b: c\n", nil, func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }},
		"sealed values in quotes": {"a.yaml", "a: b\nc: d\n", nil, func(s string) string {
			return regexp.MustCompile(`(?m)^(\w): (ENC.*)$`).ReplaceAllString(s, `$1: "$2"`)
		}},
		"no newline at the end":         {"a.yaml", "a: b\n", nil, func(s string) string { return strings.TrimSuffix(s, "\n") }},
		"JSON called yaml":              {"json.yaml", `{"a": {"b": 1.5, "c": ["x", null, true]}}`, nil, nil},
		"JSON":                          {"a.json", `{"a": {"b": 1.5, "c": ["x", null, true, ""]}, "n": 9007199254740993, "u_unencrypted": "<&>"}`, nil, nil},
		"JSON indented by two":          {"a.json", `{"a": {"b": 1.5}}`, nil, func(s string) string { return strings.ReplaceAll(s, "\t", "  ") }},
		"JSON on one line":              {"a.json", `{"a": {"b": 1.5}}`, nil, edit("\t", "", "\n", "")},
		"dotenv":                        {"a.env", "# a comment\nA=1\nQ=\" x \"\nN=one\\ntwo\nE=\nU=ünï\n\n# last\nX_unencrypted=seen\n", nil, nil},
		"dotenv with keys at the end":   {"a.env", "A=1\n", []string{"encrypted_regex: ^A$", "mac_only_encrypted: true"}, func(s string) string { return s + "Z=later\n" }},
		"INI":                           {"a.ini", "; top\nplain = x\n[db]\n; why\npassword = secret\nempty =\n[other_unencrypted]\nk = v\n", nil, nil},
		"INI with a section at the end": {"a.ini", "[db]\npassword = secret\n", []string{"mac_only_encrypted: true", "encrypted_regex: ^password$"}, func(s string) string { return s + "\n; tail\n[z]\nk = v\n" }},
		"binary":                        {"a.bin", "\x00\x01\xff any bytes \r\n", nil, nil},
		"binary text":                   {"a.txt", "hello\n", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed := sops.encrypt(t, old, c.file, c.content, c.rule...)
			if c.layout != nil {
				was := string(sealed)
				if sealed = []byte(c.layout(was)); string(sealed) == was {
					t.Fatal("the layout was not changed: the case tests nothing")
				}
			}
			want, err := sops.decrypt(t, old, c.file, sealed)
			if err != nil {
				t.Fatal(err)
			}
			format := FormatOf(c.file)
			got := reseal(t, sealed, format, old, new_)
			if got.Reformatted {
				t.Errorf("the file was written by sops:\n%s\nwas\n%s", got.File, sealed)
			}
			if d := cmp.Diff(outside(format, sealed), outside(format, got.File)); d != "" {
				t.Errorf("outside of ciphertexts and metadata (-want +got):\n%s", d)
			}
			if n := strings.Count(outside(format, sealed), "SOPS"); n == 0 || !strings.Contains(outside(format, sealed), "ENC") {
				t.Fatalf("the comparison is blind: %s", outside(format, sealed))
			}
			if bare := regexp.MustCompile(`[^\r]\n`); bytes.Contains(sealed, []byte("\r\n")) && bare.Match(got.File) {
				t.Error("the ends of lines changed")
			}
			plain, err := sops.decrypt(t, new_, c.file, got.File)
			if err != nil {
				t.Fatalf("sops with the new key: %v\n%s", err, got.File)
			}
			if d := cmp.Diff(string(want), string(plain)); d != "" {
				t.Errorf("sops decrypt (-want +got):\n%s", d)
			}
			if _, err := sops.decrypt(t, old, c.file, got.File); err == nil {
				t.Error("sops still opens it with the old key")
			}
			for _, text := range sealedText.FindAll(sealed, -1) {
				if bytes.Contains(got.File, text) {
					t.Errorf("a ciphertext of the old data key is still there: %s", text)
				}
			}
			if !bytes.Contains(got.File, []byte(testTime.Format(time.RFC3339))) {
				t.Errorf("lastmodified is not now:\n%s", got.File)
			}
			if bytes.Equal(dataKeyOf(t, sealed, format, old), dataKeyOf(t, got.File, format, new_)) {
				t.Error("it has the old data key")
			}
			// Stock sops must be able to go on with it.
			if _, err := sops.run(t, new_, c.file, got.File, "rotate"); err != nil {
				t.Errorf("sops rotate: %v", err)
			}
		})
	}
}

func TestEachUnitOfAFileIsSealedAnewByItself(t *testing.T) {
	t.Parallel()
	old, new_ := testIdentity(t), testIdentity(t)
	a := string(seal(t, secretDoc("a", "one")+"---\n"+secretDoc("b", "two"), YAML, kubernetesRule, "prod/*", old))
	b := string(seal(t, secretDoc("x", "three"), YAML, kubernetesRule, "", old))
	file := "# head\n---\n" + plainDoc + "---   # first\n" + a + "---\n---\n# nothing\n---\n" + plainDoc + "---\n" + b + "---\n"
	got := reseal(t, []byte(file), YAML, old, new_)
	if d := cmp.Diff(outside(YAML, []byte(file)), outside(YAML, got.File)); d != "" || got.Reformatted {
		t.Errorf("outside (-want +got), reformatted %v:\n%s", got.Reformatted, d)
	}
	before, err := openWith([]byte(file), YAML, old)
	if err != nil {
		t.Fatal(err)
	}
	after, err := openWith(got.File, YAML, new_)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(leafTexts(before), leafTexts(after)); d != "" {
		t.Errorf("leaves (-want +got):\n%s", d)
	}
	if d := cmp.Diff(before.Bindings(), after.Bindings()); d != "" || len(after.Bindings()) != 1 {
		t.Errorf("bindings (-want +got):\n%s", d)
	}
	if len(got.Units) != 2 || got.Units[0].From[0] != old.Recipient().String() || got.Units[0].To[0] != new_.Recipient().String() {
		t.Errorf("units: %v", got.Units)
	}
}

func TestKeepingTheDataKeyChangesOnlyTheStanzas(t *testing.T) {
	t.Parallel()
	sops := newStockSOPS(t)
	old, new_ := testIdentity(t), testIdentity(t)
	sealed := sops.encrypt(t, old, "a.yaml", everyKindYAML)
	req := ResealRequest{File: sealed, Format: YAML, Keys: Keyring{Identities: []Identity{old}}, Recipients: to(new_, old), KeepDataKey: true, Now: testTime}
	got, err := ResealSOPS(req)
	if err != nil {
		t.Fatal(err)
	}
	body := func(b []byte) string {
		return regexp.MustCompile(`(?ms)^    age:.*?^    lastmodified`).ReplaceAllString(string(b), "AGE")
	}
	if d := cmp.Diff(body(sealed), body(got.File)); d != "" || bytes.Equal(sealed, got.File) {
		t.Errorf("(-want +got):\n%s", d)
	}
	if !bytes.Equal(dataKeyOf(t, sealed, YAML, old), dataKeyOf(t, got.File, YAML, new_)) {
		t.Error("it has another data key")
	}
	for _, id := range []Identity{old, new_} {
		if _, err := sops.decrypt(t, id, "a.yaml", got.File); err != nil {
			t.Errorf("sops: %v", err)
		}
	}
	// OpenPGP can not be sealed to, but kept.
	req = ResealRequest{File: testdata(t, "sealed/pgp.yaml"), Format: YAML, Keys: fixedRing(t), Recipients: to(new_), KeepDataKey: true, Now: testTime}
	if got, err = ResealSOPS(req); err != nil {
		t.Fatal(err)
	}
	for name, ring := range map[string]Keyring{"age": {Identities: []Identity{new_}}, "OpenPGP": {PGPKeys: fixedRing(t).PGPKeys}} {
		if _, err := OpenSOPS(OpenRequest{File: got.File, Format: YAML, Keys: ring}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatCanNotBeSealedAnewIsRefused(t *testing.T) {
	t.Parallel()
	old, other := testIdentity(t), testIdentity(t)
	good := string(seal(t, secretYAML, YAML, kubernetesRule, "prod/db", old))
	foreign := string(seal(t, secretYAML, YAML, kubernetesRule, "prod/db", other))
	ring := fixedRing(t)
	ring.Identities = append(ring.Identities, old)
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	for name, c := range map[string]struct {
		file  string
		to    func([]string) ([]Recipient, error)
		wants func(error) bool
	}{
		"no sealed file":           {"a: b\n", to(old), is(ErrNotSOPS)},
		"a changed plain field":    {strings.Replace(good, "app: shop", "app: evil", 1), to(old), is(ErrMAC)},
		"no MAC":                   {regexp.MustCompile(`(?m)^    mac: .*$`).ReplaceAllString(good, `    mac: ""`), to(old), is(ErrNoMAC)},
		"a value of another place": {strings.Replace(good, "\n    port:", "\n    port2:", 1), to(old), isA[*ValueError]},
		"a key that is not held":   {foreign, to(old), isA[*NoKeyError]},
		"one unit of two":          {good + "---\n" + foreign, to(old), func(err error) bool { return isA[*UnitError](err) && isA[*NoKeyError](err) }},
		"nobody to seal to":        {good, to(), is(ErrNoRecipient)},
		"the caller says no":       {good, func([]string) ([]Recipient, error) { return nil, ErrNoRule }, is(ErrNoRule)},
		"OpenPGP":                  {string(testdata(t, "sealed/pgp.yaml")), to(old), isA[*UnsupportedKeyError]},
		"a cloud's key":            {string(testdata(t, "sealed/cloud-too.yaml")), to(old), isA[*UnsupportedKeyError]},
		"key groups":               {string(testdata(t, "sealed/key-groups.yaml")), to(old), is(ErrKeyGroups)},
		"broken":                   {strings.Replace(good, "    mac:", "  mac:", 1), to(old), isA[*FormatError]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := ResealSOPS(ResealRequest{File: []byte(c.file), Format: YAML, Keys: ring, Recipients: c.to, Now: testTime})
			if err == nil || !c.wants(err) || got.File != nil {
				t.Errorf("%d bytes and %v", len(got.File), err)
			}
			hides(t, err, "p@ss")
		})
	}
	var noKey *NoKeyError
	_, err := ResealSOPS(ResealRequest{File: []byte(good + "---\n" + foreign), Format: YAML, Keys: ring, Recipients: to(old), Now: testTime})
	if !errors.As(err, &noKey) || noKey.Wanted[0] != other.Recipient().String() || !strings.HasPrefix(err.Error(), "the unit at line ") {
		t.Errorf("the error does not say whose it is: %v", err)
	}
}

// A ciphertext that stands in the clear as well can not be replaced as text.
func TestACopyOfACiphertextInAnOpenCommentIsNoTrap(t *testing.T) {
	t.Parallel()
	old, new_ := testIdentity(t), testIdentity(t)
	good := string(seal(t, secretYAML, YAML, kubernetesRule, "prod/db", old))
	value := sealedText.FindString(good)
	file := strings.Replace(good, "kind: Secret\n", "kind: Secret\n# before: "+value+"\n", 1)
	got := reseal(t, []byte(file), YAML, old, new_)
	if _, err := openWith(got.File, YAML, new_); err != nil {
		t.Error(err)
	}
	if !strings.Contains(string(got.File), "# before: "+value) {
		t.Errorf("a comment that is not sealed was changed:\n%s", got.File)
	}
}

func TestASealedFileIsListedWithoutAKey(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	file := string(seal(t, secretYAML, YAML, kubernetesRule, "prod/db", id)) + "---\n" + plainDoc
	got, err := ListSOPS([]byte(file), YAML)
	if err != nil {
		t.Fatal(err)
	}
	var values []ListedValue
	for _, p := range []string{"password", "port", "ratio", "on", "multi"} {
		values = append(values, ListedValue{"Secret prod/db", "stringData." + p})
	}
	if d := cmp.Diff([]ListedUnit{{Line: 1, Recipients: []string{id.Recipient().String()}, Values: values}}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := ListSOPS([]byte("sops: 1\n"), YAML); !errors.Is(err, ErrNotSOPS) {
		t.Errorf("got %v", err)
	}
}
