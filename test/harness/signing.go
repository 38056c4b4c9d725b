package harness

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Signer is somebody who signs commits with an SSH key.
type Signer struct {
	File   string // of the private key
	Public []byte // as a line of a .pub file
}

// NewSigner makes a key in a folder of the test's. Without ssh-keygen, by which git
// signs, the test is skipped, or fails where nothing may be skipped.
func NewSigner(t testing.TB, name string) Signer {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		if os.Getenv("GITSEAL_REQUIRE_APISERVER") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return Signer{File: file, Public: ssh.MarshalAuthorizedKey(p)}
}

// SignAs makes the repository's next commits, and tags made with Git("tag", "-s"),
// signed by somebody; the zero Signer ends that.
func (r *Repo) SignAs(s Signer) {
	r.Git("config", "gpg.format", "ssh")
	sign := "false"
	if s.File != "" {
		sign = "true"
		r.Git("config", "user.signingKey", s.File)
	}
	r.Git("config", "commit.gpgSign", sign)
}
