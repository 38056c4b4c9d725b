package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
)

// Where sealed-secrets keeps its keys: in Secrets with this label, in its first
// versions in one of this name.
const (
	sealedSecretsLabel  = "sealedsecrets.bitnami.com/sealed-secrets-key"
	sealedSecretsActive = "active"
	sealedSecretsLegacy = "sealed-secrets-key"
)

// foreignKeys only open: nothing is sealed to them, and they are not published.
type foreignKeys struct {
	own          bool // they belong to one tenant alone
	identities   []crypto.Identity
	pgp          []crypto.PGPKey
	certificates []crypto.CertificateKey
}

func (s Store) loadForeign(ctx context.Context) (out foreignKeys, err error) {
	if s.DecryptionSecret != "" {
		if err := s.loadDecryptionSecret(ctx, &out); err != nil {
			return foreignKeys{}, err
		}
		out.own = s.OwnDecryption
	}
	for _, ns := range s.SealedSecretsFrom {
		found, err := s.loadSealedSecretsKeys(ctx, ns)
		if err != nil {
			return foreignKeys{}, err
		}
		out.certificates = append(out.certificates, found...)
	}
	slices.SortStableFunc(out.certificates, func(a, b crypto.CertificateKey) int {
		return b.Certificate().NotBefore().Compare(a.Certificate().NotBefore())
	})
	return out, nil
}

func (s Store) loadDecryptionSecret(ctx context.Context, out *foreignKeys) error {
	in := Store{Client: s.DecryptionClient, Namespace: cmp.Or(s.DecryptionNamespace, s.Namespace)}
	if in.Client == nil {
		in.Client = s.Client
	}
	sec, err := in.Client.CoreV1().Secrets(in.Namespace).Get(ctx, s.DecryptionSecret, metav1.GetOptions{})
	if err != nil {
		return in.apiError("read the decryption Secret "+s.DecryptionSecret, err)
	}
	for _, k := range slices.Sorted(maps.Keys(sec.Data)) {
		value := crypto.NewSecret(sec.Data[k])
		switch {
		case strings.HasSuffix(k, ".agekey"):
			ids, parseErr := crypto.ParseIdentities(value)
			out.identities, err = append(out.identities, ids...), parseErr
		case strings.HasSuffix(k, ".asc"):
			keys, parseErr := crypto.ParsePGPKeys(value)
			out.pgp, err = append(out.pgp, keys...), parseErr
		}
		if err != nil {
			return fmt.Errorf("secret %s/%s, key %s: %w", in.Namespace, s.DecryptionSecret, k, err)
		}
	}
	if len(out.identities) == 0 && len(out.pgp) == 0 {
		return fmt.Errorf("secret %s/%s holds no *.agekey or *.asc entry", in.Namespace, s.DecryptionSecret)
	}
	return nil
}

// loadSealedSecretsKeys reads the keys that the controller of sealed-secrets
// would open with: those labelled active, and the unlabelled one of its first
// versions.
func (s Store) loadSealedSecretsKeys(ctx context.Context, namespace string) ([]crypto.CertificateKey, error) {
	in := Store{Namespace: namespace} // for messages
	secrets := s.Client.CoreV1().Secrets(namespace)
	list, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: sealedSecretsLabel + "=" + sealedSecretsActive})
	if err != nil {
		return nil, in.apiError("list the keys of sealed-secrets", err)
	}
	found := list.Items
	switch legacy, err := secrets.Get(ctx, sealedSecretsLegacy, metav1.GetOptions{}); {
	case err == nil && legacy.Labels[sealedSecretsLabel] == "":
		found = append(found, *legacy)
	case err != nil && !apierrors.IsNotFound(err):
		return nil, in.apiError("read the key of sealed-secrets "+sealedSecretsLegacy, err)
	}
	var out []crypto.CertificateKey
	var errs []error
	for i := range found {
		k, err := crypto.ParseCertificateKey(found[i].Data[corev1.TLSCertKey], crypto.NewSecret(found[i].Data[corev1.TLSPrivateKeyKey]))
		if err != nil {
			errs = append(errs, fmt.Errorf("key Secret %s/%s of sealed-secrets: %w", namespace, found[i].Name, err))
			continue
		}
		out = append(out, k)
	}
	if len(errs) == 0 && len(out) == 0 {
		return nil, fmt.Errorf("namespace %s holds no key of sealed-secrets (a Secret labelled %s=%s)", namespace, sealedSecretsLabel, sealedSecretsActive)
	}
	return out, errors.Join(errs...)
}
