package crypto

import (
	"sync"
	"testing"
	"time"
)

var sharedKey = sync.OnceValues(func() (CertificateKey, error) { return GenerateCertificateKey(time.Now()) })

// testCertificateKey returns one RSA key for all tests: making one takes seconds.
func testCertificateKey(t testing.TB) CertificateKey {
	t.Helper()
	k, err := sharedKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var secondKey = sync.OnceValues(func() (CertificateKey, error) { return GenerateCertificateKey(time.Now()) })

// otherCertificateKey is a second one.
func otherCertificateKey(t testing.TB) CertificateKey {
	t.Helper()
	k, err := secondKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testIdentity(t testing.TB) Identity {
	t.Helper()
	id, err := GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}
