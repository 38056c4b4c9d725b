package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/source"
)

// gitFlags say where the repository's credentials come from. Values that are
// secret are read from files, never from the command line.
type gitFlags struct {
	secret, username                     string
	passwordFile, tokenFile, sshKeyFile  string
	sshPassphraseFile, knownHosts, caPEM string
}

func (g *gitFlags) add(f *pflag.FlagSet) {
	f.StringVar(&g.secret, "git-secret", "", "Secret of --namespace with the repository's credentials (username, password, bearerToken, ca.crt, identity, known_hosts)")
	f.StringVar(&g.username, "git-username", "", "user name for basic authentication")
	f.StringVar(&g.passwordFile, "git-password-file", "", "file with the password or token for basic authentication")
	f.StringVar(&g.tokenFile, "git-bearer-token-file", "", "file with a bearer token")
	f.StringVar(&g.sshKeyFile, "git-ssh-key-file", "", "file with the SSH private key")
	f.StringVar(&g.sshPassphraseFile, "git-ssh-passphrase-file", "", "file with the passphrase of the SSH private key")
	f.StringVar(&g.knownHosts, "git-known-hosts-file", "", "file with the SSH host keys to trust")
	f.StringVar(&g.caPEM, "git-ca-file", "", "file with the CA certificates to trust for https")
}

func (g gitFlags) credentials(ctx context.Context, client kubernetes.Interface, namespace string) (source.Credentials, error) {
	if g.secret != "" {
		if g != (gitFlags{secret: g.secret}) {
			return source.Credentials{}, fmt.Errorf("--git-secret excludes the other --git-… flags")
		}
		// Without a logger: client-go prints answers at high verbosity.
		s, err := client.CoreV1().Secrets(namespace).Get(klog.NewContext(ctx, klog.Logger{}), g.secret, metav1.GetOptions{})
		if err != nil {
			return source.Credentials{}, fmt.Errorf("read the repository's credentials: %w", err)
		}
		c, err := source.CredentialsFromSecret(s.Data)
		if err != nil {
			return source.Credentials{}, fmt.Errorf("secret %s/%s: %w", namespace, g.secret, err)
		}
		return c, nil
	}
	data := map[string][]byte{}
	if g.username != "" {
		data["username"] = []byte(g.username)
	}
	for key, file := range map[string]string{"password": g.passwordFile, "bearerToken": g.tokenFile, "identity": g.sshKeyFile, "known_hosts": g.knownHosts, "ca.crt": g.caPEM} {
		if file == "" {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return source.Credentials{}, fmt.Errorf("read the repository's credentials: %w", err)
		}
		if key == "password" || key == "bearerToken" {
			b = []byte(strings.TrimRight(string(b), "\r\n"))
		}
		data[key] = b
	}
	c, err := source.CredentialsFromSecret(data)
	if err != nil || g.sshPassphraseFile == "" {
		return c, err
	}
	b, err := os.ReadFile(g.sshPassphraseFile)
	if err != nil {
		return source.Credentials{}, fmt.Errorf("read the repository's credentials: %w", err)
	}
	c.SSHKeyPassphrase = crypto.NewSecretString(strings.TrimRight(string(b), "\r\n"))
	return c, nil
}
