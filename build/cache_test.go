package build

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func rendered(objects []*unstructured.Unstructured) string {
	var out strings.Builder
	for _, u := range objects {
		b, err := yaml.Marshal(u.Object)
		if err != nil {
			panic(err)
		}
		out.Write(b)
		out.WriteString("---\n")
	}
	return out.String()
}

// same fails the test unless a cached build and one of the whole agree.
func same(t *testing.T, c *Cache, tree fstest.MapFS) (text string, failed bool) {
	t.Helper()
	whole, wholeErr := Run(t.Context(), tree, ".", AsWritten)
	got, err := c.Run(t.Context(), tree, ".")
	if (err == nil) != (wholeErr == nil) {
		t.Fatalf("%s\nin parts: %v\nas a whole: %v", show(tree), err, wholeErr)
	}
	if a, b := rendered(got), rendered(whole); a != b {
		t.Fatalf("%s\nin parts:\n%s\nas a whole:\n%s", show(tree), a, b)
	}
	return rendered(got), err != nil
}

func show(tree fstest.MapFS) string {
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		fmt.Fprintf(&out, "-- %s --\n%s", name, tree[name].Data)
	}
	return out.String()
}

// maker makes trees in which folders can reach into one another.
type maker struct {
	*rand.Rand
	tree  fstest.MapFS
	names int
}

func (m maker) pick(choices ...string) string { return choices[m.IntN(len(choices))] }

func (m maker) chance(percent int) bool { return m.IntN(100) < percent }

// name is a new one, with few exceptions.
func (m *maker) name() string {
	if m.chance(97) {
		m.names++
	}
	return fmt.Sprintf("n%d", m.names)
}

// manifest is one object that may name others.
func (m *maker) manifest() string {
	name, other, ns := m.name(), m.pick("", "", "", "", "pre-")+fmt.Sprintf("n%d", 1+m.IntN(m.names+2))+m.pick("", "", "", "", "-suf"), ""
	if m.chance(60) {
		ns = ", namespace: " + m.pick("one", "two", "default")
	}
	meta := "metadata: {name: " + name + ns + "}\n"
	switch m.IntN(11) {
	case 0, 9, 10:
		return "apiVersion: v1\nkind: ConfigMap\n" + meta + "data: {k: " + other + "}\n"
	case 1:
		return "apiVersion: v1\nkind: ServiceAccount\n" + meta
	case 2:
		return "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: " + name + "}\nroleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: " + other + "}\nsubjects: [{kind: ServiceAccount, name: " + other + ", namespace: " + m.pick("one", "two", "default") + "}]\n"
	case 3:
		return "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: " + name + "}\n"
	case 4:
		return "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n" + meta + "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: " + other + "}\nsubjects: [{kind: ServiceAccount, name: " + other + "}]\n"
	case 5:
		return "apiVersion: v1\nkind: Service\n" + meta
	case 6:
		return "apiVersion: networking.k8s.io/v1\nkind: Ingress\n" + meta + "spec: {defaultBackend: {service: {name: " + other + ", port: {number: 80}}}}\n"
	default:
		return "apiVersion: apps/v1\nkind: Deployment\n" + meta + "spec:\n  template:\n    spec:\n      serviceAccountName: " + other + "\n      containers: [{name: c, image: i, envFrom: [{configMapRef: {name: " + other + "}}]}]\n"
	}
}

func (m *maker) folder(dir string, depth int) {
	var list []string
	for i := range 1 + m.IntN(3) {
		if depth < 2 && m.chance(40) {
			name := fmt.Sprintf("d%d", i)
			m.folder(dir+"/"+name, depth+1)
			list = append(list, name)
			continue
		}
		name := fmt.Sprintf("f%d.yaml", i)
		m.tree[dir+"/"+name] = &fstest.MapFile{Data: []byte(m.manifest())}
		list = append(list, name)
	}
	k := "resources: [" + strings.Join(list, ", ") + "]\n"
	for _, extra := range []string{
		"namespace: " + m.pick("one", "two") + "\n", "namePrefix: pre-\n", "nameSuffix: -suf\n", "commonLabels: {x: y}\n",
		"configMapGenerator: [{name: " + m.name() + ", literals: [k=v]}]\n",
		"secretGenerator: [{name: " + m.name() + ", literals: [k=v]}]\n",
		"buildMetadata: [originAnnotations]\n", "sortOptions: {order: legacy}\n",
		"patches:\n- target: {kind: ConfigMap}\n  patch: |\n    - {op: replace, path: /metadata/name, value: " + m.name() + "}\n",
		"patches:\n- target: {kind: ConfigMap}\n  options: {allowNameChange: true}\n  patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: " + m.name() + "}\n",
		"replacements:\n- source: {kind: ConfigMap, fieldPath: data.k}\n  targets: [{select: {kind: Service}, fieldPaths: [metadata.name]}]\n",
	} {
		if depth > 0 && m.chance(12) && !(strings.HasPrefix(extra, "patches") && strings.Contains(k, "patches")) {
			k += extra
		}
	}
	m.tree[dir+"/kustomization.yaml"] = &fstest.MapFile{Data: []byte(k)}
}

func TestABuildInPartsIsThatOfTheWhole(t *testing.T) {
	t.Parallel()
	split, failed := 0, 0
	const trees = 1500
	for seed := range uint64(trees) {
		m := &maker{Rand: rand.New(rand.NewPCG(seed, 1)), tree: fstest.MapFS{}}
		m.folder("x", 0)
		m.tree["kustomization.yaml"] = &fstest.MapFile{Data: []byte("resources: [x]\n")}
		c := NewCache()
		_, bad := same(t, c, m.tree)
		switch {
		case bad:
			failed++
		case len(c.parts) > 1:
			split++
		}
	}
	t.Logf("of %d trees %d could not be built, %d were built in parts", trees, failed, split)
	if split < trees/10 || failed > trees/2 {
		t.Errorf("of %d trees %d could not be built and %d were built in parts: this tests too little", trees, failed, split)
	}
}

const twoApps = `-- kustomization.yaml --
resources: [one, two.yaml, three]
-- two.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: two, namespace: ns}
-- one/kustomization.yaml --
resources: [a.yaml]
namespace: one
-- one/a.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
-- three/kustomization.yaml --
resources: [b.yaml]
-- three/b.yaml --
apiVersion: v1
kind: ConfigMap
metadata: {name: b, namespace: three}
`

func files(text string) fstest.MapFS {
	out := fstest.MapFS{}
	for _, section := range strings.Split(text, "-- ")[1:] {
		name, content, _ := strings.Cut(section, " --\n")
		out[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return out
}

// Each of these trees is something else when its folders are built one by one.
func TestWhatReachesIntoSiblingsIsBuiltAsAWhole(t *testing.T) {
	t.Parallel()
	object := func(kind, name, ns, rest string) string {
		versions := map[string]string{"ConfigMap": "v1", "ServiceAccount": "v1", "Deployment": "apps/v1", "PriorityClass": "scheduling.k8s.io/v1"}
		version := versions[kind]
		if version == "" {
			version = "rbac.authorization.k8s.io/v1"
		}
		if ns != "" {
			ns = ", namespace: " + ns
		}
		return "apiVersion: " + version + "\nkind: " + kind + "\nmetadata: {name: " + name + ns + "}\n" + rest
	}
	uses := func(name, ns string) string {
		return object("Deployment", "user", ns, "spec: {template: {spec: {priorityClassName: "+name+", containers: [{name: c, image: i, envFrom: [{configMapRef: {name: "+name+"}}]}]}}}\n")
	}
	binds := func(role, account string) string {
		return object("ClusterRoleBinding", "crb", "", "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "+role+"}\nsubjects: [{kind: ServiceAccount, name: "+account+", namespace: default}]\n")
	}
	for name, c := range map[string]struct{ kustomization, object, sibling string }{
		"a generated name":          {"configMapGenerator: [{name: gen, namespace: ns, literals: [k=v]}]\n", object("ConfigMap", "x", "ns", ""), uses("gen", "ns")},
		"without a namespace":       {"configMapGenerator: [{name: gen, literals: [k=v]}]\n", object("ConfigMap", "x", "ns", ""), uses("gen", "default")},
		"a prefix":                  {"namePrefix: pre-\n", object("ConfigMap", "x", "ns", ""), uses("x", "ns")},
		"a suffix":                  {"nameSuffix: -suf\n", object("ConfigMap", "x", "ns", ""), uses("x", "ns")},
		"of a role":                 {"namePrefix: pre-\n", object("ClusterRole", "x", "", ""), binds("x", "a")},
		"of a cluster-scoped kind":  {"namePrefix: pre-\n", object("PriorityClass", "x", "", ""), uses("x", "ns")},
		"a namespace":               {"namespace: one\n", object("ServiceAccount", "x", "", ""), binds("r", "x")},
		"from a namespace":          {"namespace: one\n", object("ServiceAccount", "x", "default", ""), binds("r", "x")},
		"a patch of the name":       {"patches:\n- target: {kind: ConfigMap}\n  patch: |\n    - {op: replace, path: /metadata/name, value: y}\n", object("ConfigMap", "x", "ns", ""), uses("x", "ns")},
		"a patch that may rename":   {"patches:\n- target: {kind: ConfigMap}\n  options: {allowNameChange: true}\n  patch: |\n    apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: y}\n", object("ConfigMap", "x", "ns", ""), uses("x", "ns")},
		"sorted":                    {"sortOptions: {order: legacy}\n", object("Deployment", "x", "ns", "") + "---\n" + object("ConfigMap", "x", "ns", ""), object("ConfigMap", "z", "ns", "")},
		"where it comes from":       {"buildMetadata: [originAnnotations]\n", object("ConfigMap", "x", "ns", ""), object("ConfigMap", "z", "ns", "")},
		"a variable":                {"vars: [{name: V, objref: {apiVersion: v1, kind: ConfigMap, name: x}, fieldref: {fieldpath: metadata.name}}]\n", object("ConfigMap", "x", "ns", ""), object("Deployment", "user", "ns", "spec: {template: {spec: {containers: [{name: c, image: i, args: [$(V)]}]}}}\n")},
		"a duplicate":               {"", object("ConfigMap", "x", "", ""), object("ConfigMap", "x", "default", "")},
		"a duplicate under a hash":  {"configMapGenerator: [{name: z, namespace: ns, literals: [k=v]}]\n", object("ConfigMap", "x", "ns", ""), object("ConfigMap", "z", "ns", "")},
		"a duplicate of the kind":   {"", object("ClusterRole", "x", "one", ""), object("ClusterRole", "x", "two", "")},
		"a duplicate that is local": {"", object("ConfigMap", "x", "ns", "") + "---\n" + strings.Replace(object("ConfigMap", "z", "ns", ""), "name: z", "name: z, annotations: {config.kubernetes.io/local-config: 'true'}", 1), object("ConfigMap", "z", "ns", "")},
		"a Component":               {"apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n", object("ConfigMap", "x", "ns", ""), object("ConfigMap", "z", "ns", "")},
		"a prefix on the way":       {"", object("ConfigMap", "x", "ns", ""), uses("in-x", "ns")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := fstest.MapFS{}
			add := func(name, content string) { tree[name] = &fstest.MapFile{Data: []byte(content)} }
			add("kustomization.yaml", "resources: [a, b]\n")
			add("a/kustomization.yaml", "resources: [o.yaml]\n"+c.kustomization)
			add("a/o.yaml", c.object)
			if name == "a prefix on the way" {
				add("a/kustomization.yaml", "resources: [in]\nnamePrefix: out-\n")
				add("a/in/kustomization.yaml", "resources: [o.yaml]\nnamePrefix: in-\n")
				add("a/in/o.yaml", c.object)
			}
			add("b/kustomization.yaml", "resources: [o.yaml]\n")
			add("b/o.yaml", c.sibling)
			cache := NewCache()
			whole, _ := same(t, cache, tree)
			parts, err := cache.buildAll(t.Context(), tree, []part{{dir: "a"}, {dir: "b"}}, nil)
			if err == nil && rendered(parts[0].objects)+rendered(parts[1].objects) == whole {
				t.Errorf("built one by one it is the same: this row tests nothing\n%s", whole)
			}
		})
	}
}

// What is one part of a tree is built anew only when something of it changes.
func TestOnlyWhatChangedIsBuiltAgain(t *testing.T) {
	t.Parallel()
	c := NewCache()
	tree := files(twoApps)
	step := func(what string, builds int) {
		t.Helper()
		before := c.Made()
		same(t, c, tree)
		if n := c.Made() - before; n != builds {
			t.Errorf("%s: %d parts were built, want %d", what, n, builds)
		}
	}
	step("the first time", 3)
	step("nothing changed", 0)
	tree["README.md"] = &fstest.MapFile{Data: []byte("text")}
	step("a file that nothing reads", 0)
	tree["one/a.yaml"].Data = []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a2}\n")
	step("one file", 1)
	tree["one/kustomization.yaml"].Data = []byte("resources: [a.yaml, c.yaml]\nnamespace: one\n")
	tree["one/c.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")}
	step("a file more", 1)
	delete(tree, "three/b.yaml")
	if _, failed := same(t, c, tree); !failed {
		t.Error("a file is missing, and nobody says so")
	}
	tree["three/b.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: three}\n")}
	same(t, c, tree)
	good, bad := tree["one/a.yaml"].Data, []byte("apiVersion: [\n")
	tree["one/a.yaml"].Data = bad
	if _, failed := same(t, c, tree); !failed {
		t.Error("the first part is broken, and nobody says so")
	}
	tree["one/a.yaml"].Data = good
	step("a part that was broken", 1)
	tree["four/kustomization.yaml"] = &fstest.MapFile{Data: []byte("resources: [d.yaml]\n")}
	tree["four/d.yaml"] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d, namespace: four}\n")}
	tree["kustomization.yaml"].Data = []byte("resources: [one, two.yaml, four, three]\n")
	step("a folder more", 1)
	tree["one/kustomization.yml"] = &fstest.MapFile{Data: []byte("resources: [a.yaml]\n")}
	if _, failed := same(t, c, tree); !failed {
		t.Error("two kustomizations in one folder, and nobody says so")
	}
}

func TestTheBuildOfPartsKeepsNoTree(t *testing.T) {
	t.Parallel()
	c := NewCache()
	same(t, c, files(twoApps))
	for key, b := range c.parts {
		if b.read.FS != nil {
			t.Errorf("part %q holds the tree it was read from", key)
		}
	}
}

func TestEveryExampleBuiltInPartsIsThatOfTheWhole(t *testing.T) {
	t.Parallel()
	examples, err := os.ReadDir("../examples")
	if err != nil || len(examples) == 0 {
		t.Fatalf("%d examples, %v", len(examples), err)
	}
	for _, e := range examples {
		tree := fstest.MapFS{}
		root := os.DirFS("../examples/" + e.Name())
		err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := fs.ReadFile(root, name)
			tree[name] = &fstest.MapFile{Data: content}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"apps/db.yaml", "apps/api.yaml"} { // whoever tries the example seals them
			tree[name] = &fstest.MapFile{Data: []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: " + strings.TrimSuffix(path.Base(name), ".yaml") + "}\n")}
		}
		tree["apps/app.env"] = &fstest.MapFile{Data: []byte("KEY=value\n")}
		for name := range tree {
			if dir := path.Dir(name); path.Base(name) == "kustomization.yaml" {
				below := fstest.MapFS{}
				for file, content := range tree {
					if rest, ok := strings.CutPrefix(file, dir+"/"); ok {
						below[rest] = content
					}
				}
				if text, failed := same(t, NewCache(), below); failed || text == "" {
					t.Errorf("%s/%s can not be built: %s", e.Name(), dir, text)
				}
			}
		}
	}
}
