package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestASyncIsDeletedWithItsObjectsOrWithout(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--orphan", "--yes"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t).withKeys()
			e.repo.Write("apps/a.yaml", configMap(e.app, "a", "k", "v"))
			e.sealSecret("apps/db.yaml", "db", "password", "delete-canary")
			e.repo.Commit("two")
			e.mustOnce()
			del := func(args ...string) (string, string, int) {
				return e.run("", filepath.Join(e.bin, "agent"), append([]string{"delete", "--namespace", e.system}, args...)...)
			}
			if _, errOut, code := del(); code != 2 || !strings.Contains(errOut, "--orphan") {
				t.Errorf("without a word on its objects: exit code %d\n%s", code, errOut)
			}
			out, errOut, code := del(mode)
			if code != 0 || strings.Count(out, "\n") != 3 || strings.Contains(out+errOut, "canary") {
				t.Errorf("exit code %d\n%s%s", code, out, errOut)
			}
			secretErr := e.secret(t.Context(), "db", "password", "delete-canary")
			mapErr := e.configMapValue(t.Context(), "a", "k", "v")
			if gone := apierrors.IsNotFound(secretErr) && apierrors.IsNotFound(mapErr); gone != (mode == "--yes") || !gone && (secretErr != nil || mapErr != nil) {
				t.Errorf("afterwards: %v, %v", secretErr, mapErr)
			}
			left, err := e.client.CoreV1().Secrets(e.system).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range left.Items {
				if strings.HasPrefix(s.Name, "gitseal-inventory-") {
					t.Errorf("%s is left", s.Name)
				}
			}
			if _, errOut, code := del(mode); code != 0 || !strings.Contains(errOut, "nothing is known of a sync default") {
				t.Errorf("once more: exit code %d\n%s", code, errOut)
			}
		})
	}
}
