package e2e

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"

	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/test/harness"
)

const homeCluster = "clusters/home/cluster"

// homelab is somebody's repository, from testdata/homelab: what is in the clear
// there is sealed by stock sops with the repository's own rules.
type homelab struct {
	*env
	stock  *stock
	canary string
	// sealed are the files that sops sealed.
	sealed []string
}

// newHomelab fills the repository, and makes the Secret sops-age as people have
// it for Flux.
func newHomelab(e *env) *homelab {
	e.t.Helper()
	h := &homelab{env: e, canary: strings.TrimSuffix(canary(e.t), "?"), stock: &stock{e: e, sops: harness.Oracle(e.t, "sops"), identities: filepath.Join(e.home, "home.agekey")}}
	b64 := base64.StdEncoding.EncodeToString
	replace := []string{"fake-value", h.canary, b64([]byte("fake-value")), b64([]byte(h.canary))}
	for _, name := range []string{"HOME", "ADMIN", "OFFICE"} {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			e.t.Fatal(err)
		}
		replace = append(replace, name+"_RECIPIENT", id.Recipient().String())
		if name != "HOME" {
			continue
		}
		file := []byte("# created: 2026-01-01T00:00:00Z\n# public key: " + id.Recipient().String() + "\n" + id.String() + "\n")
		if err := os.WriteFile(h.stock.identities, file, 0o600); err != nil {
			e.t.Fatal(err)
		}
		if _, err := e.client.CoreV1().Secrets(e.system).Create(e.t.Context(), secretObject("sops-age", map[string][]byte{"age.agekey": file}), metav1.CreateOptions{}); err != nil {
			e.t.Fatal(err)
		}
	}
	replacer := strings.NewReplacer(replace...)
	from := os.DirFS("testdata/homelab")
	err := fs.WalkDir(from, ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(from, file)
		if err != nil {
			return err
		}
		e.repo.Write(file, replacer.Replace(string(b)))
		if strings.Contains(filepath.Base(file), ".sops.") && file != ".sops.yaml" {
			h.sealed = append(h.sealed, file)
		}
		return nil
	})
	if err != nil {
		e.t.Fatal(err)
	}
	if len(h.sealed) < 10 {
		e.t.Fatalf("only %d files to seal: testdata/homelab is not what it was", len(h.sealed))
	}
	for _, file := range h.sealed {
		if _, errOut, code := e.run("", h.stock.sops, "encrypt", "--in-place", file); code != 0 {
			e.t.Fatalf("sops encrypt %s: %s", file, errOut)
		}
	}
	return h
}

// plain is the repository with all that the home cluster's key opens opened by
// stock sops.
func (h *homelab) plain() fstest.MapFS {
	h.t.Helper()
	out := fstest.MapFS{}
	for file := range strings.SplitSeq(h.repo.Git("ls-files"), "\n") {
		text := h.read(file)
		if slices.Contains(h.sealed, file) && !strings.HasPrefix(file, "clusters/office/") {
			text = h.stock.open("", file, text)
		}
		out[file] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

// once runs the agent as people who come from Flux would, and returns its report
// and all that it said.
func (h *homelab) once() (onceReport, string, int) {
	h.t.Helper()
	out, errOut, code := h.env.once("--path", homeCluster, "--decryption-secret", "sops-age", "-o", "json", "--log-level", "debug", "-v", "10")
	return parseReport(h.t, out, errOut), out + errOut, code
}

// live reads objects from the cluster, in the order given; what is generated
// under the name that it has there.
func (h *homelab) live(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	h.t.Helper()
	cfg, err := h.cp.RESTConfig()
	if err != nil {
		h.t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	groups, err := restmapper.GetAPIGroupResources(h.client.Discovery())
	if err != nil {
		h.t.Fatal(err)
	}
	mapper := restmapper.NewDiscoveryRESTMapper(groups)
	out := make([]*unstructured.Unstructured, len(objects))
	for i, u := range objects {
		gvk := u.GroupVersionKind()
		m, err := mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
		if err != nil {
			h.t.Fatal(err)
		}
		l, err := client.Resource(m.Resource).Namespace(u.GetNamespace()).List(h.t.Context(), metav1.ListOptions{})
		if err != nil {
			h.t.Fatal(err)
		}
		for j := range l.Items {
			if shapeName("", "", l.Items[j].GetName()) == shapeName("", "", u.GetName()) {
				out[i] = &l.Items[j]
			}
		}
		if out[i] == nil {
			h.t.Fatalf("%s is not in the cluster", objectName(u))
		}
	}
	return out
}

func objectName(u *unstructured.Unstructured) string {
	return shapeName(u.GetKind(), u.GetNamespace(), u.GetName())
}

// holds reports where got lacks something of want; generated names are equal
// without their suffix.
func holds(want, got any, at string) error {
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s: got %v, want a map", at, got)
		}
		for k, v := range want {
			if err := holds(v, g[k], at+"."+k); err != nil {
				return err
			}
		}
		return nil
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(want) {
			return fmt.Errorf("%s: got %v, want %v", at, got, want)
		}
		for i := range want {
			if err := holds(want[i], g[i], fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		return nil
	case string:
		g, ok := got.(string)
		if !ok || generatedSuffix.ReplaceAllString(g, "") != generatedSuffix.ReplaceAllString(want, "") {
			return fmt.Errorf("%s: got %v, want %v", at, got, want)
		}
		return nil
	default:
		if fmt.Sprint(want) != fmt.Sprint(got) {
			return fmt.Errorf("%s: got %v, want %v", at, got, want)
		}
		return nil
	}
}

// generatedNames collects the texts of an object that end like a generated name.
func generatedNames(v any) []string {
	var out []string
	switch v := v.(type) {
	case map[string]any:
		for _, item := range v {
			out = append(out, generatedNames(item)...)
		}
	case []any:
		for _, item := range v {
			out = append(out, generatedNames(item)...)
		}
	case string:
		if generatedSuffix.MatchString(v) {
			out = append(out, v)
		}
	}
	return out
}

// TestAHomelabMovesInFromFlux applies a repository that somebody made for Flux
// and sops, changes nothing in it but the program that applies it, and breaks one
// of its files.
func TestAHomelabMovesInFromFlux(t *testing.T) {
	t.Parallel()
	h := newHomelab(newEnvOn(t, harness.NewControlPlane(t))) // it has namespaces and other cluster-wide objects of its own
	h.repo.Commit("a home")
	plain := h.plain()
	objects, err := build.Run(t.Context(), plain, homeCluster, build.AsWritten)
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) < 60 {
		t.Fatalf("only %d objects: testdata/homelab is not what it was", len(objects))
	}
	var namespaces []string
	for _, u := range objects {
		if ns := u.GetNamespace(); ns != "" && !slices.Contains(namespaces, ns) {
			namespaces = append(namespaces, ns)
		}
	}

	report, said, code := h.once()
	if code != 0 || report.Objects != len(objects) || report.Created != len(objects) || len(report.Warnings) > 0 {
		t.Fatalf("exit code %d; created %d of %d objects, stock kustomize has %d; warnings %v, failures:\n%s",
			code, report.Created, report.Objects, len(objects), report.Warnings, strings.Join(report.Failures, "\n"))
	}
	if d := cmp.Diff(stockShapes(t, plain, homeCluster), h.liveShapes(namespaces...)); d != "" {
		t.Errorf("(-sops decrypt and kustomize build +cluster):\n%s", d)
	}
	live := h.live(objects)
	names := map[string]bool{}
	for _, u := range live {
		names[u.GetNamespace()+"/"+u.GetName()] = true
	}
	for i, u := range objects {
		if u.GetKind() == "Secret" { // compared above
			continue
		}
		if err := holds(u.Object, live[i].Object, objectName(u)); err != nil {
			t.Error(err)
		}
		delete(live[i].Object, "status") // of controllers, which name revisions in the same way
		for _, name := range generatedNames(live[i].Object) {
			if !names[u.GetNamespace()+"/"+name] {
				t.Errorf("%s names %s, which is not there", objectName(u), name)
			}
		}
	}

	t.Log("again: nothing is to be done")
	mark := h.cp.Mark()
	again, more, code := h.once()
	said += more
	if code != 0 || again.Requests != 0 || again.Unchanged != len(objects) {
		t.Errorf("exit code %d, %d requests, %d of %d objects unchanged", code, again.Requests, again.Unchanged, len(objects))
	}
	writes, err := h.cp.Requests(t.Context(), mark, func(r harness.AuditEvent) bool {
		return strings.HasPrefix(r.UserAgent, "gitseal-agent/") && !slices.Contains([]string{"get", "list", "watch"}, r.Verb) && r.Resource != "leases"
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range writes {
		t.Errorf("%s %s", r.Verb, r.RequestURI)
	}

	t.Log("one file is tampered with, everything has a new label, and some objects leave git")
	const tampered = "apps/base/web/web.sops.yaml"
	good := h.read(tampered)
	h.replace(tampered, "SESSION_KEY: ENC[AES256_GCM,data:", "SESSION_KEY: ENC[AES256_GCM,data:AAAA")
	h.replace(homeCluster+"/kustomization.yaml", `home.example/release: "1"`, `home.example/release: "2"`)
	h.replace("apps/base/web/kustomization.yaml", "  - budget.yaml\n", "")
	h.repo.Commit("tampered")
	broken, more, code := h.once()
	said += more
	failures := strings.Join(broken.Failures, "\n")
	if code != 1 || broken.Pruned != 0 || !strings.Contains(failures, tampered) || !strings.Contains(failures, "stringData.SESSION_KEY") {
		t.Errorf("exit code %d, %d objects pruned, failures:\n%s", code, broken.Pruned, failures)
	}
	// What is made from the file, and what names that.
	held := []string{
		"Secret/web/shop-env", "Secret/web/shop-tls", "Secret/web/shop-registry", "Secret/web/shop-files",
		"Deployment/web/shop", "CronJob/web/cleanup", // envFrom, secretKeyRef
		"Deployment/web/worker", "ServiceAccount/web/puller", // imagePullSecrets
		"Deployment/web/files", "Deployment/web/license", // volumes
		"Ingress/web/shop", // TLS
	}
	left := []string{"PodDisruptionBudget/web/shop", "HorizontalPodAutoscaler/web/shop", "LimitRange/web/defaults"}
	for i, u := range h.live(objects) {
		name, release := objectName(u), u.GetLabels()["home.example/release"]
		switch kept := slices.Contains(held, name) || slices.Contains(left, name); {
		case kept && release != "1":
			t.Errorf("%s was applied: its release is %s", name, release)
		case kept && (u.GetGeneration() != live[i].GetGeneration() || u.GetUID() != live[i].GetUID()):
			t.Errorf("%s was written", name)
		case kept && u.GetKind() == "Secret" && u.GetResourceVersion() != live[i].GetResourceVersion():
			t.Errorf("%s was written", name)
		case !kept && release != "2":
			t.Errorf("%s was not applied, although it has nothing to do with the file: its release is %s", name, release)
		}
	}
	for _, name := range held[4:] {
		kind, rest, _ := strings.Cut(name, "/")
		if !strings.Contains(failures, kind+"/"+rest+": waits for Secret/web/shop-") {
			t.Errorf("the report does not say that %s waits:\n%s", name, failures)
		}
	}

	t.Log("it is put right")
	h.repo.Write(tampered, good)
	h.repo.Commit("put right")
	right, more, code := h.once()
	said += more
	if code != 0 || right.Pruned != len(left) || right.Changed != len(held) {
		t.Errorf("exit code %d, %d objects pruned and %d changed; want %d and %d; failures:\n%s", code, right.Pruned, right.Changed, len(left), len(held), strings.Join(right.Failures, "\n"))
	}
	if d := cmp.Diff(stockShapes(t, h.plain(), homeCluster), h.liveShapes(namespaces...)); d != "" {
		t.Errorf("(-sops decrypt and kustomize build +cluster):\n%s", d)
	}
	h.showsNowhere(h.canary, haystack{"what the agent said", []byte(said)}, haystack{"hexdumps in what the agent said", []byte(harness.Undump(said))})
}
