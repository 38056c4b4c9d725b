package source

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"github.com/gitseal/gitseal/crypto"
)

// The entries of a Secret that CredentialsFromSecret reads: the names that Flux
// uses, so that its Secrets can be taken over.
const (
	keyUsername    = "username"
	keyPassword    = "password" // with an identity: the passphrase of it
	keyBearerToken = "bearerToken"
	keyCA          = "ca.crt"
	keyCAFile      = "caFile" // older name of ca.crt
	keyIdentity    = "identity"
	keyKnownHosts  = "known_hosts"
	keyGitHubApp   = "githubAppID"
)

// Credentials is what is shown to the server, and what the server must show.
// The zero value is for public repositories. Username with Password, or
// BearerToken, go with http and https; SSHKey and KnownHosts with ssh.
//
// Over plain http a credential can be read by everyone on the way. It is sent
// all the same, for servers inside the cluster.
type Credentials struct {
	Username         string
	Password         crypto.Secret
	BearerToken      crypto.Secret
	CA               []byte        // PEM certificates, trusted beside those of the system
	SSHKey           crypto.Secret // PEM
	SSHKeyPassphrase crypto.Secret
	KnownHosts       []byte // in the format of OpenSSH's file; required for ssh
}

// CredentialsFromSecret reads the entries of a Kubernetes Secret by the names
// that Flux uses: username and password; bearerToken; ca.crt (or caFile);
// identity, known_hosts and password, then the passphrase of identity. Other
// entries are ignored. A line end after a user name, password or token is cut
// off. Errors name the entry, never its value.
func CredentialsFromSecret(data map[string][]byte) (Credentials, error) {
	has := func(key string) bool { return len(data[key]) > 0 }
	line := func(key string) crypto.Secret {
		if !has(key) {
			return crypto.Secret{}
		}
		return crypto.NewSecret(bytes.Clone(bytes.TrimRight(data[key], "\r\n")))
	}
	var c Credentials
	switch {
	case has(keyGitHubApp):
		return Credentials{}, fmt.Errorf("%s: GitHub app credentials are not supported", keyGitHubApp)
	case has(keyIdentity):
		if has(keyUsername) || has(keyBearerToken) {
			return Credentials{}, fmt.Errorf("%s can not be used together with %s or %s", keyIdentity, keyUsername, keyBearerToken)
		}
		c.SSHKey = crypto.NewSecret(bytes.Clone(data[keyIdentity]))
		c.SSHKeyPassphrase = line(keyPassword)
	default:
		c.Username = string(bytes.TrimRight(data[keyUsername], "\r\n"))
		c.Password = line(keyPassword)
		c.BearerToken = line(keyBearerToken)
	}
	c.KnownHosts = bytes.Clone(data[keyKnownHosts])
	c.CA = bytes.Clone(data[keyCA])
	if len(c.CA) == 0 {
		c.CA = bytes.Clone(data[keyCAFile])
	}
	if err := c.validate(); err != nil {
		return Credentials{}, err
	}
	return c, nil
}

func (c Credentials) basic() bool { return c.Username != "" || !c.Password.IsZero() }

// noCredentials is what sent says when nothing is.
const noCredentials = "no credentials"

// sent says for messages which credential goes to the server.
func (c Credentials) sent() string {
	switch {
	case !c.BearerToken.IsZero():
		return "a bearer token"
	case c.basic():
		return "a user name and password"
	case !c.SSHKey.IsZero():
		return "an ssh key"
	}
	return noCredentials
}

// validate checks c by itself; Config.Validate checks it against the URL.
func (c Credentials) validate() error {
	switch {
	case !c.BearerToken.IsZero() && c.basic():
		return fmt.Errorf("%s can not be used together with %s and %s", keyBearerToken, keyUsername, keyPassword)
	case c.Username != "" && len(c.Password.Reveal()) == 0:
		return fmt.Errorf("%s is missing beside %s", keyPassword, keyUsername)
	case c.Username == "" && !c.Password.IsZero():
		return fmt.Errorf("%s is missing beside %s", keyUsername, keyPassword)
	case bytes.ContainsFunc(c.BearerToken.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%s holds a character that can not be sent", keyBearerToken)
	case !c.SSHKeyPassphrase.IsZero() && c.SSHKey.IsZero():
		return fmt.Errorf("%s is missing beside its passphrase", keyIdentity)
	}
	if len(c.CA) > 0 {
		if _, err := parseCA(c.CA); err != nil {
			return err
		}
	}
	if !c.SSHKey.IsZero() {
		if _, err := c.signer(); err != nil {
			return err
		}
	}
	if len(c.KnownHosts) > 0 {
		if _, err := parseKnownHosts(c.KnownHosts); err != nil {
			return err
		}
	}
	return nil
}

// parseCA is strict, because x509 skips what it can not read and the user then
// hears of an unknown authority.
func parseCA(pemBytes []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	blocks := bytes.Count(pemBytes, []byte("-----BEGIN "))
	for rest := pemBytes; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: holds something else than certificates", keyCA)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d can not be parsed", keyCA, len(certs)+1)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 || len(certs) != blocks {
		return nil, fmt.Errorf("%s: not PEM certificates", keyCA)
	}
	return certs, nil
}

// signer parses the ssh key. The errors of the parser are dropped: they may
// quote.
func (c Credentials) signer() (ssh.Signer, error) {
	key := c.SSHKey.Reveal()
	var signer ssh.Signer
	var err error
	if c.SSHKeyPassphrase.IsZero() {
		signer, err = ssh.ParsePrivateKey(key)
	} else {
		signer, err = ssh.ParsePrivateKeyWithPassphrase(key, c.SSHKeyPassphrase.Reveal())
	}
	var missing *ssh.PassphraseMissingError
	switch {
	case err == nil:
		return signer, nil
	case errors.As(err, &missing):
		return nil, fmt.Errorf("%s: is encrypted, and %s (its passphrase) is missing", keyIdentity, keyPassword)
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, fmt.Errorf("%s: %s is not its passphrase", keyIdentity, keyPassword)
	}
	// A passphrase for a key without one is no mistake worth stopping for.
	if signer, err := ssh.ParsePrivateKey(key); err == nil {
		return signer, nil
	}
	if _, _, _, _, err := ssh.ParseAuthorizedKey(key); err == nil {
		return nil, fmt.Errorf("%s: is a public key, want the private one", keyIdentity)
	}
	return nil, fmt.Errorf("%s: not a private key that ssh can use", keyIdentity)
}
