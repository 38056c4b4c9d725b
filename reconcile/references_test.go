package reconcile

import (
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
)

// What a `nameReference` of their own makes kustomize rewrite waits for a Secret
// that is refused, and nothing else does that has the same name.
func TestWhatKustomizeRewroteWaitsForARefusedSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held, wanted := identity(t), identity(t)
	w.secret("db", "REWRITTEN-CANARY", wanted)
	service := func(name, host string) {
		w.repo.Write(name+".yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: "+name+", namespace: "+w.app+", labels: {app: db}}\nspec: {type: ExternalName, externalName: "+host+"}\n")
	}
	service("refers", "db")
	service("other", "db.example.com")
	w.repo.Write("db-map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: db}\ndata: {v: x}\n")
	w.repo.Write("names.yaml", "nameReference:\n- kind: Secret\n  fieldSpecs: [{kind: Service, path: spec/externalName}]\n")
	w.repo.Write("kustomization.yaml", "resources: [db.yaml, db-map.yaml, refers.yaml, other.yaml]\nnamePrefix: pre-\nconfigurations: [names.yaml]\n")
	w.repo.Commit("a reference by a rule of their own")
	w.keys.set([]crypto.Identity{held}, nil)
	r := w.once().Pass(t.Context())
	if _, err := w.admin.CoreV1().Services(w.app).Get(t.Context(), "pre-other", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := w.admin.CoreV1().ConfigMaps(w.app).Get(t.Context(), "pre-db", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := w.admin.CoreV1().Services(w.app).Get(t.Context(), "pre-refers", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("pre-refers: %v", err)
	}
	if err := errors.Join(r.Failures...); err == nil || !strings.Contains(err.Error(), "Service/"+w.app+"/pre-refers: waits for Secret/"+w.app+"/pre-db") {
		t.Errorf("failures: %v", err)
	}
}
