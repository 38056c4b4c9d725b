package decrypt

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/crypto"
)

const sealedSecretGroup = "bitnami.com"

func isSealedSecret(u *unstructured.Unstructured) bool {
	gvk := u.GroupVersionKind()
	return gvk.Kind == "SealedSecret" && gvk.Group == sealedSecretGroup
}

// sealedSecret is what is needed to open one when its Secret is sent.
type sealedSecret struct {
	target    crypto.Target
	encrypted map[string]string
	templates map[string]string
}

// sealedSecret makes the masked Secret that a SealedSecret stands for.
// Upstream's decoder drops errors of encryptedData; here they are refusals.
func (g *gate) sealedSecret(u *unstructured.Unstructured) Object {
	g.reserved(u)
	fail := func(field, format string, args ...any) Object {
		g.refuse(ReasonInvalidSealedSecret, field, format, args...)
		return Object{}
	}
	if u.GroupVersionKind().Version != "v1alpha1" {
		return fail("apiVersion", "only bitnami.com/v1alpha1 is known")
	}
	if g.masked.keys == nil {
		return fail("", "no key to open it with")
	}
	g.rest(u.Object, "", false)
	ns, name := g.place(u)
	if name == "" {
		return fail("metadata.name", "is missing")
	}
	spec, _ := u.Object["spec"].(map[string]any)
	if spec == nil {
		return fail("spec", "is missing")
	}
	if spec["data"] != nil {
		return fail("spec.data", "the deprecated form (one blob for the whole Secret) is not supported; seal it again with kubeseal or `seal sealedsecret`")
	}
	s := &sealedSecret{target: crypto.Target{Namespace: ns, Name: name, Scope: crypto.ScopeOf(u.GetAnnotations())}}
	if _, ok := spec["encryptedData"]; !ok {
		return fail("spec.encryptedData", "is missing; the Secret would lose all its values")
	}
	var err error
	if s.encrypted, err = textMap(spec["encryptedData"]); err != nil {
		return fail("spec.encryptedData", "%v", err)
	}
	template, err := subMap(spec, "template")
	if err != nil {
		return fail("spec.template", "%v", err)
	}
	if s.templates, err = textMap(template["data"]); err != nil {
		return fail("spec.template.data", "%v", err)
	}
	if len(s.templates) > 0 {
		return fail("spec.template.data", "templates are not supported yet; put the values into encryptedData")
	}
	if _, ok := template["type"].(string); !ok && template["type"] != nil {
		return fail("spec.template.type", "is not a text")
	}
	if _, ok := template["immutable"].(bool); !ok && template["immutable"] != nil {
		return fail("spec.template.immutable", "is not true or false")
	}
	secret, err := s.maskedSecret(u.GetNamespace(), name, template)
	if err != nil {
		return fail("spec.template.metadata", "%v", err)
	}
	if _, ok := secret.GetLabels()[keyLabel]; ok {
		g.reserved(secret)
		return Object{}
	}
	raw, err := json.Marshal(u.Object)
	if err != nil {
		return fail("", "can not be written as JSON")
	}
	parts := [][]byte{raw, []byte(ns)}
	for _, k := range g.masked.keys.CertificateKeys() {
		parts = append(parts, []byte(k.Certificate().Fingerprint()))
	}
	slices.SortFunc(parts[2:], func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
	return Object{Masked: secret, Input: g.masked.digester.Digest("sealedsecret", parts...), sealed: s}
}

// maskedSecret has the name of the SealedSecret, whatever the template says.
func (s *sealedSecret) maskedSecret(namespace, name string, template map[string]any) (*unstructured.Unstructured, error) {
	meta, err := subMap(template, "metadata")
	if err != nil {
		return nil, err
	}
	labels, err := textMap(meta["labels"])
	if err != nil {
		return nil, fmt.Errorf("labels: %w", err)
	}
	annotations, err := textMap(meta["annotations"])
	if err != nil {
		return nil, fmt.Errorf("annotations: %w", err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret"}}
	u.SetName(name)
	if namespace != "" {
		u.SetNamespace(namespace)
	}
	if len(labels) > 0 {
		u.SetLabels(labels)
	}
	if len(annotations) > 0 {
		u.SetAnnotations(annotations)
	}
	for _, field := range []string{"type", "immutable"} {
		if v, ok := template[field]; ok && v != nil && v != "" {
			u.Object[field] = v
		}
	}
	return u, nil
}

// open fills in the values. All keys that fail are reported, not the first.
func (s *sealedSecret) open(u *unstructured.Unstructured, keys []crypto.CertificateKey) error {
	data := map[string]any{}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(s.encrypted)) {
		value, err := crypto.OpenValue(keys, s.target, key, s.encrypted[key])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if bytes.HasPrefix(value.Reveal(), []byte(encHead)) {
			errs = append(errs, fmt.Errorf("encryptedData.%s: what it holds is itself still sealed by sops; seal the plain value", key))
			continue
		}
		data[key] = base64.StdEncoding.EncodeToString(value.Reveal())
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if len(data) > 0 {
		u.Object["data"] = data
	}
	return nil
}

// textMap takes a map of texts, null and a missing map included.
func textMap(v any) (map[string]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case map[string]any:
		out := make(map[string]string, len(v))
		for _, k := range sortedKeys(v) {
			text, ok := v[k].(string)
			if !ok {
				return nil, fmt.Errorf("%s is not a text", k)
			}
			out[k] = text
		}
		return out, nil
	default:
		return nil, errors.New("is not a map")
	}
}

func subMap(parent map[string]any, key string) (map[string]any, error) {
	switch v := parent[key].(type) {
	case nil:
		return nil, nil
	case map[string]any:
		return v, nil
	default:
		return nil, errors.New("is not a map")
	}
}
