package decrypt

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"go.yaml.in/yaml/v3"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/harness"
)

// TestPutBackEqualsStockSopsSoak: for generated files of every format and
// shape, sealed by the real sops, what the agent would send is byte for byte
// what `sops decrypt` writes. GITSEAL_SOAK rounds, 30 without it.
func TestPutBackEqualsStockSopsSoak(t *testing.T) {
	t.Parallel()
	s := stock{sops: harness.Oracle(t, "sops"), dir: t.TempDir(), id: identityOf(t)}
	s.identity = filepath.Join(s.dir, "identity")
	if err := os.WriteFile(s.identity, s.id.Text().Reveal(), 0o600); err != nil {
		t.Fatal(err)
	}
	rounds := 30
	if n, err := strconv.Atoi(os.Getenv("GITSEAL_SOAK")); err == nil {
		rounds = n
	}
	seeds := []uint64{210, 259, 295} // only comments are sealed: these failed once
	for i := range rounds {
		if !slices.Contains(seeds, uint64(i)) {
			seeds = append(seeds, uint64(i))
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			g := generator{rand.New(rand.NewPCG(seed, 7))}
			for _, file := range []struct{ name, content string }{
				{"config.yaml", g.yaml()}, {"config.json", g.json()}, {"app.env", g.dotenv()}, {"app.ini", g.ini()}, {"blob.bin", g.binary()},
			} {
				s.checkFile(t, g, seed, file.name, file.content)
			}
			s.checkSecret(t, g, seed)
		})
	}
}

type stock struct {
	sops, dir, identity string
	id                  crypto.Identity
}

func (s stock) run(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(s.sops, args...)
	cmd.Env = append(os.Environ(), "SOPS_AGE_KEY_FILE="+s.identity)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("sops %v: %v\n%s", args, err, errOut.String())
	}
	return out
}

// seal returns the sealed file and what stock sops decrypts it to.
func (s stock) seal(t *testing.T, seed uint64, name, content, selector string) (sealed, plain []byte) {
	t.Helper()
	file := filepath.Join(s.dir, fmt.Sprintf("%d-%s", seed, name))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	config := file + ".sops-config"
	if err := os.WriteFile(config, []byte("creation_rules:\n  - age: "+s.id.Recipient().String()+"\n    "+selector+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sealed = s.run(t, "--config", config, "encrypt", file)
	if err := os.WriteFile(file, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	return sealed, s.run(t, "decrypt", file)
}

// checkFile takes the file as content of a generated Secret.
func (s stock) checkFile(t *testing.T, g generator, seed uint64, name, content string) {
	t.Helper()
	sealed, plain := s.seal(t, seed, name, content, g.selector(name))
	tree := fstest.MapFS{name: {Data: sealed}, "kustomization.yaml": {Data: []byte("secretGenerator: [{name: app, namespace: ns, files: [" + name + "]}]\n")}}
	p := run(t, tree, passOption{policy: Policy{Plaintext: PlaintextAllow}})
	if len(p.gated.Refused) > 0 {
		t.Errorf("%s: refused %v\n%s", name, p.gated.Refused, content)
		return
	}
	if got := p.bodies(t)["ns/app"][name]; got != string(plain) {
		t.Errorf("%s: got\n%q\nstock sops gives\n%q\nof\n%s", name, got, plain, content)
	}
}

// checkSecret takes a manifest; the values are compared after a plaintext build.
func (s stock) checkSecret(t *testing.T, g generator, seed uint64) {
	t.Helper()
	values := map[string]any{}
	for range 1 + g.IntN(6) {
		values[g.key()] = g.scalar()
	}
	b, err := yaml.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "s", "namespace": "ns"}, "stringData": values})
	if err != nil {
		t.Fatal(err)
	}
	sealed, plain := s.seal(t, seed, "secret.yaml", string(b), "encrypted_regex: ^(data|stringData)$")
	p := run(t, fstest.MapFS{"secret.yaml": {Data: sealed}}, passOption{policy: Policy{Plaintext: PlaintextAllow}})
	want := map[string]map[string]string{}
	objects, err := build.Run(t.Context(), fstest.MapFS{"secret.yaml": {Data: plain}}, ".", build.AsWritten)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range objects {
		data, field := secretValues(u)
		if field != nil {
			t.Fatal(field)
		}
		u.Object["data"] = data
		delete(u.Object, "stringData")
		want[plainName(u)] = decodedData(t, u)
	}
	if len(p.gated.Refused) > 0 {
		t.Errorf("refused %v\n%s", p.gated.Refused, b)
		return
	}
	got := p.bodies(t)
	for k, v := range want["ns/s"] {
		if got["ns/s"][k] != v {
			t.Errorf("%s: got %q, stock gives %q\n%s", k, got["ns/s"][k], v, b)
		}
	}
	if len(got["ns/s"]) != len(want["ns/s"]) {
		t.Errorf("got %d values, want %d", len(got["ns/s"]), len(want["ns/s"]))
	}
}

// generator makes files that are awkward and valid.
type generator struct{ *rand.Rand }

func (g generator) pick(from ...string) string { return from[g.IntN(len(from))] }

func (g generator) key() string {
	return g.pick("a", "b", "user", "password", "db.host", "x-y", "A_B", "on", "null", "1", "k") + strconv.Itoa(g.IntN(50))
}

func (g generator) text() string {
	words := []string{
		"swordfish", "", " ", "true", "5432", "0123", "1e3", "null", "~", "yes", "a: b", "# c", "- x", "{a}", "[b", "'", `"`, `\`, "$(X)", "${Y}", "%s",
		"ünï ☃", "a\tb", "line\nbreak", "end\n", "&a", "*b", "!c", "|", ">", "---", "...", "ENC", "sops", "2026-01-01", "<&>", strings.Repeat("long", 60),
	}
	var b strings.Builder
	for range 1 + g.IntN(3) {
		b.WriteString(words[g.IntN(len(words))])
	}
	return b.String()
}

func (g generator) scalar() any {
	switch g.IntN(8) {
	case 0:
		return g.IntN(100000) - 50000
	case 1:
		return g.IntN(2) == 0
	case 2:
		return float64(g.IntN(10000)) / 64
	case 3:
		return nil
	default:
		return g.text()
	}
}

func (g generator) tree(depth int) map[string]any {
	out := map[string]any{}
	for range 1 + g.IntN(4) {
		out[g.key()] = g.value(depth)
	}
	return out
}

func (g generator) value(depth int) any {
	switch n := g.IntN(6); {
	case depth > 3 || n > 2:
		return g.scalar()
	case n == 0:
		list := make([]any, g.IntN(4))
		for i := range list {
			list[i] = g.value(depth + 1)
		}
		return list
	default:
		return g.tree(depth + 1)
	}
}

func (g generator) yaml() string {
	var b strings.Builder
	for i := range 1 + g.IntN(3) {
		if i > 0 {
			b.WriteString("---\n")
		}
		if g.IntN(2) == 0 {
			b.WriteString(g.pick("# swordfish\n", "# seal this\n", "# leave this\n"))
		}
		e := yaml.NewEncoder(&b)
		e.SetIndent(2 + 2*g.IntN(2))
		if err := e.Encode(g.tree(0)); err != nil {
			panic(err)
		}
	}
	return b.String()
}

func (g generator) json() string {
	b, err := json.MarshalIndent(g.tree(0), "", g.pick("", "  ", "\t"))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (g generator) dotenv() string {
	var b strings.Builder
	for i := range 1 + g.IntN(5) {
		if g.IntN(3) == 0 {
			b.WriteString("# swordfish\n")
		}
		fmt.Fprintf(&b, "KEY_%d=%s\n", i, strings.ReplaceAll(g.text(), "\n", g.pick(`\n`, " ")))
	}
	return b.String()
}

func (g generator) ini() string {
	var b strings.Builder
	for i := range 1 + g.IntN(3) {
		fmt.Fprintf(&b, "[part%d]\n", i)
		for j := range 1 + g.IntN(4) {
			fmt.Fprintf(&b, "key%d = %s\n", j, g.pick("swordfish", "a b c", "5", "true", "x=y", "ünï", "path/to:1"))
		}
	}
	return b.String()
}

func (g generator) binary() string {
	b := make([]byte, g.IntN(3000))
	for i := range b {
		b[i] = byte(g.IntN(256))
	}
	return string(b)
}

// selector picks which leaves are sealed, as a line of .sops.yaml.
func (g generator) selector(name string) string {
	if name == "blob.bin" {
		return ""
	}
	return g.pick("", "", `encrypted_regex: "^(a|b|pass|KEY)"`, `unencrypted_regex: "^(user|KEY_1)"`, `encrypted_suffix: "1"`, `unencrypted_suffix: "2"`,
		"mac_only_encrypted: true", `encrypted_comment_regex: "seal this"`, `unencrypted_comment_regex: "leave this"`)
}
