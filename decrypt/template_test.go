package decrypt

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/crypto"
)

func renderText(t testing.TB, text string, values map[string]string) (string, error) {
	t.Helper()
	p, err := parseTemplate("k", text)
	if err != nil {
		return "", err
	}
	out, err := p.render(values)
	return string(out), err
}

// What upstream prints: compared with the real controller in test/e2e.
func TestTemplatesRenderAsInSealedSecrets(t *testing.T) {
	t.Parallel()
	values := map[string]string{"password": `hunter2'"=`, "user": "bob", "list": "a,b,c", "json": `{"a":[1,"x"]}`}
	for text, want := range map[string]string{
		``:                                     "",
		`plain`:                                "plain",
		`{{ .password }}`:                      `hunter2'"=`,
		`{{ index . "user" }}`:                 "bob",
		`{{ .missing }}`:                       "<no value>",
		`{{ index . "missing" }}`:              "",
		`{{ toJson .password }}`:               `"hunter2'\"="`,
		`{{ .user | upper | b64enc }}`:         "Qk9C",
		`{{ .missing | default "x" }}`:         "x",
		`{{ printf "%s:%q" .user .password }}`: `bob:"hunter2'\"="`,
		`{{ range $i, $v := splitList "," .list }}{{ $i }}={{ $v }};{{ end }}`: "0=a;1=b;2=c;",
		`{{ range 3 }}x{{ end }}`:                                                 "xxx",
		`{{ if eq .user "bob" }}yes{{ else }}no{{ end }}`:                         "yes",
		`{{ with .user }}{{ . }}{{ end }}{{ with .missing }}{{ else }}-{{ end }}`: "bob-",
		`{{ define "x" }}<{{ . }}>{{ end }}{{ template "x" .user }}`:              "<bob>",
		`{{ $x := .user }}{{ $x = print $x $x }}{{ $x }}`:                         "bobbob",
		`{{ (.json | fromJson).a }}`:                                              "[1 x]",
		`{{ dict "a" 1 "b" (list 1 2) | toJson }}`:                                `{"a":1,"b":[1,2]}`,
		`{{ list .missing 1 true nil }}`:                                          "[<nil> 1 true <nil>]",
		`{{ "a" | repeat 3 | indent 2 }}`:                                         "  aaa",
		`{{ until 3 }}{{ untilStep 0 6 2 }}{{ seq 1 3 }}`:                         "[0 1 2][0 2 4]1 2 3",
		`{{ sha256sum .user }}`:                                                   "81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9",
		`{{ replace "b" "BB" .user }}{{ join "-" (list 1 2) }}`:                   "BBoBB1-2",
		`{{ regexReplaceAll "b(.)" "abc" "$1$1" }}`:                               "acc",
		`{{ printf "%5d|%-5s|%05.1f" 42 "a" 1.25 }}`:                              "   42|a    |001.2",
		`{{ 1.5 }}{{ 'a' }}{{ true }}{{ html "<" }}{{ len .user }}`:               "1.597true&lt;3",
		`{{- range list 1 2 3 }}{{ if eq . 2 }}{{ continue }}{{ end }}{{ . }}{{ if eq . 3 }}{{ break }}{{ end }}{{ end -}}`: "13",
	} {
		got, err := renderText(t, text, values)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestTemplatesThatFailDoNotShowValues(t *testing.T) {
	t.Parallel()
	values := map[string]string{"password": canary, "n": "3"}
	for text, want := range map[string]string{
		`{{ fail .password }}`:                                            "line 1, column 3",
		"\n\n  {{ fail (printf \"%s!\" .password) }}":                     "line 3, column ",
		`{{ .password | toDate "2006" | fail }}`:                          "could not be rendered",
		`{{ index .password 5000 }}`:                                      "could not be rendered",
		`{{ template "x" .password }}{{ define "x" }}{{ .foo }}{{ end }}`: "could not be rendered",
		`{{ .password | fromJson | required }}`:                           "function \"required\" not defined",
		`{{ mustFromJson .password }}`:                                    "could not be rendered",
		`{{ mustRegexMatch (print "(" .password) "x" }}`:                  "could not be rendered",
		`{{ env "HOME" }}`:                                                "function \"env\" not defined",
		`{{ expandenv "$HOME" }}`:                                         "function \"expandenv\" not defined",
		`{{ getHostByName .password }}`:                                   "function \"getHostByName\" not defined",
		`{{ .password`:                                                    "unclosed action",
		`{{ call .password }}`:                                            "could not be rendered",
		`{{ slice .password 1 5000 }}`:                                    "could not be rendered",
		`{{ genPrivateKey .password }}{{ decryptAES .password "x" }}`:     "could not be rendered",
	} {
		_, err := renderText(t, text, values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
		assertNoCanary(t, err)
	}
}

func TestHostileTemplatesAreStopped(t *testing.T) {
	t.Parallel()
	values := map[string]string{"a": strings.Repeat("x", 1<<20), "s": "short"}
	const double = `{{ $x := .a }}{{ range until 40 }}`
	for name, text := range map[string]string{
		"doubling by print":              double + `{{ $x = print $x $x }}{{ end }}`,
		"doubling by printf":             double + `{{ $x = printf "%s%s" $x $x }}{{ end }}`,
		"doubling by cat":                double + `{{ $x = cat $x $x }}{{ end }}`,
		"doubling lists":                 `{{ $x := list 1 }}{{ range until 60 }}{{ $x = concat $x $x }}{{ end }}`,
		"lists in lists":                 `{{ $x := list .s }}{{ range until 60 }}{{ $x = list $x $x }}{{ end }}{{ $x }}`,
		"lists in lists, as JSON":        `{{ $x := list .s }}{{ range until 60 }}{{ $x = list $x $x }}{{ end }}{{ toJson $x }}`,
		"a map in itself":                `{{ $d := dict }}{{ $_ := set $d "d" $d }}{{ $d }}`,
		"repeat":                         `{{ repeat 1000000000 .s }}`,
		"repeat of text":                 `{{ repeat 1000000 .a }}`,
		"until":                          `{{ until 1000000000 }}`,
		"until, backwards":               `{{ until -1000000000 }}`,
		"untilStep":                      `{{ untilStep 0 1000000000 1 }}`,
		"untilStep, backwards":           `{{ untilStep 0 -1000000000 -1 }}`,
		"untilStep, overflowing":         `{{ untilStep -9223372036854775807 9223372036854775807 1 }}`,
		"seq":                            `{{ seq 1000000000 }}`,
		"seq from to":                    `{{ seq -1000000000 1000000000 }}`,
		"seq with a step":                `{{ seq 0 1 1000000000 }}`,
		"indent":                         `{{ indent 1000000000 .s }}`,
		"nindent":                        `{{ .a | replace "x" "\n" | nindent 10000 }}`,
		"replace":                        `{{ replace "x" .a .a }}`,
		"replace of nothing":             `{{ replace "" .a .a }}`,
		"regexReplaceAll":                `{{ regexReplaceAll "x" .a .a }}`,
		"regexReplaceAllLiteral":         `{{ regexReplaceAllLiteral "x" .a .a }}`,
		"join":                           `{{ join .a (until 100000) }}`,
		"wrapWith":                       `{{ wrapWith 1 .a .a }}`,
		"a wide verb":                    `{{ printf "%1000000d%1000000d%1000000d" 1 1 1 }}`,
		"a wide verb by an argument":     `{{ printf "%*d" 100000000 1 }}`,
		"one argument many times":        `{{ printf (repeat 10000 "%[1]s") .a }}`,
		"randAlphaNum":                   `{{ randAlphaNum 1000000000 }}`,
		"randBytes":                      `{{ randBytes 1000000000 }}`,
		"an empty loop":                  `{{ range 1000000000 }}{{ end }}`,
		"loops in loops":                 `{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}`,
		"a loop in an else":              `{{ range list }}{{ else }}{{ range 1000000000 }}{{ end }}{{ end }}`,
		"a loop in a with":               `{{ with .s }}{{ if . }}{{ range 1000000000 }}{{ end }}{{ end }}{{ end }}`,
		"a template that calls itself":   `{{ define "x" }}{{ template "x" }}{{ end }}{{ template "x" }}`,
		"two that call each other":       `{{ define "x" }}{{ template "y" }}{{ end }}{{ define "y" }}{{ template "x" }}{{ end }}{{ template "x" }}`,
		"much output":                    `{{ range until 5 }}{{ $.a }}{{ end }}`,
		"many slow functions":            `{{ range until 10000 }}{{ $_ := bcrypt $.s }}{{ end }}`,
		"the pretty form of a deep list": `{{ $x := list .s }}{{ range until 60 }}{{ $x = list $x }}{{ end }}{{ range until 10000 }}{{ toPrettyJson $x }}{{ end }}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := renderText(t, text, values)
			if err == nil || strings.Contains(err.Error(), "could not be rendered") {
				t.Errorf("got %v, want a limit", err)
			}
			if took := time.Since(start); took > 8*MaxTemplateTime {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestVolatileTemplatesAreRenderedOnce(t *testing.T) {
	t.Parallel()
	keys := &fakeKeys{certs: []crypto.CertificateKey{certKeyOf(t)}}
	u := sealedSecretOf(t, crypto.Strict, func(u m) {
		u["spec"].(m)["template"] = m{"data": m{"token": `{{ randAlphaNum 40 }}`, "at": `{{ now }}`, "url": `https://{{ .password }}@x`}}
	})
	cache := NewCache()
	body := func(cache *Cache) string {
		t.Helper()
		g := NewMasker(MaskerConfig{Keys: keys, Digester: digesterOf(t), Cache: cache}).Pass().Gate([]*unstructured.Unstructured{u})
		if len(g.Refused) > 0 {
			t.Fatal(g.Refused)
		}
		b, _, err := g.Objects[0].Body(nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(b.Reveal())
	}
	first := body(cache)
	for range 5 {
		if body(cache) != first {
			t.Fatal("a template with a random value changes the Secret although its input did not change")
		}
	}
	if o := cache.Opened(); o.Values != 1 || o.Templates != 1 {
		t.Errorf("opened %+v, want one value and one rendering", o)
	}
	if body(NewCache()) == first {
		t.Error("randAlphaNum gives the same twice: the test shows nothing")
	}
	again := u.DeepCopy()
	u = again
	u.Object["spec"].(m)["template"].(m)["data"].(m)["url"] = "x"
	if body(cache) == first {
		t.Error("another template gives the same body")
	}
	if o := cache.Opened(); o.Values != 1 || o.Templates != 2 {
		t.Errorf("opened %+v: the value did not change and should not be opened again", o)
	}
}

func TestAVolatileSecretIsSentAgainAsItIs(t *testing.T) {
	t.Parallel()
	keys := &fakeKeys{certs: []crypto.CertificateKey{certKeyOf(t)}}
	u := sealedSecretOf(t, crypto.Strict, func(u m) { u["spec"].(m)["template"] = m{"data": m{"token": `{{ randAlphaNum 40 }}`}} })
	fresh := func() Object {
		return NewMasker(MaskerConfig{Keys: keys, Digester: digesterOf(t)}).Pass().Gate([]*unstructured.Unstructured{u}).Objects[0]
	}
	o := fresh()
	if !o.Volatile() {
		t.Error("a template with a random value is not volatile")
	}
	body, digest, err := o.Body(nil)
	if err != nil {
		t.Fatal(err)
	}
	if o.Volatile() {
		t.Error("what was rendered is rendered again")
	}
	sent := &unstructured.Unstructured{}
	if err := sent.UnmarshalJSON(body.Reveal()); err != nil {
		t.Fatal(err)
	}
	live := map[string]crypto.Secret{}
	for k, v := range decodedData(t, sent) {
		live[k] = crypto.NewSecretString(v)
	}
	restarted := fresh()
	if _, again, ok := restarted.BodyWith(nil, live); !ok || again != digest {
		t.Errorf("the same values give another digest: %v", ok)
	}
	live["token"] = crypto.NewSecretString("changed by hand")
	if _, again, ok := restarted.BodyWith(nil, live); !ok || again == digest {
		t.Error("a changed value gives the same digest")
	}
	delete(live, "token")
	if _, _, ok := restarted.BodyWith(nil, live); ok {
		t.Error("a missing value is not missed")
	}
	if (Object{Masked: sent}).Volatile() {
		t.Error("a Secret without templates is volatile")
	}
}
