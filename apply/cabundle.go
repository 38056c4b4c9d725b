package apply

import (
	"encoding/base64"
	"encoding/pem"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gitseal/gitseal/decrypt"
)

// injectors are the annotations by which an object asks somebody else to fill its
// caBundle in: the injector of cert-manager, and the service CA of OpenShift.
var injectors = []string{
	"cert-manager.io/inject-ca-from", "cert-manager.io/inject-ca-from-secret", "cert-manager.io/inject-apiserver-ca",
	"service.beta.openshift.io/inject-cabundle",
}

// withoutInjected leaves out a caBundle that is somebody else's: where the object asks
// for one, or where git holds only a stand-in that is no certificate. It would be
// fought over.
func withoutInjected(o decrypt.Object) decrypt.Object {
	if o.CarriesPlaintext() { // git has sealed one
		return o
	}
	asksForOne := slices.ContainsFunc(injectors, func(name string) bool { _, ok := o.Masked.GetAnnotations()[name]; return ok })
	for _, at := range clientConfigs(o) {
		var config any = o.Masked.Object
		for _, step := range at {
			switch v := config.(type) {
			case map[string]any:
				config = v[step]
			case []any:
				n, _ := strconv.Atoi(step) // ours
				config = v[n]
			}
		}
		fields, _ := config.(map[string]any)
		if bundle, ok := fields["caBundle"]; ok && (asksForOne || !isCertificate(bundle)) {
			o = o.Without(append(at, "caBundle"))
		}
	}
	return o
}

// clientConfigs are the steps to the places of an object that can hold a caBundle.
func clientConfigs(o decrypt.Object) [][]string {
	switch gk := o.GroupVersionKind().GroupKind(); {
	case gk.Group == "admissionregistration.k8s.io":
		webhooks, _ := o.Masked.Object["webhooks"].([]any)
		var out [][]string
		for i := range webhooks {
			out = append(out, []string{"webhooks", strconv.Itoa(i), "clientConfig"})
		}
		return out
	case gk == schema.GroupKind{Group: "apiregistration.k8s.io", Kind: "APIService"}:
		return [][]string{{"spec"}}
	case isCRD(gk):
		return [][]string{{"spec", "conversion", "webhook", "clientConfig"}}
	}
	return nil
}

func isCertificate(v any) bool {
	text, _ := v.(string)
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return true // the API server has something to say about it
	}
	block, _ := pem.Decode(b)
	return block != nil && block.Type == "CERTIFICATE"
}
