package deploy_test

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/deploy"
)

// ids of objects, as KIND NAMESPACE/NAME.
func ids(objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	out := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		out[strings.TrimSpace(o.GetKind()+" "+o.GetNamespace())+"/"+o.GetName()] = o
	}
	return out
}

func deploymentIn(t *testing.T, objects []*unstructured.Unstructured) appsv1.Deployment {
	t.Helper()
	for _, o := range objects {
		if o.GetKind() == "Deployment" {
			var d appsv1.Deployment
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
				t.Fatal(err)
			}
			return d
		}
	}
	t.Fatal("there is no Deployment")
	return appsv1.Deployment{}
}

// TestInstallYAMLIsWhatIsRendered fails where `make generate` was forgotten.
func TestInstallYAMLIsWhatIsRendered(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := deploy.Render(t.Context(), deploy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := deploy.YAML(objects)
	if err != nil {
		t.Fatal(err)
	}
	if _, got, _ := bytes.Cut(b, []byte("\n")); !bytes.Equal(got, want) {
		t.Errorf("run make generate (-install.yaml +rendered):\n%s", cmp.Diff(string(got), string(want)))
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	own := func(ns string) []string {
		return []string{"Namespace/" + ns, "CustomResourceDefinition/syncs.gitseal.io", "CustomResourceDefinition/reseals.gitseal.io", "ServiceAccount " + ns + "/gitseal-agent", "Role " + ns + "/gitseal-agent", "RoleBinding " + ns + "/gitseal-agent",
			"Role " + ns + "/gitseal-keys-reader", "RoleBinding " + ns + "/gitseal-keys-reader", "Role " + ns + "/gitseal-resealer", "Deployment " + ns + "/gitseal-agent", "Service " + ns + "/gitseal-agent", "Service " + ns + "/gitseal-kubeseal", "NetworkPolicy " + ns + "/gitseal-agent"}
	}
	watch := func(ns string) []string {
		return []string{"Role " + ns + "/gitseal-agent-watch", "RoleBinding " + ns + "/gitseal-agent-watch"}
	}
	cluster := []string{"ClusterRole/gitseal-agent", "ClusterRoleBinding/gitseal-agent", "ClusterRole/gitseal-syncs-edit", "ClusterRole/gitseal-syncs-view"}
	digest := "@sha256:" + strings.Repeat("a", 64)
	for name, c := range map[string]struct {
		options  deploy.Options
		want     [][]string
		image    string
		replicas int32
		args     []string
	}{
		"as it is written": {deploy.Options{}, [][]string{own("gitseal-system"), cluster}, "ghcr.io/gitseal/agent:v0.1.0", 1, []string{"--namespace=$(POD_NAMESPACE)"}},
		"with everything": {
			deploy.Options{Namespace: "seals", Image: "registry.local:5000/x/agent:v9" + digest, Replicas: 2, Components: deploy.Components()},
			[][]string{own("seals"), cluster, {"ServiceAccount seals/gitseal-applier", "ClusterRoleBinding/gitseal-applier", "PodDisruptionBudget seals/gitseal-agent", "ServiceMonitor seals/gitseal-agent", "PrometheusRule seals/gitseal-agent"}},
			"registry.local:5000/x/agent:v9" + digest, 2, []string{"--namespace=$(POD_NAMESPACE)"},
		},
		"highly available": {
			deploy.Options{Image: "agent" + digest, Components: []string{"ha"}}, [][]string{own("gitseal-system"), cluster, {"PodDisruptionBudget gitseal-system/gitseal-agent"}},
			"agent" + digest, 3, []string{"--namespace=$(POD_NAMESPACE)"},
		},
		"in some namespaces, one of them its own": {
			deploy.Options{Namespace: "seals", WatchNamespaces: []string{"b", "a", "seals", "a"}}, [][]string{own("seals"), watch("seals"), watch("a"), watch("b")},
			"ghcr.io/gitseal/agent:v0.1.0", 1, []string{"--namespace=$(POD_NAMESPACE)", "--watch-namespaces=$(POD_NAMESPACE),a,b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects, err := deploy.Render(t.Context(), c.options)
			if err != nil {
				t.Fatal(err)
			}
			all := ids(objects)
			got := slices.Sorted(maps.Keys(all))
			want := slices.Sorted(slices.Values(slices.Concat(c.want...)))
			if d := cmp.Diff(got, want); d != "" {
				t.Errorf("objects (-got +want):\n%s", d)
			}
			if objects[0].GetKind() != "Namespace" || objects[1].GetKind() != "CustomResourceDefinition" {
				t.Errorf("first come %s and %s", objects[0].GetKind(), objects[1].GetKind())
			}
			d := deploymentIn(t, objects)
			if got := d.Spec.Template.Spec.Containers[0]; got.Image != c.image || *d.Spec.Replicas != c.replicas || !slices.Equal(got.Args, c.args) {
				t.Errorf("image %s, %d replicas, args %q", got.Image, *d.Spec.Replicas, got.Args)
			}
			ns := c.want[0][0][len("Namespace/"):]
			for id, o := range all {
				subjects, _, _ := unstructured.NestedSlice(o.Object, "subjects")
				for _, s := range subjects {
					if s := s.(map[string]any); s["kind"] == "ServiceAccount" && s["namespace"] != ns {
						t.Errorf("%s binds %v", id, s)
					}
				}
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options deploy.Options
		want    string
	}{
		"a bad namespace":         {deploy.Options{Namespace: "a,b"}, `"a,b" is not the name of a namespace`},
		"a bad watched namespace": {deploy.Options{WatchNamespaces: []string{"a", "*"}}, `"*" is not the name of a namespace`},
		"an unknown component":    {deploy.Options{Components: []string{"HA"}}, `component "HA" is none of cluster-admin, ha, monitoring`},
		"an image without a tag":  {deploy.Options{Image: "agent"}, `image "agent" has neither tag nor digest`},
		"no image":                {deploy.Options{Image: "a b:c"}, `"a b:c" is not an image`},
		"less than no replicas":   {deploy.Options{Replicas: -1}, "-1 replicas"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			objects, err := deploy.Render(t.Context(), c.options)
			if err == nil || err.Error() != c.want || objects != nil {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestTheOverlayOfTheDocument renders the example of docs/install.md for a further
// namespace, which comes to the same as the option.
func TestTheOverlayOfTheDocument(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/install.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)\n# team-a/kustomization.yaml\n(.+?)\n---\n# kustomization.yaml\n(.+?)```").FindSubmatch(doc)
	if m == nil {
		t.Fatal("the document has no such example")
	}
	tree := fstest.MapFS{"team-a/kustomization.yaml": {Data: m[1]}, "kustomization.yaml": {Data: m[2]}}
	for _, dir := range []string{"base", "namespaced"} {
		if err := fs.WalkDir(os.DirFS("."), dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			tree["gitseal/deploy/"+path] = &fstest.MapFile{Data: b}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := build.Run(t.Context(), tree, ".", build.AsWritten)
	if err != nil {
		t.Fatal(err)
	}
	want, err := deploy.Render(t.Context(), deploy.Options{WatchNamespaces: []string{"team-a"}})
	if err != nil {
		t.Fatal(err)
	}
	// Where the name of the agent's namespace is written out, it may be.
	for _, o := range want {
		if o.GetKind() == "Deployment" {
			b, err := yaml.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			b = bytes.ReplaceAll(b, []byte("namespaces=$(POD_NAMESPACE)"), []byte("namespaces=gitseal-system"))
			if err := yaml.Unmarshal(b, &o.Object); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, b := ids(got), ids(want)
	for id := range b {
		if a[id] == nil {
			t.Errorf("the example lacks %s", id)
		} else if d := cmp.Diff(normal(t, a[id]), normal(t, b[id])); d != "" {
			t.Errorf("%s (-example +option):\n%s", id, d)
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d objects, want %d", len(a), len(b))
	}
}
