package crypto

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

const canary = "hunter2-canary"

type holder struct {
	Public  string
	Exposed Secret
	Pointer *Secret
	hidden  Secret
	List    []Secret
	Map     map[string]Secret
}

func newHolder() holder {
	s := NewSecretString(canary)
	return holder{"public", s, &s, s, []Secret{s}, map[string]Secret{"k": s}}
}

func leaks(text string) bool {
	return strings.Contains(text, canary) || strings.Contains(text, "canary") ||
		strings.Contains(text, fmt.Sprintf("%x", canary)) || strings.Contains(text, fmt.Sprintf("%v", []byte(canary))) ||
		strings.Contains(text, fmt.Sprintf("%#v", []byte(canary)))
}

func TestNoFmtVerbPrintsASecret(t *testing.T) {
	t.Parallel()
	s := NewSecretString(canary)
	id, err := GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	key := testCertificateKey(t)
	for _, verb := range "vTtbcdoOqxXUeEfFgGspw" {
		for _, flag := range []string{"", "+", "#", "-", " ", "0", "10", ".3"} {
			format := "%" + flag + string(verb)
			for name, v := range map[string]any{
				"secret": s, "pointer": &s, "holder": newHolder(), "slice": []Secret{s}, "map": map[string]any{"a": s},
			} {
				if got := fmt.Sprintf(format, v); leaks(got) {
					t.Errorf("Sprintf(%q, %s) = %q", format, name, got)
				}
			}
			for name, v := range map[string]any{"identity": id, "identities": []Identity{id}, "in struct": struct{ i Identity }{id}} {
				if got := fmt.Sprintf(format, v); strings.Contains(got, "AGE-SECRET") {
					t.Errorf("Sprintf(%q, %s) shows the key", format, name)
				}
			}
			d := fmt.Sprint(key.priv().D)
			for name, v := range map[string]any{"key": key, "keys": []CertificateKey{key}, "in struct": struct{ k CertificateKey }{key}} {
				if got := fmt.Sprintf(format, v); strings.Contains(got, d) || strings.Contains(got, fmt.Sprintf("%x", key.priv().D)) {
					t.Errorf("Sprintf(%q, %s) shows the key", format, name)
				}
			}
		}
	}
	if got, want := fmt.Sprintf("%v|%s|%#v|%q|%d", s, s, s, s, s), "[redacted]|[redacted]|[redacted]|[redacted]|[redacted]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNoLoggerPrintsASecret(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]func(*bytes.Buffer) slog.Handler{
		"text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out bytes.Buffer
		log := slog.New(h(&out))
		s := NewSecretString(canary)
		log.Info("m", "secret", s, "pointer", &s, "holder", newHolder(), "err", fmt.Errorf("open %v: %w", s, ErrMAC))
		if leaks(out.String()) {
			t.Errorf("%s handler: %s", name, out.String())
		}
		if !strings.Contains(out.String(), Redacted) {
			t.Errorf("%s handler does not say %s: %s", name, Redacted, out.String())
		}
	}
}

func TestEveryEncoderRefusesASecret(t *testing.T) {
	t.Parallel()
	s := NewSecretString(canary)
	type exported struct{ S Secret }
	for name, encode := range map[string]func(any) ([]byte, error){
		"json":      json.Marshal,
		"yaml":      yaml.Marshal,
		"sigs yaml": sigsyaml.Marshal,
		"xml":       xml.Marshal,
		"gob": func(v any) ([]byte, error) {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(v)
			return b.Bytes(), err
		},
	} {
		for what, v := range map[string]any{"secret": s, "pointer": &s, "field": exported{s}} {
			out, err := encode(v)
			if err == nil {
				t.Errorf("%s of a %s: got %q, want an error", name, what, out)
			}
			if leaks(string(out)) {
				t.Errorf("%s of a %s leaks: %q", name, what, out)
			}
		}
	}
	if _, err := json.Marshal(map[string]any{"s": s}); !errors.Is(err, ErrSecretEncode) {
		t.Errorf("got %v, want ErrSecretEncode", err)
	}
}

func TestSecretEquality(t *testing.T) {
	t.Parallel()
	a, b, other := NewSecretString("x"), NewSecretString("x"), NewSecretString("y")
	var zero Secret
	for name, c := range map[string]struct {
		a, b Secret
		want bool
	}{
		"same bytes":             {a, b, true},
		"other bytes":            {a, other, false},
		"zero and zero":          {zero, Secret{}, true},
		"zero and empty":         {zero, NewSecret(nil), false},
		"empty and empty":        {NewSecret(nil), NewSecret([]byte{}), true},
		"one longer by a letter": {a, NewSecretString("xx"), false},
	} {
		if got := c.a.Equal(c.b); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	if !zero.IsZero() || NewSecret(nil).IsZero() {
		t.Error("only the zero Secret is zero")
	}
	if zero.Reveal() != nil || string(a.Reveal()) != "x" {
		t.Error("Reveal does not give the bytes")
	}
}
