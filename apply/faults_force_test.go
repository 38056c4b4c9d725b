package apply

import (
	"context"
	"net/http"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestForceDoesNotGetAroundAWebhookThatSpeaksLikeTheAPIServer(t *testing.T) {
	t.Parallel()
	p := newPlayer(t, false)
	forced := func(value string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: NS, annotations: {" + force + "}}\ndata: {v: \"" + value + "\"}\n"
	}
	p.play(story{{git: forced("1"), done: "create ConfigMap/a"}})
	p.validating(func(_ context.Context, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if r.Operation != admissionv1.Update {
			return nil
		}
		return &admissionv1.AdmissionResponse{Result: &metav1.Status{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "data.v: Forbidden: may not change",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseTypeForbidden, Field: "data.v", Message: "may not change"}}}}}
	}, nil)
	p.play(story{
		{git: forced("2"), failed: []string{"ConfigMap/NS/a: the API server refused it: Invalid (422)"}, inventory: "ConfigMap/a intended", cluster: "ConfigMap/a same", requests: "patch configmaps/a"},
	})
}
