package decrypt

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestMessagesNameTheFile(t *testing.T) {
	t.Parallel()
	files := map[string][]byte{
		"apps/db.yaml":            []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: db}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: db}\n"),
		"apps/list.json":          []byte(`{"kind":"List","items":[{"kind":"Secret","metadata":{"name":"listed"}},"x"]}`),
		"apps/Kustomization":      []byte("secretGenerator: [{name: gen}]\nconfigMapGenerator: [{name: cfg}]\n"),
		"apps/patch.yaml":         []byte("kind: Secret\nmetadata: {name: db}\n"),
		"apps/broken.yaml":        []byte("kind: [\n"),
		"apps/not-an-object.yaml": []byte("- a\n"),
		"apps/a.env":              []byte("kind: Secret\n"),
	}
	m := &Masked{named: func() map[string][]namedObject { return indexFiles(files) }}
	for object, want := range map[[2]string][]string{
		{"Secret", "db"}:               {"apps/db.yaml", "apps/patch.yaml"},
		{"ConfigMap", "db"}:            {"apps/db.yaml"},
		{"Secret", "pre-db-post"}:      {"apps/db.yaml", "apps/patch.yaml"},
		{"Secret", "listed"}:           {"apps/list.json"},
		{"Secret", "gen-bcdfghkmt2"}:   {"apps/Kustomization"},
		{"ConfigMap", "x-cfg"}:         {"apps/Kustomization"},
		{"Secret", "nobody"}:           {},
		{"Deployment", "db"}:           {},
		{"Secret", "db-not-generated"}: {"apps/db.yaml", "apps/patch.yaml"},
	} {
		u := &unstructured.Unstructured{Object: map[string]any{"kind": object[0], "metadata": map[string]any{"name": object[1]}}}
		if got := m.filesOf(u); !slices.Equal(got, want) {
			t.Errorf("%v: got %v, want %v", object, got, want)
		}
	}
}
