package crypto

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxCertificateKeyFile is the most that ParseCertificateKeys reads, in bytes.
const MaxCertificateKeyFile = 4 << 20

// ParseCertificateKeys reads private keys of sealed-secrets, newest first: PEM blocks,
// with or without their certificates, or Secrets and lists of Secrets with tls.crt and
// tls.key, as kubectl writes them. Errors never repeat the input.
func ParseCertificateKeys(file Secret) ([]CertificateKey, error) {
	b := file.Reveal()
	if len(b) > MaxCertificateKeyFile {
		return nil, fmt.Errorf("larger than %d MiB", MaxCertificateKeyFile>>20)
	}
	var out []CertificateKey
	var err error
	if begin := bytes.Index(b, []byte("-----BEGIN ")); begin >= 0 && !keyOfSecret.Match(b) {
		out, err = parsePEMKeys(b[begin:])
	} else {
		out, err = parseSecretKeys(b)
	}
	if err == nil && len(out) == 0 {
		err = errors.New("no private key found: expected PEM, or Secrets with tls.crt and tls.key")
	}
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(out, func(a, b CertificateKey) int { return b.cert.notBefore.Compare(a.cert.notBefore) })
	return out, nil
}

var keyOfSecret = regexp.MustCompile(`tls\.key["']?\s*:`)

func parsePEMKeys(b []byte) ([]CertificateKey, error) {
	var certs []Certificate
	var keys []*rsa.PrivateKey
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			cert, err := ParseCertificate(pem.EncodeToMemory(block))
			if err != nil {
				return nil, err
			}
			certs = append(certs, cert)
		} else if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			key, err := parseRSAKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			keys = append(keys, key)
		}
	}
	var out []CertificateKey
	for _, k := range keys {
		// A key without its certificate opens as well: kubeseal's
		// --recovery-private-key takes such files.
		cert := Certificate{pub: &k.PublicKey}
		if i := slices.IndexFunc(certs, func(c Certificate) bool { return k.PublicKey.Equal(c.pub) }); i >= 0 {
			cert = certs[i]
		}
		out = append(out, CertificateKey{priv: func() *rsa.PrivateKey { return k }, cert: cert})
	}
	return out, nil
}

type secretOfKey struct {
	Data  map[string]yaml.Node `yaml:"data"`
	Items []secretOfKey        `yaml:"items"`
}

func parseSecretKeys(b []byte) ([]CertificateKey, error) {
	var out []CertificateKey
	if err := CheckYAML(b); err != nil {
		return nil, err
	}
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var s secretOfKey
		switch err := d.Decode(&s); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, errors.New("neither PEM nor a Secret")
		}
		for _, s := range append(s.Items, s) {
			cert, okCert := s.Data["tls.crt"]
			key, okKey := s.Data["tls.key"]
			if !okCert || !okKey {
				continue
			}
			k, err := parsePair(cert.Value, key.Value)
			if err != nil {
				return nil, err
			}
			out = append(out, k)
		}
	}
}

func parsePair(cert, key string) (CertificateKey, error) {
	values, err := manifest{Data: map[string]any{"tls.crt": cert, "tls.key": key}}.values()
	if err != nil {
		return CertificateKey{}, err
	}
	return ParseCertificateKey(values["tls.crt"].Reveal(), values["tls.key"])
}

func parseRSAKey(der []byte) (*rsa.PrivateKey, error) {
	if priv, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return priv, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if priv, ok := k.(*rsa.PrivateKey); err == nil && ok {
		return priv, nil
	}
	return nil, errors.New("not an RSA private key in PKCS #1 or PKCS #8 form")
}
