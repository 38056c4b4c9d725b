package crypto

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func secretDoc(name, value string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata:\n  name: " + name + "\nstringData:\n  k: " + value + "\n"
}

const plainDoc = "# stays as it is\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {mode: \"0644\"}\n"

func TestAFileMayHoldSeveralUnitsAndPlainDocuments(t *testing.T) {
	t.Parallel()
	id, other := testIdentity(t), testIdentity(t)
	a := string(seal(t, secretDoc("a", "one")+"---\n"+secretDoc("b", "two"), YAML, kubernetesRule, "prod/*", id))
	b := string(seal(t, secretDoc("x", "three"), YAML, kubernetesRule, "", id))
	foreign := string(seal(t, secretDoc("y", "four"), YAML, kubernetesRule, "", other))
	masked := func(name, value string) string {
		return "apiVersion: v1\nkind: Secret\nmetadata:\n    name: " + name + "\nstringData:\n    k: " + value + "\n"
	}
	ab, x := masked("a", "<one>")+"---\n"+masked("b", "<two>"), masked("x", "<three>")
	for name, c := range map[string]struct {
		file, want string
	}{
		"one unit of two documents":         {a, ab},
		"a plain document after it":         {a + "---\n" + plainDoc, ab + "---\n" + plainDoc},
		"a plain document before it":        {plainDoc + "---\n" + a, plainDoc + "---\n" + ab},
		"two units":                         {a + "---\n" + b, ab + "---\n" + x},
		"two units around a plain document": {a + "--- # why\n" + plainDoc + "---\n" + b, ab + "--- # why\n" + plainDoc + "---\n" + x},
		"empty documents between":           {"---\n---\n" + a + "---\n# nothing\n---\n" + b + "---\n", ab + "---\n" + x},
		"a marker in a block scalar":        {"a: |\n  ---\n  b\n---\n" + b, "a: |\n  ---\n  b\n---\n" + x},
		"line ends of Windows":              {strings.ReplaceAll(plainDoc+"---\n"+b, "\n", "\r\n"), strings.ReplaceAll(plainDoc, "\n", "\r\n") + "---\n" + x},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := openWith([]byte(c.file), YAML, id)
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.Masked(func(l Leaf) string { return "<" + string(l.Text.Reveal()) + ">" })
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, string(got)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			for _, l := range f.Leaves {
				if want := map[string]Binding{"one": "prod/*", "two": "prod/*"}[string(l.Text.Reveal())]; l.Binding != want || l.ObjectKind != "Secret" {
					t.Errorf("%s: binding %q, want %q; kind %q", l.Path, l.Binding, want, l.ObjectKind)
				}
			}
		})
	}
	t.Run("each is checked alone", func(t *testing.T) {
		t.Parallel()
		for name, c := range map[string]struct {
			file string
			want error
		}{
			"one for another key":              {a + "---\n" + foreign, &NoKeyError{}},
			"one changed":                      {a + "---\n" + strings.Replace(b, "name: x", "name: evil", 1), ErrMAC},
			"a document of a unit taken out":   {a[:strings.Index(a, "\n---\n")+5] + b, ErrMAC},
			"its metadata taken off":           {plainDoc + "---\n" + a[:strings.Index(a, "sops:")] + "---\n" + a[strings.Index(a, "\n---\n")+5:], ErrMAC},
			"documents that --- can not split": {b + "...\n" + strings.Replace(plainDoc, "# stays as it is\n", "---\n", 1) + "...\n", &FormatError{}},
		} {
			_, err := openWith([]byte(c.file), YAML, id)
			var nk *NoKeyError
			var fe *FormatError
			switch c.want.(type) {
			case *NoKeyError:
				if !errors.As(err, &nk) {
					t.Errorf("%s: got %v", name, err)
				}
			case *FormatError:
				if err != nil && !errors.As(err, &fe) {
					t.Errorf("%s: got %v", name, err)
				}
			default:
				if !errors.Is(err, c.want) {
					t.Errorf("%s: got %v, want %v", name, err, c.want)
				}
			}
		}
	})
	t.Run("unopened, every document is marked", func(t *testing.T) {
		t.Parallel()
		got, err := MaskUnopened([]byte(plainDoc+"---\n"+foreign), YAML, func(string) string { return "T" }, "MARK")
		if err != nil || strings.Count(string(got), "MARK") != 2 || strings.Contains(string(got), "ENC[") {
			t.Errorf("%v\n%s", err, got)
		}
		got, err = MaskUnopened([]byte(plainDoc+"---\n"+foreign), YAML, func(string) string { return "T" }, "")
		if err != nil || !strings.HasPrefix(string(got), plainDoc+"---\n") {
			t.Errorf("%v\n%s", err, got)
		}
	})
}

// The MAC covers neither keys nor borders. Each of these has a MAC that fits;
// what stops them is the binding, which is why Required exists.
func TestWhatTheMACDoesNotSee(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	rule := kubernetesRule
	sealed := string(seal(t, "apiVersion: v1\nkind: Secret\nmetadata:\n    name: db\n    namespace: prod\nstringData:\n    a: one\n    b: two\n", YAML, rule, "prod/db", id))
	moved := strings.NewReplacer("name: db", "name: dbpr", "namespace: prod", "namespace: od").Replace(sealed)
	rule.MACOnlyEncrypted = true
	both := string(seal(t, "apiVersion: v1\nkind: Secret\nmetadata:\n    name: db\n    namespace: prod\nstringData:\n    a: one\n    b: two\n", YAML, rule, "prod/db", id))
	at := strings.Index(both, "    b: ")
	meta := both[strings.Index(both, "sops:"):]
	line := both[at : at+strings.Index(both[at:], "\n")+1]
	split := strings.Replace(both, line, "", 1) + "---\napiVersion: v1\nkind: Secret\nmetadata:\n    name: other\nstringData:\n" + line + meta
	for name, file := range map[string]string{"letters pushed over a border": moved, "one document split in two": split} {
		f, err := openWith([]byte(file), YAML, id)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, l := range f.Leaves {
			if l.Binding != "prod/db" {
				t.Errorf("%s: %s is free of its binding", name, l.Path)
			}
		}
	}
}

// An empty value can be added without a key, since the MAC does not see it. In the
// place of a sealed one it would pass for it, and show it.
func TestAnEmptyValueDoesNotUncoverAnother(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	for name, c := range map[string]struct {
		format       Format
		text, at, to string
		refused      bool
	}{
		"YAML, under an empty key": {YAML, secretDoc("a", canary), "sops:\n", "\"\":\n    stringData:\n        k: \"\"\nsops:\n", false},
		"YAML, twice":              {YAML, secretDoc("a", canary), "sops:\n", "stringData:\n    k: \"\"\nsops:\n", true},
		"JSON, twice":              {JSON, `{"a":"` + canary + `"}`, "\t\"sops\"", "\t\"a\": \"\",\n\t\"sops\"", true},
		"dotenv, twice":            {Dotenv, "A=" + canary + "\n", "sops_age", "A=\nsops_age", true},
		"INI, a section twice":     {INI, "[s]\na = " + canary + "\n", "[sops]", "[s]\na =\n[sops]", true},
	} {
		rule := Rule{}
		if c.format == YAML {
			rule = kubernetesRule
		}
		sealed := string(seal(t, c.text, c.format, rule, "", id))
		changed := strings.Replace(sealed, c.at, c.to, 1)
		if changed == sealed {
			t.Fatalf("%s: the test did not change the file:\n%s", name, sealed)
		}
		f, err := openWith([]byte(changed), c.format, id)
		var fe *FormatError
		if c.refused && !errors.As(err, &fe) || !c.refused && err != nil {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil {
			continue
		}
		masked, err := f.Masked(func(Leaf) string { return "T" })
		if err != nil || strings.Contains(string(masked), canary) || len(f.Leaves) == 0 {
			t.Errorf("%s: %v\n%s", name, err, masked)
		}
	}
	if _, err := SealSOPS(SealRequest{Plain: NewSecretString("A=1\nA=2\n"), Format: Dotenv, Rule: Rule{Recipients: []Recipient{id.Recipient()}}, Now: testTime}); err == nil {
		t.Error("a file that would not open is sealed")
	}
}

// The format is not authenticated: a sealed file can be written anew in another one
// without a key.
func TestABindingStaysOneInAnotherFormat(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	object := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a","annotations":{"x":"y"}},"stringData":{"k":"one"}}`
	for _, c := range []struct {
		from, to Format
		text     string
		want     error
	}{
		{Dotenv, YAML, "A=one\n", ErrBindingMoved}, {Dotenv, JSON, "A=one\n", ErrBindingMoved}, {YAML, JSON, object, nil}, {JSON, YAML, object, nil},
	} {
		rule := Rule{}
		if c.from != Dotenv {
			rule = kubernetesRule
		}
		tree, err := loadTree(seal(t, c.text, c.from, rule, "prod/a", id), c.from)
		if err != nil {
			t.Fatal(err)
		}
		file, err := c.to.store().EmitEncryptedFile(tree)
		if err != nil {
			t.Fatal(err)
		}
		f, err := openWith(file, c.to, id)
		if !errors.Is(err, c.want) || err == nil && f.Leaves[0].Binding != "prod/a" {
			t.Errorf("%s as %s: got %v, want %v\n%s", c.from, c.to, err, c.want, file)
		}
	}
}

func TestMACWarnLetsAFileInAndSaysSo(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	good := string(seal(t, secretYAML, YAML, kubernetesRule, "prod/db", id))
	edited := strings.Replace(good, "app: shop", "app: other", 1)
	f, err := OpenSOPS(OpenRequest{File: []byte(edited), Format: YAML, Keys: Keyring{Identities: []Identity{id}}, MAC: MACWarn})
	if err != nil || !errors.Is(f.Unverified, ErrMAC) || len(f.Leaves) == 0 {
		t.Errorf("got %v, %v", f, err)
	}
	value := strings.Replace(good, "password: ENC[AES256_GCM,data:", "password: ENC[AES256_GCM,data:AA", 1)
	var ve *ValueError
	if _, err := OpenSOPS(OpenRequest{File: []byte(value), Format: YAML, Keys: Keyring{Identities: []Identity{id}}, MAC: MACWarn}); !errors.As(err, &ve) {
		t.Errorf("a changed value opens: %v", err)
	}
	f, err = OpenSOPS(OpenRequest{File: []byte(good), Format: YAML, Keys: Keyring{Identities: []Identity{id}}, MAC: MACWarn})
	if err != nil || f.Unverified != nil {
		t.Errorf("a good file is doubted: %v", err)
	}
}

func TestHostileFilesMeetALimit(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	mac := "sops: {mac: \"ENC[AES256_GCM,\"}\n"
	bomb := "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
	var tower strings.Builder
	tower.WriteString("a0: &a0 [x]\n")
	for i := range 200 {
		tower.WriteString("a" + strconv.Itoa(i+1) + ": &a" + strconv.Itoa(i+1) + " [*a" + strconv.Itoa(i) + "]\n")
	}
	for name, c := range map[string]struct {
		format Format
		file   string
		want   string
	}{
		"6 MiB":                        {YAML, "a: " + strings.Repeat("x", 6<<20) + "\n" + mac, "larger than 5 MiB"},
		"an alias bomb":                {YAML, bomb + mac, "more than 100000 values"},
		"aliases on top of another":    {YAML, tower.String() + mac, "nested deeper than 100 levels"},
		"an anchor in itself":          {YAML, "a: &a [*a]\n" + mac, "contains itself"},
		"deep YAML":                    {YAML, "a: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "\n" + mac, "nested deeper"},
		"deep YAML in block style":     {YAML, "a:\n" + nested(300) + mac, "nested deeper"},
		"wide YAML":                    {YAML, "a: [" + strings.Repeat("1,", 100_001) + "1]\n" + mac, "more than 100000 values"},
		"a key twice":                  {YAML, "a: 1\na: 2\n" + mac, "occurs twice"},
		"a key twice, second document": {YAML, "a: 1\n" + mac + "---\nb: {c: 1, c: 2}\n" + mac, "occurs twice"},
		"a map as key":                 {YAML, "{a: b}: c\n" + mac, "key that is not a text"},
		"deep JSON":                    {JSON, `{"a":` + strings.Repeat("[", 1_000_000) + `,"sops":{"mac":"ENC[AES256_GCM,"}}`, "nested deeper"},
		"deep JSON in a binary file":   {Binary, `{"data":` + strings.Repeat(`{"a":`, 1_000_000) + `,"sops":{"mac":"ENC[AES256_GCM,"}}`, "nested deeper"},
		"wide JSON":                    {JSON, `{"a":[` + strings.Repeat("1,", 100_001) + `1],"sops":{"mac":"ENC[AES256_GCM,"}}`, "more than 100000 values"},
		"long dotenv":                  {Dotenv, strings.Repeat("A=1\n", 100_002) + "sops_mac=ENC[AES256_GCM,\n", "more than 100000 values"},
		"long INI":                     {INI, "[a]\n" + strings.Repeat("a=1\n", 100_002) + "[sops]\nmac=ENC[AES256_GCM,\n", "more than 100000 values"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := openWith([]byte(c.file), c.format, id)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("opening: got %v, want %s", err, c.want)
			}
			if _, err := MaskUnopened([]byte(c.file), c.format, func(string) string { return "t" }, "m"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("masking: got %v, want %s", err, c.want)
			}
		})
	}
}

func TestAnchorsMayStandOnAKey(t *testing.T) {
	t.Parallel()
	id := testIdentity(t)
	f, err := openWith(seal(t, "&name stringData: {a: one, b: *name}\n", YAML, kubernetesRule, "", id), YAML, id)
	if err != nil || len(f.Leaves) != 2 || string(f.Leaves[1].Text.Reveal()) != "stringData" {
		t.Errorf("%v", err)
	}
	if _, err := scanYAML([]byte("&name k: v\na: [*name, {*name: x}]\n")); err == nil || !strings.Contains(err.Error(), "key that is not a text") {
		t.Errorf("an alias as a key: %v", err)
	}
	if err := CheckYAML([]byte("&name k: v\na: [*name]\n")); err != nil {
		t.Error(err)
	}
}

func nested(depth int) string {
	var b strings.Builder
	for i := range depth {
		b.WriteString(strings.Repeat(" ", i+1) + "a:\n")
	}
	return b.String()
}
