package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// trustedVariable makes TestCACertificates the process that looks whom it trusts, as
// that is settled once in each.
const trustedVariable = "GITSEAL_TEST_TRUSTED"

func TestCACertificates(t *testing.T) {
	if want := os.Getenv(trustedVariable); want != "" {
		if got := trusted(t); got != want {
			t.Errorf("%s of the authorities in the program are trusted, want %s", got, want)
		}
		return
	}
	t.Parallel()
	folder := t.TempDir()
	own := filepath.Join(folder, "own.pem")
	for c := range bundle.Roots() {
		content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate})
		if err := os.WriteFile(own, content, 0o600); err != nil {
			t.Fatal(err)
		}
		break
	}
	for name, c := range map[string]struct{ file, want string }{
		"those in the program, where the system has none": {filepath.Join(folder, "missing"), "all"},
		"those of the system alone, where it has one":     {own, "one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCACertificates$")
			cmd.Env = []string{trustedVariable + "=" + c.want, "SSL_CERT_FILE=" + c.file, "SSL_CERT_DIR=" + filepath.Join(folder, "missing")}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// trusted says how many of the authorities in the program this process trusts: "all",
// "one", "none" or "some".
func trusted(t *testing.T) string {
	t.Helper()
	all, some := 0, 0
	for c := range bundle.Roots() {
		cert, err := x509.ParseCertificate(c.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if c.Constraint != nil { // trusted for a part of its certificates only
			continue
		}
		all++
		if _, err := cert.Verify(x509.VerifyOptions{CurrentTime: cert.NotAfter.Add(-time.Hour), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err == nil {
			some++
		}
	}
	switch {
	case all < 50:
		t.Fatalf("only %d authorities in the program", all)
	case some == all:
		return "all"
	case some == 1:
		return "one"
	case some == 0:
		return "none"
	}
	return "some"
}
