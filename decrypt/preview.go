package decrypt

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Preview is an object of a render without keys as it would be applied: for looking
// at, it can not be sent. Its Input is a digest that anybody can compute, so it tells
// only whether two renders without keys are alike.
func Preview(u *unstructured.Unstructured, policy SealedSecretPolicy) (Object, error) {
	raw, err := json.Marshal(u.Object)
	if err != nil {
		return Object{}, fmt.Errorf("%s can not be written as JSON", describe(u))
	}
	sum := sha256.Sum256(raw)
	o := Object{Masked: &unstructured.Unstructured{Object: maps.Clone(u.Object)}, Input: hex.EncodeToString(sum[:16])}
	switch {
	case isSealedSecret(u) && policy != PassThrough:
		if o.Masked, err = secretOf(u); err != nil {
			return Object{}, fmt.Errorf("%s: %w", describe(u), err)
		}
	case isSecret(u):
		data, bad := secretValues(u)
		if bad != nil {
			return Object{}, fmt.Errorf("%s: %s %s", describe(u), bad.field, bad.what)
		}
		delete(o.Masked.Object, "stringData")
		o.Masked.Object["data"] = data
	}
	return o, nil
}

// secretOf is the Secret that a SealedSecret stands for, with a placeholder for each
// value.
func secretOf(sealed *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	template, _, err := unstructured.NestedMap(sealed.Object, "spec", "template")
	if err != nil {
		return nil, err
	}
	secret, err := maskedSecret(sealed.GetNamespace(), sealed.GetName(), template)
	if err != nil {
		return nil, fmt.Errorf("spec.template.metadata: %w", err)
	}
	data := map[string]any{}
	for _, path := range [][]string{{"spec", "encryptedData"}, {"spec", "template", "data"}} {
		values, _, _ := unstructured.NestedMap(sealed.Object, path...)
		for key, value := range values {
			data[key] = base64.StdEncoding.EncodeToString([]byte(unopened(fmt.Sprint(value))))
		}
	}
	secret.Object["data"] = data
	return secret, nil
}
