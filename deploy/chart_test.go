package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/google/go-cmp/cmp"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/deploy"
	"github.com/gitseal/gitseal/test/harness"
)

// helm runs the real one.
func helm(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Oracle(t, "helm"), args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func chart(t *testing.T, namespace string, args ...string) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for doc := range strings.SplitSeq(helm(t, append([]string{"template", "gitseal", "chart", "-n", namespace, "--include-crds"}, args...)...), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			t.Fatal(err)
		}
		if o.Object != nil {
			out = append(out, o)
		}
	}
	return out
}

// normal is an object with numbers as JSON has them.
func normal(t *testing.T, o *unstructured.Unstructured) map[string]any {
	t.Helper()
	b, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTheChartIsTheSameAsTheManifests compares object by object. A chart has no
// Namespace; Helm makes it.
func TestTheChartIsTheSameAsTheManifests(t *testing.T) {
	t.Parallel()
	digest := "sha256:" + strings.Repeat("b", 64)
	for name, c := range map[string]struct {
		options deploy.Options
		args    []string
		but     string // an object that the chart leaves out
	}{
		"the whole cluster":     {},
		"elsewhere":             {options: deploy.Options{Namespace: "seals"}},
		"some namespaces":       {options: deploy.Options{Namespace: "seals", WatchNamespaces: []string{"b", "a", "seals"}}, args: []string{"--set", "watchNamespaces={b,a,seals}"}},
		"its own only":          {options: deploy.Options{WatchNamespaces: []string{"gitseal-system"}}, args: []string{"--set", "watchNamespaces={gitseal-system}"}},
		"highly available":      {options: deploy.Options{Components: []string{"ha"}}, args: []string{"--set", "replicas=3"}},
		"with everything":       {options: deploy.Options{Components: deploy.Components(), Replicas: 2}, args: []string{"--set", "replicas=2,monitoring.enabled=true,clusterAdmin.enabled=true"}},
		"another image":         {options: deploy.Options{Image: "registry.local:5000/agent:v9"}, args: []string{"--set", "image.repository=registry.local:5000/agent,image.tag=v9"}},
		"an image by digest":    {options: deploy.Options{Image: "r/agent@" + digest}, args: []string{"--set", "image.repository=r/agent,image.digest=" + digest}},
		"without networkPolicy": {args: []string{"--set", "networkPolicy.enabled=false"}, but: "NetworkPolicy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := c.options.Namespace
			if namespace == "" {
				namespace = deploy.Namespace
			}
			objects, err := deploy.Render(t.Context(), c.options)
			if err != nil {
				t.Fatal(err)
			}
			got, want := ids(chart(t, namespace, c.args...)), ids(objects)
			for id, o := range want {
				if kind := o.GetKind(); kind == "Namespace" || kind == c.but {
					if got[id] != nil {
						t.Errorf("the chart has %s", id)
					}
					continue
				}
				if got[id] == nil {
					t.Errorf("the chart lacks %s", id)
				} else if d := cmp.Diff(normal(t, got[id]), normal(t, o)); d != "" {
					t.Errorf("%s (-chart +manifests):\n%s", id, d)
				}
			}
			for id := range got {
				if want[id] == nil {
					t.Errorf("the manifests lack %s", id)
				}
			}
		})
	}
}

// TestTheChartsOtherValues are those that kustomize has patches for.
func TestTheChartsOtherValues(t *testing.T) {
	t.Parallel()
	helm(t, "lint", "--strict", "chart")
	d := deploymentIn(t, chart(t, "seals", "--set-json", `nodeSelector={"disk":"ssd"}`, "--set-json", `tolerations=[{"key":"infra","operator":"Exists"}]`,
		"--set", "priorityClassName=system-cluster-critical,watchSelector=shard in (a\\,b),extraArgs={--concurrent=8,--log-format=json},resources.limits.memory=1Gi,imagePullSecrets[0].name=pull"))
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	if want := []string{"--namespace=$(POD_NAMESPACE)", "--watch-label-selector=shard in (a,b)", "--concurrent=8", "--log-format=json"}; !reflect.DeepEqual(c.Args, want) {
		t.Errorf("args: got %q, want %q", c.Args, want)
	}
	if pod.NodeSelector["disk"] != "ssd" || len(pod.Tolerations) != 1 || pod.Tolerations[0].Key != "infra" || pod.PriorityClassName != "system-cluster-critical" ||
		len(pod.ImagePullSecrets) != 1 || pod.ImagePullSecrets[0].Name != "pull" || c.Resources.Limits.Memory().String() != "1Gi" || c.Resources.Requests.Memory().String() != "64Mi" {
		t.Errorf("got %+v", pod)
	}
}

// TestHelmInstallsUpgradesAndUninstalls on a real API server: the agent works, and what
// nobody can make again stays.
func TestHelmInstallsUpgradesAndUninstalls(t *testing.T) {
	t.Parallel()
	w := &world{t: t, cp: harness.Shared(t)}
	w.connect()
	w.system = w.cp.Namespace(t, "helm")
	run := func(args ...string) {
		helm(t, append(args, "--kubeconfig", w.cp.Kubeconfig, "-n", w.system)...)
	}
	values := "watchNamespaces={" + w.system + "}"
	run("install", "gitseal", "chart", "--set", values)
	stop := w.start()
	w.public()
	stop()
	run("upgrade", "gitseal", "chart", "--set", values+",replicas=2")
	if d, err := w.client.AppsV1().Deployments(w.system).Get(t.Context(), "gitseal-agent", metav1.GetOptions{}); err != nil || *d.Spec.Replicas != 2 {
		t.Errorf("%v, %v", d.Spec.Replicas, err)
	}
	run("uninstall", "gitseal", "--wait")
	if _, err := w.client.AppsV1().Deployments(w.system).Get(t.Context(), "gitseal-agent", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the Deployment: %v", err)
	}
	if _, err := w.client.CoreV1().Secrets(w.system).Get(t.Context(), "gitseal-key-1", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if err := w.admin.List(t.Context(), &v1alpha1.SyncList{}); err != nil {
		t.Errorf("the CRD: %v", err)
	}
}
