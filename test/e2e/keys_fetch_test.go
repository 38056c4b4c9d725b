package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
)

func TestKeysFetchWritesOnceAndShowsADifference(t *testing.T) {
	t.Parallel()
	e := newEnv(t).withKeys()
	sealBin := filepath.Join(e.bin, "seal")
	fetch := func(more ...string) (string, string, int) {
		return e.run("", sealBin, append([]string{"keys", "fetch", "--namespace", e.system}, more...)...)
	}
	mine := "# my own rule\ncreation_rules:\n  - path_regex: legacy/\n    pgp: ABCDEF\n"
	e.repo.Write(".sops.yaml", mine)
	if err := os.RemoveAll(filepath.Join(e.repo.Work, ".gitseal")); err != nil {
		t.Fatal(err)
	}
	out, errOut, code := fetch("-o", "json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	var got struct {
		Recipients             []string
		CertificateFingerprint string
		Written                []string
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Recipients) != 1 || len(got.Written) != 3 {
		t.Fatalf("got %s, %v", out, err)
	}
	config := e.read(".sops.yaml")
	if !strings.HasPrefix(config, mine) || strings.Count(config, got.Recipients[0]) != 2 {
		t.Errorf(".sops.yaml:\n%s", config)
	}
	if out, _, _ := fetch("-o", "json"); !strings.Contains(out, `"written": null`) {
		t.Errorf("a second time it wrote something: %s", out)
	}

	t.Log("other keys than those in the repository")
	other, err := crypto.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	foreign := strings.ReplaceAll(config, got.Recipients[0], other.Recipient().String())
	e.repo.Write(".sops.yaml", foreign)
	e.repo.Write(".gitseal/recipients.txt", other.Recipient().String()+"\n")
	_, errOut, code = fetch()
	if code != 1 || !strings.Contains(errOut, other.Recipient().String()) || !strings.Contains(errOut, got.Recipients[0]) || !strings.Contains(errOut, "--accept") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	if e.read(".sops.yaml") != foreign {
		t.Error("something was written without --accept")
	}
	if _, errOut, code = fetch("--accept"); code != 0 {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	if e.read(".sops.yaml") != config {
		t.Errorf("the old recipient was not replaced in its place:\n%s", e.read(".sops.yaml"))
	}

	t.Log("no agent there")
	if _, errOut, code := e.run("", sealBin, "keys", "fetch", "--namespace", e.app); code != 2 || !strings.Contains(errOut, "is the agent running, with --namespace "+e.app) {
		t.Errorf("exit code %d: %s", code, errOut)
	}

	t.Log("a broken .sops.yaml is left alone")
	e.repo.Write(".sops.yaml", "creation_rules: [")
	if _, errOut, code := fetch("--accept"); code != 2 || !strings.Contains(errOut, ".sops.yaml: not valid YAML") || e.read(".sops.yaml") != "creation_rules: [" {
		t.Errorf("exit code %d: %s", code, errOut)
	}

	t.Log("what is published holds no private key")
	cm, err := e.client.CoreV1().ConfigMaps(e.system).Get(t.Context(), "gitseal-keys", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range cm.Data {
		if strings.Contains(v, "PRIVATE") || strings.Contains(v, "SECRET") {
			t.Errorf("%s holds a private key", k)
		}
	}
}
