package syncs

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
)

// New is a Sync of a folder that looks at git every second. It is not made yet.
func New(namespace, name, url, path string) *v1alpha1.Sync {
	return &v1alpha1.Sync{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       v1alpha1.SyncSpec{Source: v1alpha1.Source{URL: url}, Path: path, Interval: metav1.Duration{Duration: time.Second}},
	}
}

// ConfigMap is the manifest of one that has a value for key; namespace "" for none.
func ConfigMap(namespace, name, value string) string {
	if namespace != "" {
		namespace = "\n  namespace: " + namespace
	}
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s%s\ndata:\n  key: %q\n", name, namespace, value)
}

// Secret is what [Seal] seals.
type Secret struct {
	Namespace, Name, Password string
	Binding                   string // "" for none
}

// Seal is the manifest of a Secret whose password SOPS has sealed.
func Seal(t testing.TB, to []crypto.Recipient, s Secret) string {
	t.Helper()
	plain, err := crypto.NewManifest{Name: s.Name, Namespace: s.Namespace, Values: map[string]crypto.Secret{"password": crypto.NewSecretString(s.Password)}}.YAML()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := crypto.SealSOPS(crypto.SealRequest{Plain: plain, Format: crypto.YAML, Now: time.Now(), Binding: crypto.Binding(s.Binding),
		Rule: crypto.Rule{Recipients: to, EncryptedRegex: crypto.KubernetesSelector}})
	if err != nil {
		t.Fatal(err)
	}
	return string(sealed)
}
