package e2e

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"filippo.io/age"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/test/harness"
)

// stock seals and opens with the real sops.
type stock struct {
	e          *env
	sops       string
	recipients map[string]string // by the names that the trees use
	identities string            // file with the private keys of agent, retired and quantum
	replace    []string          // pairs for the texts of trees
}

// newStock makes the recipients agent, retired and quantum, whose keys the agent
// holds, the last two in the Secret "retired"; nobody holds that of stranger.
func newStock(e *env, canary string) *stock {
	e.t.Helper()
	s := &stock{e: e, sops: harness.Oracle(e.t, "sops"), recipients: map[string]string{"agent": recipientPattern.FindString(e.read(".gitseal/recipients.txt"))}}
	private := string(e.keySecret().Data["identity.agekey"])
	data := map[string][]byte{}
	for _, name := range []string{"retired", "stranger"} {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			e.t.Fatal(err)
		}
		s.recipients[name] = id.Recipient().String()
		if name == "retired" {
			data["old.agekey"] = []byte("# public key: " + s.recipients[name] + "\n" + id.String() + "\n")
		}
	}
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		e.t.Fatal(err)
	}
	s.recipients["quantum"] = id.Recipient().String()
	data["quantum.agekey"] = []byte(id.String() + "\n")
	if _, err := e.client.CoreV1().Secrets(e.system).Create(e.t.Context(), secretObject("retired", data), metav1.CreateOptions{}); err != nil {
		e.t.Fatal(err)
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		private += "\n" + string(data[key])
	}
	s.identities = filepath.Join(e.home, "identities")
	if err := os.WriteFile(s.identities, []byte(private), 0o600); err != nil {
		e.t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	s.replace = []string{
		"CANARY", canary, "BASE64OF", "BASE64OF", "BASE64", b64([]byte(canary)), "BYTES", "\x00\x01\xfe\xff" + canary, "LONG", strings.Repeat(canary+"=", 5000),
		"WRAPPED", wrap(b64([]byte(strings.Repeat(canary, 5))), "    "), "BOM", "\ufeff", "␍", "\r", "␉", "\t",
	}
	for name, r := range s.recipients {
		s.replace = append(s.replace, strings.ToUpper(name)+"_RECIPIENT", r)
	}
	return s
}

func wrap(text, indent string) string {
	var lines []string
	for chunk := range slices.Chunk([]byte(text), 60) {
		lines = append(lines, indent+string(chunk))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// fluxRule is the creation rule of Flux' guide.
const fluxRule = "encrypted_regex: ^(data|stringData)$"

// seal seals as stock sops does with a creation rule, whose fields stand
// between semicolons.
func (s *stock) seal(file, plain, rule string, to ...string) string {
	s.e.t.Helper()
	return s.sealAs("", file, plain, rule, to...)
}

// sealAs seals as a format that the file's name does not tell, with --input-type
// and --output-type; "" is the one that it tells.
func (s *stock) sealAs(format, file, plain, rule string, to ...string) string {
	s.e.t.Helper()
	var config strings.Builder
	config.WriteString("creation_rules:\n  - path_regex: .*\n")
	if !strings.Contains(rule, "key_groups") {
		var keys []string
		for _, name := range to {
			if s.recipients[name] == "" {
				s.e.t.Fatalf("%s: unknown recipient %q", file, name)
			}
			keys = append(keys, s.recipients[name])
		}
		fmt.Fprintf(&config, "    age: %s\n", strings.Join(keys, ","))
	}
	for field := range strings.SplitSeq(rule, ";") {
		fmt.Fprintf(&config, "    %s\n", strings.TrimSpace(field))
	}
	rules := filepath.Join(s.e.home, "rules.yaml")
	if err := os.WriteFile(rules, []byte(config.String()), 0o600); err != nil {
		s.e.t.Fatal(err)
	}
	args := append([]string{"--config", rules, "encrypt"}, formatFlags(format, file)...)
	out, errOut, code := s.e.run(plain, s.sops, args...)
	if code != 0 {
		s.e.t.Fatalf("sops encrypt %s: %s", file, errOut)
	}
	return out
}

// formatFlags tell sops about a file that it reads from standard input.
func formatFlags(format, file string) []string {
	if format == "" {
		return []string{"--filename-override", file}
	}
	return []string{"--input-type", format, "--output-type", format, "--filename-override", file}
}

// open is what stock sops decrypts, for people who have all keys.
func (s *stock) open(format, file, sealed string) string {
	s.e.t.Helper()
	args := append([]string{"SOPS_AGE_KEY_FILE=" + s.identities, s.sops, "--config", os.DevNull, "decrypt"}, formatFlags(format, file)...)
	out, errOut, code := s.e.run(sealed, "env", args...)
	if code != 0 {
		s.e.t.Fatalf("sops decrypt %s: %s", file, errOut)
	}
	return out
}

var treeHeader = regexp.MustCompile(`^-- (and )?(sealed )?(\S+)(?: as (\w+))?(?: to ([\w,]+))?(?: with (.+))? --$`)

// tree reads sections that begin with a header:
//
//	-- PATH --                                           a file as it is
//	-- sealed PATH [as FORMAT] [to NAMES] [with RULE] --   sealed by stock sops
//	-- and [sealed] PATH … --                            appended to PATH, after ---
//
// FORMAT is needed where the name does not tell it. NAMES are recipients, agent
// without. RULE is what seal takes; without, objects are sealed by the rule of
// Flux' guide and other files whole. BASE64OF(PATH) becomes another file of the
// tree. It returns the files below dir as they lie in git, and as they are when
// stock sops has opened each sealed section.
func (s *stock) tree(text, dir, namespace string) (sealed, plain fstest.MapFS) {
	s.e.t.Helper()
	sealed, plain = fstest.MapFS{}, fstest.MapFS{}
	text = strings.NewReplacer(append([]string{"NAMESPACE", namespace}, s.replace...)...).Replace(text)
	var header []string
	var content strings.Builder
	flush := func() {
		if header == nil {
			return
		}
		file, inGit, opened := path.Join(dir, header[3]), content.String(), content.String()
		content.Reset()
		if header[2] != "" {
			rule := header[6]
			if rule == "" && strings.Contains(inGit, "apiVersion") {
				rule = fluxRule
			}
			to := strings.Split(header[5], ",")
			if header[5] == "" {
				to = []string{"agent"}
			}
			inGit = s.sealAs(header[4], file, inGit, rule, to...)
			opened = s.open(header[4], file, inGit)
		}
		if header[1] != "" {
			inGit = string(sealed[file].Data) + "---\n" + inGit
			opened = string(plain[file].Data) + "---\n" + opened
		}
		sealed[file] = &fstest.MapFile{Data: []byte(inGit)}
		plain[file] = &fstest.MapFile{Data: []byte(opened)}
	}
	for line := range strings.Lines(text) {
		if m := treeHeader.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			flush()
			header = m
			continue
		}
		content.WriteString(line)
	}
	flush()
	if len(sealed) == 0 {
		s.e.t.Fatalf("%s: the tree is empty", dir)
	}
	for _, tree := range []fstest.MapFS{sealed, plain} {
		for _, f := range tree {
			f.Data = base64Of.ReplaceAllFunc(f.Data, func(call []byte) []byte {
				inner := tree[path.Join(dir, string(base64Of.FindSubmatch(call)[1]))]
				return []byte(base64.StdEncoding.EncodeToString(inner.Data))
			})
		}
	}
	return sealed, plain
}

var base64Of = regexp.MustCompile(`BASE64OF\(([^)]+)\)`)

// writeTree puts a tree into the work tree.
func (e *env) writeTree(tree fstest.MapFS) {
	e.t.Helper()
	for file, f := range tree {
		e.repo.Write(file, string(f.Data))
	}
}

// shape is what matters of a Secret or a ConfigMap.
type shape struct {
	Type                string
	Immutable           bool
	Labels, Annotations map[string]string
	Data                map[string]string // decoded
}

var generatedSuffix = regexp.MustCompile(`-[bcdfghkmt2456789]{10}$`)

// shapeName names an object without the suffix of a generator.
func shapeName(kind, namespace, name string) string {
	return kind + "/" + namespace + "/" + generatedSuffix.ReplaceAllString(name, "")
}

// stockShapes builds a folder of a plaintext tree with kustomize, as Flux and
// stock tools do, and returns what the API server would make of it.
func stockShapes(t *testing.T, plain fs.FS, dir string) map[string]shape {
	t.Helper()
	objects, err := build.Run(t.Context(), plain, dir, build.AsWritten)
	if err != nil {
		t.Fatalf("build of the plaintext tree: %v", err)
	}
	out := map[string]shape{}
	for _, u := range objects {
		if u.GetAPIVersion() != "v1" || u.GetKind() != "Secret" && u.GetKind() != "ConfigMap" {
			continue
		}
		name := shapeName(u.GetKind(), u.GetNamespace(), u.GetName())
		if _, ok := out[name]; ok {
			t.Fatalf("%s is there twice", name)
		}
		out[name] = shapeOf(t, u)
	}
	return out
}

func shapeOf(t *testing.T, u *unstructured.Unstructured) shape {
	t.Helper()
	s := shape{Labels: orEmpty(u.GetLabels()), Annotations: orEmpty(u.GetAnnotations()), Data: map[string]string{}}
	s.Immutable, _, _ = unstructured.NestedBool(u.Object, "immutable")
	text := func(v any) string {
		if v == nil {
			return ""
		}
		return fmt.Sprint(v)
	}
	encoded := func(field string) {
		data, _, _ := unstructured.NestedMap(u.Object, field)
		for key, v := range data {
			b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text(v)), ""))
			if err != nil {
				t.Fatalf("%s %s: %s.%s is not base64", u.GetKind(), u.GetName(), field, key)
			}
			s.Data[key] = string(b)
		}
	}
	asText := func(field string) {
		data, _, _ := unstructured.NestedMap(u.Object, field)
		for key, v := range data {
			s.Data[key] = text(v)
		}
	}
	if u.GetKind() == "ConfigMap" {
		asText("data")
		encoded("binaryData")
		return s
	}
	if s.Type, _, _ = unstructured.NestedString(u.Object, "type"); s.Type == "" {
		s.Type = "Opaque"
	}
	encoded("data")
	asText("stringData")
	return s
}

// liveShapes reads what gitseal applied to namespaces of the cluster.
func (e *env) liveShapes(namespaces ...string) map[string]shape {
	e.t.Helper()
	out := map[string]shape{}
	for _, namespace := range namespaces {
		e.addLiveShapes(out, namespace)
	}
	return out
}

func (e *env) addLiveShapes(out map[string]shape, namespace string) {
	e.t.Helper()
	applied := metav1.ListOptions{LabelSelector: apply.SyncLabel}
	add := func(kind string, o metav1.Object, immutable *bool, s shape) {
		name := shapeName(kind, namespace, o.GetName())
		if _, ok := out[name]; ok {
			e.t.Errorf("%s is there twice", name)
		}
		s.Labels, s.Annotations, s.Immutable = orEmpty(o.GetLabels()), orEmpty(o.GetAnnotations()), immutable != nil && *immutable
		delete(s.Labels, apply.SyncLabel)
		out[name] = s
	}
	secrets, err := e.client.CoreV1().Secrets(namespace).List(e.t.Context(), applied)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := range secrets.Items {
		o := &secrets.Items[i]
		data := map[string]string{}
		for key, v := range o.Data {
			data[key] = string(v)
		}
		add("Secret", o, o.Immutable, shape{Type: string(o.Type), Data: data})
	}
	configMaps, err := e.client.CoreV1().ConfigMaps(namespace).List(e.t.Context(), applied)
	if err != nil {
		e.t.Fatal(err)
	}
	for i := range configMaps.Items {
		o := &configMaps.Items[i]
		data := orEmpty(o.Data)
		for key, v := range o.BinaryData {
			data[key] = string(v)
		}
		add("ConfigMap", o, o.Immutable, shape{Data: data})
	}
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// showsNowhere searches what the agent said, the history of the repository and
// everything that the API server stores but Secrets.
func (e *env) showsNowhere(value string, said ...haystack) {
	e.t.Helper()
	where := append(e.etcd(), said...)
	where = append(where, haystack{"history", []byte(e.repo.Git("log", "-p", "--all", "--text"))})
	for form, text := range disguises(value) {
		for _, h := range where {
			if at := strings.Index(string(h.text), text); at >= 0 {
				line := string(h.text[max(0, at-200) : at+len(text)])
				e.t.Errorf("a sealed value shows, as %s, in %s: …%s", form, h.name, line)
			}
		}
	}
}
