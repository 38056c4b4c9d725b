package crypto

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"time"

	ssv1 "github.com/bitnami-labs/sealed-secrets/pkg/crypto"
)

const (
	certificateBits     = 4096                      // what sealed-secrets uses
	certificateValidity = 10 * 365 * 24 * time.Hour // sealed-secrets' --key-ttl
)

// Certificate is the public half of a SealedSecret key.
type Certificate struct {
	pub                 *rsa.PublicKey
	notBefore, notAfter time.Time
	pem                 []byte
}

// ParseCertificate reads the first certificate of a PEM file. It must hold an
// RSA key of at least 2048 bits.
func ParseCertificate(file []byte) (Certificate, error) {
	for rest := file; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return Certificate{}, errors.New("no PEM certificate found")
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Certificate{}, fmt.Errorf("parse certificate: %w", err)
		}
		pub, ok := c.PublicKey.(*rsa.PublicKey)
		if !ok || pub.N.BitLen() < 2048 {
			return Certificate{}, errors.New("a SealedSecret certificate must hold an RSA key of 2048 bits or more")
		}
		return Certificate{pub: pub, notBefore: c.NotBefore, notAfter: c.NotAfter, pem: pem.EncodeToMemory(block)}, nil
	}
}

// PEM returns the certificate as a PEM block.
func (c Certificate) PEM() []byte { return c.pem }

// NotBefore is when it was made, more or less: sealed-secrets orders keys by it.
func (c Certificate) NotBefore() time.Time { return c.notBefore }

// NotAfter is when sealing with it must end.
func (c Certificate) NotAfter() time.Time { return c.notAfter }

// IsZero reports whether c holds no certificate.
func (c Certificate) IsZero() bool { return c.pub == nil }

// Fingerprint is the one that sealed-secrets prints, SHA256:…; "" for none.
func (c Certificate) Fingerprint() string {
	if c.IsZero() {
		return ""
	}
	return certFingerprint(c.pub)
}

func certFingerprint(pub *rsa.PublicKey) string {
	f, err := ssv1.PublicKeyFingerprint(pub)
	if err != nil {
		panic("crypto: internal error: fingerprint of an RSA key: " + err.Error())
	}
	return f
}

// CertificateKey is the private half. Like a Secret, it prints as [redacted].
type CertificateKey struct {
	priv func() *rsa.PrivateKey // a closure, for the reason given at Secret
	cert Certificate
}

// GenerateCertificateKey makes an RSA-4096 key and a self-signed certificate
// that is valid for ten years from now.
func GenerateCertificateKey(now time.Time) (CertificateKey, error) {
	priv, err := rsa.GenerateKey(rand.Reader, certificateBits)
	if err != nil {
		return CertificateKey{}, fmt.Errorf("generate RSA key: %w", err)
	}
	c, err := ssv1.SignKeyWithNotBefore(rand.Reader, priv, now.UTC(), certificateValidity, "")
	if err != nil {
		return CertificateKey{}, fmt.Errorf("create certificate: %w", err)
	}
	cert, err := ParseCertificate(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	if err != nil {
		return CertificateKey{}, err
	}
	return CertificateKey{priv: func() *rsa.PrivateKey { return priv }, cert: cert}, nil
}

// ParseCertificateKey reads a kubernetes.io/tls pair; the key may be PKCS #1 or
// PKCS #8. Errors never repeat the input.
func ParseCertificateKey(certPEM []byte, keyPEM Secret) (CertificateKey, error) {
	cert, err := ParseCertificate(certPEM)
	if err != nil {
		return CertificateKey{}, err
	}
	block, _ := pem.Decode(keyPEM.Reveal())
	if block == nil {
		return CertificateKey{}, errors.New("no PEM private key found")
	}
	priv, err := parseRSAKey(block.Bytes)
	if err != nil {
		return CertificateKey{}, err
	}
	if !priv.PublicKey.Equal(cert.pub) {
		return CertificateKey{}, errors.New("the private key does not belong to the certificate")
	}
	return CertificateKey{priv: func() *rsa.PrivateKey { return priv }, cert: cert}, nil
}

// Certificate returns the public half.
func (k CertificateKey) Certificate() Certificate { return k.cert }

// PEM returns the private key in PKCS #1 form, as sealed-secrets stores it.
func (k CertificateKey) PEM() Secret {
	return NewSecret(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k.priv())}))
}

// Format implements fmt.Formatter: a private key never prints.
func (CertificateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) } // fmt has no way to report it

// MarshalJSON always fails with ErrSecretEncode.
func (CertificateKey) MarshalJSON() ([]byte, error) { return nil, ErrSecretEncode }
