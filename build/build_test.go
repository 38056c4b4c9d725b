package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// tree reads sections "-- name --".
func tree(t testing.TB, text string) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	var name string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(rest, " --\n") {
			name = strings.TrimSuffix(rest, " --\n")
			out[name] = &fstest.MapFile{}
			continue
		}
		out[name].Data = append(out[name].Data, line...)
	}
	if len(out) == 0 {
		t.Fatal("the tree of the test is empty")
	}
	return out
}

func render(t testing.TB, files fs.FS, dir string, order Order) string {
	t.Helper()
	objects, err := Run(t.Context(), files, dir, order)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for i, u := range objects {
		b, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(b)
	}
	return out.String()
}

const overlay = `-- base/kustomization.yaml --
resources: [deployment.yaml]
-- base/deployment.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 1
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - name: main
        image: app
        envFrom: [{secretRef: {name: app}}]
-- prod/kustomization.yaml --
namespace: prod
resources: [../base, namespace.yaml]
patches:
- path: patch.yaml
secretGenerator:
- name: app
  envs: [a.env]
-- prod/namespace.yaml --
apiVersion: v1
kind: Namespace
metadata: {name: prod}
-- prod/patch.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec: {replicas: 3}
-- prod/a.env --
# comment
PASSWORD=gitseal0aaaaaaaaaaaaaaaaaaaaaaaaaaaa
`

func TestRenders(t *testing.T) {
	t.Parallel()
	const deployment = `apiVersion: apps/v1
kind: Deployment
metadata:
  name: app
  namespace: prod
spec:
  replicas: 3
  selector:
    matchLabels:
      app: app
  template:
    metadata:
      labels:
        app: app
    spec:
      containers:
      - envFrom:
        - secretRef:
            name: app-k797mftt98
        image: app
        name: main
`
	const secret = `apiVersion: v1
data:
  PASSWORD: Z2l0c2VhbDBhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh
kind: Secret
metadata:
  name: app-k797mftt98
  namespace: prod
type: Opaque
`
	const namespace = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: prod\n"
	plain := func(names ...string) string {
		var out []string
		for _, n := range names {
			out = append(out, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: "+n+"\n")
		}
		return strings.Join(out, "---\n")
	}
	for name, c := range map[string]struct {
		tree, dir string
		order     Order
		want      string
	}{
		"an overlay with base, patch, generator and namespace": {overlay, "prod", AsWritten, deployment + "---\n" + namespace + "---\n" + secret},
		"sorted as the command line does":                      {overlay, "/prod/", ByKind, namespace + "---\n" + secret + "---\n" + deployment},
		"a plain folder, recursively": {`-- README.md --
# not YAML: [
-- .hidden.yaml --
broken: [
-- .git/x.yaml --
broken: [
-- a.yaml --
# a comment before
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a1}}
--- # a comment at the marker
apiVersion: v1
kind: ConfigMap
metadata: {name: a2}
--- {apiVersion: v1, kind: ConfigMap, metadata: {name: a3}}
...
apiVersion: v1
kind: ConfigMap
metadata: {name: a4}
---
# nothing
---
null
-- b.json --
{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}
-- c.YML --
%YAML 1.1
---
apiVersion: v1
kind: ConfigMapList
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c1}}
- apiVersion: v1
  kind: List
  items: [{apiVersion: v1, kind: ConfigMap, metadata: {name: c2}}]
-- d/e/f.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: f}
-- d/g/kustomization.yaml --
namePrefix: pre-
resources: [h.yaml]
-- d/g/h.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: h}
-- d/g/unlisted.yaml --
broken: [
`, "", AsWritten, plain("a1", "a2", "a3", "a4", "b", "c1", "c2", "f", "pre-h")},
		"CRLF and a document that begins with ---": {"-- a.yaml --\n---\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: a}\r\n---\r\napiVersion: v1\r\nkind: ConfigMap\r\nmetadata: {name: b}\r\n", ".", AsWritten, plain("a", "b")},
		"inline transformer, patch and generator, built in": {`-- kustomization.yaml --
resources: [a.yaml]
transformers:
- |-
  apiVersion: builtin
  kind: PrefixTransformer
  metadata: {name: x}
  prefix: p-
  fieldSpecs: [{path: metadata/name}]
- suffix.yaml
patchesStrategicMerge:
- |-
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
-- suffix.yaml --
apiVersion: builtin
kind: SuffixTransformer
metadata: {name: x}
suffix: -s
fieldSpecs: [{path: metadata/name}]
-- a.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
`, "", AsWritten, plain("p-a-s")},
		"files outside the folder but inside the repository": {"-- x/a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n-- y/z/kustomization.yaml --\nresources: [../../x/a.yaml]\n", "y/z", AsWritten, plain("a")},
		"a component": {"-- kustomization.yaml --\nresources: [a.yaml]\ncomponents: [c]\n-- a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n-- c/kustomization.yaml --\napiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnamePrefix: c-\n", "", AsWritten, plain("c-a")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := render(t, tree(t, c.tree), c.dir, c.order)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if again := render(t, tree(t, c.tree), c.dir, c.order); again != got {
				t.Error("the same tree rendered differently")
			}
		})
	}
}

const cm = "-- a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

func TestRefuses(t *testing.T) {
	t.Parallel()
	remote := func(field, value string) string {
		return cm + "-- kustomization.yaml --\n" + fmt.Sprintf(field, value) + "\n"
	}
	cases := map[string]struct {
		tree string
		says []string
	}{
		"a missing resource":                       {cm + "-- kustomization.yaml --\nresources: [a.yaml, b.yaml]\n", []string{"kustomization.yaml", "resources[1]", "b.yaml"}},
		"a missing file of a generator":            {cm + "-- x/kustomization.yaml --\nsecretGenerator: [{name: s, files: [k=missing]}]\n-- kustomization.yaml --\nresources: [x]\n", []string{"x/kustomization.yaml", "secretGenerator[0].files[0]", "missing"}},
		"a missing env file":                       {cm + "-- kustomization.yaml --\nconfigMapGenerator: [{name: s, env: missing}]\n", []string{"kustomization.yaml", "configMapGenerator[0].env", "missing"}},
		"a resource outside of it":                 {cm + "-- x/kustomization.yaml --\nresources: [../../a.yaml]\n-- kustomization.yaml --\nresources: [x]\n", []string{"x/kustomization.yaml", "resources[0]", "outside the repository"}},
		"a generator file outside of it":           {cm + "-- kustomization.yaml --\nsecretGenerator: [{name: s, files: [k=../../etc/passwd]}]\n", []string{"secretGenerator[0].files[0]", "outside the repository"}},
		"an absolute path":                         {cm + "-- kustomization.yaml --\nresources: [/etc/passwd]\n", []string{"resources[0]", "/etc/passwd"}},
		"helmCharts":                               {cm + "-- kustomization.yaml --\nhelmCharts: [{name: x, repo: https://x}]\n", []string{"kustomization.yaml", "helmCharts"}},
		"helmChartInflationGenerator":              {cm + "-- kustomization.yaml --\nhelmChartInflationGenerator: [{chartName: x}]\n", []string{"kustomization.yaml", "helmCharts"}},
		"helm by a generator":                      {cm + "-- kustomization.yaml --\nresources: [a.yaml]\ngenerators: [g.yaml]\n-- g.yaml --\napiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: x}\nname: x\n", []string{"g.yaml", "HelmChartInflationGenerator"}},
		"openapi":                                  {cm + "-- kustomization.yaml --\nresources: [a.yaml]\nopenapi: {path: a.yaml}\n", []string{"kustomization.yaml", "openapi"}},
		"openapi in a base":                        {cm + "-- kustomization.yaml --\nresources: [b]\n-- b/kustomization.yaml --\nresources: [c]\n-- b/c/kustomization.yaml --\nopenapi: {path: ../../a.yaml}\n", []string{"b/c/kustomization.yaml", "openapi"}},
		"openapi in a component":                   {cm + "-- kustomization.yaml --\nresources: [a.yaml]\ncomponents: [c]\n-- c/kustomization.yaml --\napiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nopenapi: {version: v1.20.4}\n", []string{"c/kustomization.yaml", "openapi"}},
		"openapi below a plain folder":             {cm + "-- b/kustomization.yaml --\nopenapi: {path: x}\n", []string{"b/kustomization.yaml", "openapi"}},
		"an unknown field":                         {cm + "-- kustomization.yaml --\nresource: [a.yaml]\n", []string{"kustomization.yaml", `"resource"`}},
		"a broken kustomization":                   {cm + "-- kustomization.yaml --\nresources: [a.yaml\n", []string{"kustomization.yaml", "line"}},
		"an exec function":                         {cm + "-- kustomization.yaml --\nresources: [a.yaml]\ntransformers: [f.yaml]\n-- f.yaml --\napiVersion: v1\nkind: Evil\nmetadata: {name: x, annotations: {config.kubernetes.io/function: 'exec: {path: /bin/true}'}}\n", []string{"f.yaml", "Evil", "not run"}},
		"an inline exec function":                  {cm + "-- kustomization.yaml --\nresources: [a.yaml]\nvalidators:\n- |-\n  apiVersion: v1\n  kind: Evil\n  metadata: {name: x, annotations: {config.kubernetes.io/function: 'container: {image: x}'}}\n", []string{"kustomization.yaml", "validators[0]", "Evil"}},
		"a folder of transformers":                 {cm + "-- kustomization.yaml --\nresources: [a.yaml]\ntransformers: [t]\n-- t/kustomization.yaml --\nresources: [../a.yaml]\n", []string{"transformers[0]", "folder"}},
		"bad YAML in a resource":                   {"-- a.yaml --\na: [\n-- kustomization.yaml --\nresources: [a.yaml]\n", []string{"a.yaml"}},
		"a value of a Secret cut by a transformer": {cm + "-- kustomization.yaml --\nresources: [a.yaml]\ntransformers: [r.yaml]\n-- r.yaml --\napiVersion: builtin\nkind: ReplacementTransformer\nmetadata: {name: x}\nreplacements: [{source: {kind: Secret, fieldPath: 'data.k', options: {delimiter: x}}, targets: []}]\n", []string{"delimiter"}},
		"plain: broken YAML":                       {"-- d/a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\nkind: [\n---\n", []string{"d/a.yaml", "document 2", "line 4"}},
		"plain: a key twice":                       {"-- a.yaml --\n\n---\napiVersion: v1\nkind: ConfigMap\nkind: Secret\nmetadata: {name: a}\n", []string{"a.yaml", "document 1", "line 5", "kind"}},
		"plain: no object":                         {"-- a.yaml --\nfoo: bar\n", []string{"a.yaml", "not a Kubernetes object"}},
		"plain: a list":                            {"-- a.yaml --\n- a\n", []string{"a.yaml", "not a Kubernetes object"}},
		"plain: content after the marker":          {"-- a.yaml --\n--- {foo: bar}\n", []string{"a.yaml", "not a Kubernetes object"}},
		"plain: content after a document end":      {cm + "...\nfoo: bar\n", []string{"a.yaml", "document 2", "not a Kubernetes object"}},
		"plain: a name that YAML reads as true":    {"-- a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\n", []string{"a.yaml", "metadata.name is a bool, not a text; quote it"}},
		"plain: generateName":                      {"-- a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a}\n", []string{"a.yaml", "generateName"}},
		"plain: no name in a List":                 {"-- a.yaml --\napiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: ConfigMap}]\n", []string{"a.yaml", "items[0]", "metadata.name"}},
		"plain: one object in two files":           {cm + "-- b/c.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", []string{"ConfigMap a", "a.yaml", "b/c.yaml"}},
		"plain: one object twice in a file":        {cm + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", []string{"ConfigMap a", "twice in a.yaml"}},
		"plain: lists without end":                 {"-- a.yaml --\n" + strings.Repeat(`{"apiVersion":"v1","kind":"List","items":[`, 100) + strings.Repeat("]}", 100) + "\n", []string{"a.yaml", "lists within"}},
		"kustomizations without end":               {cm + "-- kustomization.yaml --\nresources: [a.yaml, x]\n-- x/kustomization.yaml --\nresources: [../]\n", []string{"kustomize build of ."}},
	}
	for where, field := range map[string]string{
		"resources[0]": "resources: ['%s']", "bases[0]": "bases: ['%s']", "components[0]": "components: ['%s']",
		"configMapGenerator[0].files[0]": "configMapGenerator: [{name: x, files: ['k=%s']}]", "patches[0].path": "patches: [{path: '%s'}]",
	} {
		for _, url := range []string{"http://127.0.0.1:1/x", "https://127.0.0.1:1/x", "HTTPS://127.0.0.1:1/x", "git@127.0.0.1:org/repo", "ssh://git@127.0.0.1/org/repo", "git::https://127.0.0.1:1/x", "file:///etc/passwd", "127.0.0.1/x?ref", "github.com/org/repo", "GitHub.com/org/repo", "github.com:org/repo", "user@folder/org/repo", "127.0.0.1/org/repo.git"} {
			cases["remote: "+url+" in "+where] = struct {
				tree string
				says []string
			}{remote(field, url), []string{"kustomization.yaml", where, url, "remote address"}}
		}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects, err := Run(t.Context(), tree(t, c.tree), "", AsWritten)
			if err == nil || objects != nil {
				t.Fatalf("got %d objects and no error", len(objects))
			}
			for _, s := range c.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("does not say %q: %v", s, err)
				}
			}
		})
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	files := tree(t, cm+"-- empty/README.md --\n-- comments/x.yaml --\n# nothing\n---\n")
	for _, dir := range []string{"empty", "comments"} {
		if _, err := Run(t.Context(), files, dir, AsWritten); !errors.Is(err, ErrNoObjects) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: got %v, want ErrNoObjects", dir, err)
		}
	}
	for _, dir := range []string{"missing", "a.yaml", "../x", "..", "x/../../y"} {
		var pathErr *PathError
		if _, err := Run(t.Context(), files, dir, AsWritten); !errors.As(err, &pathErr) {
			t.Errorf("%s: got %v, want *PathError", dir, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, files := range map[string]fs.FS{"plain": files, "kustomize": tree(t, cm+"-- kustomization.yaml --\nresources: [a.yaml]\n")} {
		if _, err := Run(ctx, files, "", AsWritten); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want the context's error", name, err)
		}
	}
	large := fstest.MapFS{"a.yaml": {Data: make([]byte, MaxFileBytes+1)}}
	if _, err := Run(t.Context(), large, "", AsWritten); err == nil || !strings.Contains(err.Error(), "a.yaml is larger than 10 MiB") {
		t.Errorf("got %v", err)
	}
}

// Not parallel: it puts a git of its own into PATH.
func TestNeitherNetworkNorGitIsUsed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connections atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_ = c.Close()
		}
	}()
	bin, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\necho \"$@\" >> '"+ran+"'\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	http := "http://" + l.Addr().String() + "/x"
	git := "git::" + http
	builtin := func(kind, rest string) string {
		return "|-\n  apiVersion: builtin\n  kind: " + kind + "\n  metadata: {name: x}\n  " + rest
	}
	for _, field := range []string{
		"resources: ['%s']", "bases: ['%s']", "components: ['%s']", "crds: ['%s']", "configurations: ['%s']", "openapi: {path: '%s'}",
		"generators: ['%s']", "transformers: ['%s']", "validators: ['%s']",
		"generators: ['%s?{']", "generators: ['%s?a: b']", "patchesStrategicMerge: ['%s?{']", "patchesStrategicMerge: ['%s?a: b']", "transformers: [\"%s?a: b\\n\"]",
		"patches: [{path: '%s'}]", "patchesStrategicMerge: ['%s']", "patchesJson6902: [{target: {version: v1, kind: ConfigMap, name: a}, path: '%s'}]", "replacements: [{path: '%s'}]",
		"configMapGenerator: [{name: x, files: ['%s']}]", "configMapGenerator: [{name: x, files: ['k=%s']}]", "configMapGenerator: [{name: x, envs: ['%s']}]", "configMapGenerator: [{name: x, env: '%s'}]",
		"secretGenerator: [{name: x, files: ['%s']}]", "secretGenerator: [{name: x, envs: ['%s']}]", "secretGenerator: [{name: x, env: '%s'}]",
		"helmCharts: [{name: x, repo: '%s'}]",
		"generators:\n- " + builtin("ConfigMapGenerator", "files: ['k=%s']"), "generators:\n- " + builtin("SecretGenerator", "envs: ['%s']"), "generators:\n- " + builtin("ConfigMapGenerator", "FILES: ['%s']"), "generators:\n- " + builtin("SecretGenerator", "env: '%s'"),
		"transformers:\n- " + builtin("PatchTransformer", "path: '%s'"), "transformers:\n- " + builtin("PatchJson6902Transformer", "target: {kind: ConfigMap, name: a}\n  path: '%s'"), "transformers:\n- " + builtin("PatchStrategicMergeTransformer", "paths: ['%s']"), "transformers:\n- " + builtin("PatchStrategicMergeTransformer", "paths: ['%s?a: b']"),
		"transformers:\n- " + builtin("ReplacementTransformer", "replacements: [{path: '%s'}]"), "transformers:\n- " + builtin("ValueAddTransformer", "targetFilePath: '%s'\n  value: x"),
		"generators: [g.yaml]\n-- g.yaml --\napiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: x}\nfiles: ['%s']",
		"generators: [g]\n-- g/kustomization.yaml --\nresources: ['%s']",
	} {
		for _, url := range []string{http, git} {
			text := cm + "-- kustomization.yaml --\n"
			if !strings.HasPrefix(field, "resources:") {
				text += "resources: [a.yaml]\n"
			}
			objects, err := Run(t.Context(), tree(t, text+strings.ReplaceAll(field, "%s", url)+"\n"), "", AsWritten)
			if err == nil {
				t.Errorf("%s: rendered %d objects", field, len(objects))
			}
			if n := connections.Swap(0); n > 0 {
				t.Errorf("%s: %d connections", field, n)
			}
			if b, err := os.ReadFile(ran); err == nil {
				t.Errorf("%s: ran git %s", field, b)
				_ = os.Remove(ran)
			}
		}
	}
	// Folders whose name kustomize takes for an address are not read either.
	for _, dir := range []string{"user@host/org/repo", "GitHub.com/org/repo", "github.com/org/repo", "x.git/repo", "http:/host/x"} {
		files := tree(t, "-- kustomization.yaml --\nresources: ['"+dir+"']\n-- "+dir+"/kustomization.yaml --\nresources: [a.yaml]\n-- "+dir+"/a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")
		_, err := Run(t.Context(), files, "", AsWritten)
		if b, readErr := os.ReadFile(ran); err == nil || readErr == nil {
			t.Errorf("%s: err %v, ran git %s", dir, err, b)
			_ = os.Remove(ran)
		}
	}
}

func TestAHostileTreeDoesNotChangeAnInnocentOne(t *testing.T) {
	t.Parallel()
	innocent := tree(t, overlay)
	want := render(t, innocent, "prod", AsWritten)
	schema := `{"definitions": {"io.k8s.api.apps.v1.Deployment": {"properties": {"spec": {"type": "object", "x-kubernetes-patch-strategy": "replace"}}, "x-kubernetes-group-version-kind": [{"group": "apps", "kind": "Deployment", "version": "v1"}]}}}`
	hostile := []fstest.MapFS{

		tree(t, cm+"-- kustomization.yaml --\nresources: [a.yaml]\nopenapi: {path: s.json}\n-- s.json --\n"+schema+"\n"),
		tree(t, cm+"-- kustomization.yaml --\nresources: [a.yaml]\nopenapi: {version: v1.20.4}\n"),
		tree(t, cm+"-- kustomization.yaml --\nresources: [a.yaml]\ncrds: [s.json]\n-- s.json --\n"+schema+"\n"),
		tree(t, cm+"-- kustomization.yaml --\nresources: [a.yaml]\nconfigurations: [c.yaml]\n-- c.yaml --\nnamePrefix: [{path: metadata/name, kind: Deployment}]\nnameReference: []\n"),
		tree(t, cm+"-- kustomization.yaml --\nresources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, patch: '[{\"op\": \"remove\", \"path\": \"\"}]'}]\n"),
		tree(t, "-- kustomization.yaml --\nresources: [a.yaml]\n-- a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: []\n"),
		tree(t, "-- kustomization.yaml --\nresources: [a.yaml]\nnamePrefix: x-\n-- a.yaml --\napiVersion: {}\nkind: []\nmetadata: {name: a}\n"),
	}
	build := func() {
		for _, h := range hostile {
			_, _ = Run(t.Context(), h, "", AsWritten) // whether it fails does not matter
		}
	}
	build()
	if got := render(t, innocent, "prod", AsWritten); got != want {
		t.Errorf("after a hostile build (-want +got):\n%s", cmp.Diff(want, got))
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 10 {
				build()
			}
		})
	}
	for range 20 {
		if got := render(t, innocent, "prod", AsWritten); got != want {
			t.Errorf("beside a hostile build (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
	wg.Wait()
}
