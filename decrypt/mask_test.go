package decrypt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
)

func TestMaskerIsAFileSystem(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, dbSecret+"-- dir/plain.yaml --\n# a comment\na:    b\n-- dir/sops.md --\nabout sops\n")
	m := NewMasker(MaskerConfig{Tree: sealed, Keys: &fakeKeys{ids: []crypto.Identity{identityOf(t)}}, Digester: digesterOf(t)})
	for _, name := range []string{"dir/plain.yaml", "dir/sops.md"} {
		b, err := fs.ReadFile(m, name)
		if err != nil || !bytes.Equal(b, sealed[name].Data) {
			t.Errorf("%s: got %q, %v, want it unchanged", name, b, err)
		}
	}
	read, err := m.ReadFile("s.yaml")
	if err != nil {
		t.Fatal(err)
	}
	f, err := m.Open("s.yaml")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(read), string(opened)); d != "" {
		t.Errorf("Open and ReadFile differ:\n%s", d)
	}
	want := "apiVersion: v1\nkind: Secret\nmetadata:\n    name: db\n    namespace: prod\n    labels:\n        keep: untouched\nstringData:\n    password: TOKEN\ndata:\n    raw: TOKEN\n"
	if d := cmp.Diff(want, tokenPattern.ReplaceAllString(string(read), "TOKEN")); d != "" {
		t.Errorf("masked (-want +got):\n%s", d)
	}
	info, err := f.Stat()
	if err != nil || info.Size() != int64(len(opened)) || info.Name() != "s.yaml" || f.Close() != nil {
		t.Errorf("got %v, %v", info, err)
	}
	if info, err := m.Stat("dir"); err != nil || !info.IsDir() {
		t.Errorf("Stat of a folder: %v, %v", info, err)
	}
	if d, err := m.Open("dir"); err != nil {
		t.Error(err)
	} else if info, err := d.Stat(); err != nil || !info.IsDir() {
		t.Errorf("Open of a folder: %v, %v", info, err)
	}
	entries, err := m.ReadDir("dir")
	if err != nil || len(entries) != 2 || entries[0].Name() != "plain.yaml" {
		t.Errorf("ReadDir: %v, %v", entries, err)
	}
	for _, name := range []string{"missing.yaml", "../s.yaml", "/s.yaml"} {
		if _, err := m.ReadFile(name); err == nil {
			t.Errorf("ReadFile(%q) should fail", name)
		}
		if _, err := m.Open(name); err == nil {
			t.Errorf("Open(%q) should fail", name)
		}
	}
	if m.Err() != nil || len(m.Problems()) > 0 {
		t.Errorf("got %v, %v", m.Err(), m.Problems())
	}
}

func TestMaskerIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, dbSecret+strings.Replace(dbSecret, "sealed s", "foreign f", 1))
	m := NewMasker(MaskerConfig{Tree: sealed, Keys: &fakeKeys{ids: []crypto.Identity{identityOf(t)}}, Digester: digesterOf(t)})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, err1 := m.ReadFile("s.yaml")
			_, err2 := m.ReadFile("f.yaml")
			if err1 != nil || err2 != nil {
				t.Error(err1, err2)
			}
			_ = m.Problems()
			_ = m.Pass()
		})
	}
	wg.Wait()
	if len(m.Problems()) != 1 {
		t.Errorf("got %v, want one problem", m.Problems())
	}
}

func TestForgeriesStopTheTree(t *testing.T) {
	t.Parallel()
	sealed, _ := trees(t, dbSecret)
	token := tokenPattern.FindString(run(t, sealed, passOption{}).yaml)
	std := base64.StdEncoding.EncodeToString
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: evil, namespace: prod}\n"
	for name, c := range map[string]struct {
		file   string
		opened bool
	}{
		"as it is":                    {secret + "stringData: {k: " + token + "}\n", false},
		"in a comment":                {"# " + token + "\n" + secret, false},
		"base64":                      {secret + "data: {k: " + std([]byte(token)) + "}\n", false},
		"base64, one byte in":         {secret + "data: {k: " + std([]byte("x"+token)) + "}\n", false},
		"base64, two bytes in":        {secret + "data: {k: " + std([]byte("xy"+token)) + "}\n", false},
		"base64 of base64":            {secret + "data: {k: " + std([]byte(std([]byte(token)))) + "}\n", false},
		"with an escape":              {secret + `stringData: {k: "\x67` + token[1:] + "\"}\n", false},
		"the shape without keys":      {secret + "stringData: {k: " + strings.Replace(token, "gitseal0", "gitseal1", 1) + "}\n", false},
		"inside an opened value":      {string(seal(t, "evil.yaml", secret+"stringData: {k: 'x "+token+"'}\n", "", identityOf(t))), true},
		"base64 in an opened value":   {string(seal(t, "evil.yaml", secret+"data: {k: "+std([]byte(token))+"}\n", "", identityOf(t))), true},
		"in the clear part of sealed": {string(seal(t, "evil.yaml", strings.Replace(secret, "namespace: prod", "labels: {x: "+token+"}", 1)+"stringData: {k: v}\n", "", identityOf(t))), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := fstest.MapFS{"s.yaml": sealed["s.yaml"], "evil.yaml": {Data: []byte(c.file)}}
			p, err := tryRun(t, tree, passOption{policy: Policy{Plaintext: PlaintextAllow}})
			var forgery *ForgeryError
			if !errors.As(p.masker.Err(), &forgery) || forgery.File != "evil.yaml" || forgery.Opened != c.opened {
				t.Fatalf("got %v (build: %v)", p.masker.Err(), err)
			}
			if err == nil {
				t.Errorf("the build went on:\n%s", p.yaml)
			}
			if strings.Contains(forgery.Error(), token) || !strings.Contains(forgery.Error(), "evil.yaml") {
				t.Errorf("got %v", forgery)
			}
		})
	}
}

func TestBrokenSealedFilesNeverPanicOrApply(t *testing.T) {
	t.Parallel()
	id := identityOf(t)
	good := string(seal(t, "s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: db, annotations: {a: untouched}}\nstringData: {k: hunter2canary}\n", "", id))
	for name, text := range map[string]string{
		"metadata is a text":       strings.Replace(good, "metadata:\n    name: db\n    annotations:\n        a: untouched\n", "metadata: text\n", 1),
		"annotations are a list":   strings.Replace(good, "        a: untouched\n", "        - a\n", 1),
		"metadata is a list":       strings.Replace(good, "metadata:\n    name: db\n    annotations:\n        a: untouched\n", "metadata:\n    - name: db\n", 1),
		"no metadata":              strings.Replace(good, "metadata:\n    name: db\n    annotations:\n        a: untouched\n", "", 1),
		"a leaf of type bytes":     strings.Replace(good, "type:str", "type:bytes", 1),
		"broken YAML":              strings.Replace(good, "kind: Secret", "kind: [Secret", 1),
		"the sops block is a text": good[:strings.Index(good, "sops:")] + "sops: text\n",
		"the sops block is gone":   good[:strings.Index(good, "sops:")],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if text == good {
				t.Fatal("the test did not change the file")
			}
			p, err := tryRun(t, fstest.MapFS{"s.yaml": {Data: []byte(text)}}, passOption{policy: Policy{Plaintext: PlaintextAllow}})
			if err == nil && len(p.gated.Objects) > 0 {
				t.Errorf("passed: %v", p.gated.Objects)
			}
		})
	}
}

func TestSealedStructureIsRefused(t *testing.T) {
	t.Parallel()
	id := identityOf(t)
	// Our sealer refuses to make such a file; stock sops does not. So it is
	// shown something that is no object, and the MAC covers sealed values only.
	text := "apiVersio: v1\nkind: Secret\nmetadata: {name: hunter2canary, namespace: hunter2canary}\ndata: {k: aHVudGVyMmNhbmFyeQ==}\n"
	for name, c := range map[string]struct{ regex, field string }{
		"name":      {"^(name|data)$", "metadata.name"},
		"namespace": {"^(namespace|data)$", "metadata.namespace"},
		"kind":      {"^(kind|data)$", "kind"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sealed := must(crypto.SealSOPS(crypto.SealRequest{Plain: crypto.NewSecretString(text), Format: crypto.YAML, Now: testTime,
				Rule: crypto.Rule{Recipients: []crypto.Recipient{id.Recipient()}, EncryptedRegex: c.regex, MACOnlyEncrypted: true}}))(t)
			sealed = bytes.Replace(sealed, []byte("apiVersio:"), []byte("apiVersion:"), 1)
			m := NewMasker(MaskerConfig{Tree: fstest.MapFS{"s.yaml": {Data: sealed}}, Keys: &fakeKeys{ids: []crypto.Identity{id}}, Digester: digesterOf(t)})
			objects, err := build.Run(t.Context(), m, "", build.AsWritten)
			if err != nil || len(m.Problems()) > 0 {
				t.Fatal(err, m.Problems())
			}
			g := m.Pass().Gate(objects)
			if len(g.Refused) != 1 {
				t.Fatalf("got %v", g)
			}
			r := g.Refused[0]
			if r.Field != c.field || r.Reason != ReasonStructureSealed || !strings.Contains(r.Message, crypto.KubernetesSelector) {
				t.Errorf("got %v, want %s at %s", r, ReasonStructureSealed, c.field)
			}
		})
	}
}
