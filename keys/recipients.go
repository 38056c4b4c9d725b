package keys

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/gitseal/gitseal/crypto"
)

// RecipientsConfigMap lists, in its key recipients.txt, the people and other clusters
// that files may be sealed to besides this cluster. Administrators write it.
const RecipientsConfigMap = "gitseal-recipients"

// Recipients are those that the ConfigMap gitseal-recipients lists; none where it is not
// there.
func (s Store) Recipients(ctx context.Context) ([]crypto.Recipient, error) {
	cm, err := s.Client.CoreV1().ConfigMaps(s.Namespace).Get(ctx, RecipientsConfigMap, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, s.apiError("read ConfigMap "+RecipientsConfigMap, err)
	case cm.Data[RecipientsKey] == "":
		return nil, nil
	}
	listed, err := crypto.ParseRecipients([]byte(cm.Data[RecipientsKey]))
	if err != nil {
		return nil, fmt.Errorf("configmap %s/%s, key %s: %w", s.Namespace, RecipientsConfigMap, RecipientsKey, err)
	}
	return listed, nil
}
