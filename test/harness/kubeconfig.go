package harness

import (
	"path/filepath"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// ImpersonatingKubeconfig is the file of an administrator who acts as a user, in a
// namespace; "" for himself, and for none.
func (c *ControlPlane) ImpersonatingKubeconfig(t testing.TB, user, namespace string) string {
	t.Helper()
	return c.changedKubeconfig(t, func(config *clientcmdapi.Config) {
		for _, a := range config.AuthInfos {
			a.Impersonate = user
		}
		for _, x := range config.Contexts {
			x.Namespace = namespace
		}
	})
}

// AccountKubeconfig is the file of a service account that exists, with a token that the
// API server gave for it.
func (c *ControlPlane) AccountKubeconfig(t testing.TB, namespace, account string) string {
	t.Helper()
	token, err := c.client(t).CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c.changedKubeconfig(t, func(config *clientcmdapi.Config) {
		config.AuthInfos = map[string]*clientcmdapi.AuthInfo{"account": {Token: token.Status.Token}}
		for _, x := range config.Contexts {
			x.AuthInfo = "account"
		}
	})
}

// changedKubeconfig writes a changed copy of the control plane's into a folder of the
// test's.
func (c *ControlPlane) changedKubeconfig(t testing.TB, change func(*clientcmdapi.Config)) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	change(config)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}
