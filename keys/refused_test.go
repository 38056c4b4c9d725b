package keys

import (
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhatAWebhookSaysOfAPrivateKeyIsNotRepeated(t *testing.T) {
	t.Parallel()
	const quoted = "AGE-SECRET-KEY-canary"
	for name, c := range map[string]struct {
		status metav1.Status
		want   string
	}{
		"in its message":     {metav1.Status{Code: http.StatusForbidden, Message: `admission webhook "h.example.com" denied the request: ` + quoted}, "make a key in namespace ns: the API server says Forbidden (403)"},
		"as its reason":      {metav1.Status{Code: http.StatusForbidden, Reason: quoted, Message: `admission webhook "h.example.com" denied the request: ` + quoted}, "make a key in namespace ns: the API server says Forbidden (403)"},
		"but the API server": {metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: "secrets is forbidden"}, "make a key in namespace ns: the API server says Forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Store{Namespace: "ns"}.apiError("make a key", &apierrors.StatusError{ErrStatus: c.status}).Error()
			if got != c.want || strings.Contains(got, quoted) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
