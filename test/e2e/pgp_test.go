package e2e

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/test/harness"
)

// Somebody comes from Flux with OpenPGP keys. Nobody here has gpg: stock sops
// seals with a keyring of the old form, and the agent opens in its own process.
func TestFilesSealedToOpenPGPOpenInTheAgent(t *testing.T) {
	t.Parallel()
	sops := harness.Oracle(t, "sops")
	e := newEnv(t).withKeys()
	home, fingerprint, private := openPGPKey(t)
	e.repo.Write("apps/db.yaml", manifestOf(e.app, "db", awkward))
	if _, errOut, code := e.run("", "env", "GNUPGHOME="+home, "SOPS_GPG_EXEC=/nonexistent", sops, "--config", os.DevNull, "encrypt", "--in-place",
		"--pgp", fingerprint, "--encrypted-regex", "^(data|stringData)$", "apps/db.yaml"); code != 0 {
		t.Fatalf("sops: %s", errOut)
	}
	e.repo.Commit("sealed with OpenPGP")

	_, errOut, code := e.once()
	if code == 0 || !strings.Contains(errOut, "apps/db.yaml: NoKey") || !strings.Contains(errOut, "pgp "+fingerprint) {
		t.Errorf("without the key: exit code %d\n%s", code, errOut)
	}
	if _, err := e.client.CoreV1().Secrets(e.system).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "sops-gpg"}, Data: map[string][]byte{"sops.asc": private},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code := e.once("--decryption-secret", "sops-gpg"); code != 0 {
		t.Fatalf("with it: %s\n%s", out, errOut)
	}
	e.assertValues("db", awkward)
}

// openPGPKey makes a key, and a folder with its public half that stock sops takes
// for the home of gpg.
func openPGPKey(t *testing.T) (home, fingerprint string, private []byte) {
	t.Helper()
	entity, err := openpgp.NewEntity("flux", "", "flux@example.com", &packet.Config{RSABits: 3072, Algorithm: packet.PubKeyAlgoRSA})
	if err != nil {
		t.Fatal(err)
	}
	home = t.TempDir()
	ring, err := os.Create(filepath.Join(home, "pubring.gpg"))
	if err != nil {
		t.Fatal(err)
	}
	if err := entity.Serialize(ring); err != nil {
		t.Fatal(err)
	}
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	var armored bytes.Buffer
	w, err := armor.Encode(&armored, openpgp.PrivateKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := entity.SerializePrivate(w, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return home, strings.ToUpper(hex.EncodeToString(entity.PrimaryKey.Fingerprint)), armored.Bytes()
}
