package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhatIsInTheClusterAlreadyIsAdopted(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	there := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "there"}, Data: map[string]string{"k": "old"}}
	if _, err := e.client.CoreV1().ConfigMaps(e.app).Create(t.Context(), there, metav1.CreateOptions{FieldManager: "kubectl-create"}); err != nil {
		t.Fatal(err)
	}
	e.repo.Write("apps/there.yaml", configMap(e.app, "there", "k", "v"))
	e.repo.Write("apps/new.yaml", configMap(e.app, "new", "k", "v"))
	e.repo.Commit("two more")
	out, errOut, code := e.run("", filepath.Join(e.bin, "seal"), "diff", "apps", "--namespace", e.system, "-n", e.app)
	for _, want := range []string{"create ConfigMap/" + e.app + "/new (new in git)\n", "adopt ConfigMap/" + e.app + "/there (new in git; it was there already)\n", "  -  k: old\n  +  k: v\n"} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("seal diff, exit code %d, does not say %q:\n%s%s", code, want, out, errOut)
		}
	}
	type counts struct{ Objects, Created, Adopted, Changed, Pruned, Released, Unchanged int }
	var got counts
	if err := json.Unmarshal([]byte(e.mustOnce("-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	if want := (counts{Objects: 3, Created: 1, Adopted: 1, Unchanged: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}

	t.Log("a lost inventory")
	if err := e.client.CoreV1().Secrets(e.system).DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "gitseal.io/inventory"}); err != nil {
		t.Fatal(err)
	}
	e.repo.Remove("apps/new.yaml")
	e.repo.Commit("one less")
	text := e.mustOnce()
	for _, want := range []string{
		"adopt ConfigMap/" + e.app + "/there (new in git; it was there already)\n",
		": 2 objects: 0 created, 2 adopted, 0 changed, 0 pruned, 0 released, 0 unchanged, in ",
		"warning: the inventory was lost, and 1 objects that this sync has applied are not in git: ConfigMap/" + e.app + "/new, for instance; they are not pruned. To take one back, put it into git again; to be rid of it, delete it with kubectl.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	if text = e.mustOnce(); strings.Contains(text, "warning") || !strings.Contains(text, " 2 unchanged, in ") {
		t.Errorf("it is told once:\n%s", text)
	}
}
