package decrypt

import (
	"encoding/json"
	"errors"
	"fmt"

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
	elsewhere []crypto.Target // for the error only: what it may have been sealed as
	encrypted map[string]string
	templates map[string]string
	whole     string // spec.data, the deprecated form
	volatile  bool   // a template that gives another result each time
	input     string
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
	template, err := subMap(spec, "template")
	if err != nil {
		return fail("spec.template", "%v", err)
	}
	s := &sealedSecret{target: crypto.Target{Namespace: ns, Name: name, Scope: crypto.ScopeOf(u.GetAnnotations())}, elsewhere: elsewhere(template, ns, name)}
	if field, err := s.values(spec, template, g.masked.policy); err != nil {
		return fail(field, "%v", err)
	}
	parsed, err := parseTemplates(s.templates)
	if err != nil {
		return fail("", "%v", err)
	}
	for _, p := range parsed {
		s.volatile = s.volatile || p.volatile
	}
	if _, ok := template["type"].(string); !ok && template["type"] != nil {
		return fail("spec.template.type", "is not a text")
	}
	if _, ok := template["immutable"].(bool); !ok && template["immutable"] != nil {
		return fail("spec.template.immutable", "is not true or false")
	}
	if s.whole != "" {
		template = nil
	}
	secret, err := maskedSecret(u.GetNamespace(), name, template)
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
	s.input = g.masked.digester.Digest("sealedsecret", raw, []byte(ns), []byte(g.masked.certDigest))
	s.keep(g.masked)
	return Object{Masked: secret, Input: s.input, sealed: s}
}

// elsewhere is the place that kubeseal wrote into the template, if it is another:
// somebody renamed or moved the object since.
func elsewhere(template map[string]any, namespace, name string) []crypto.Target {
	meta, _ := template["metadata"].(map[string]any)
	was := crypto.Target{Namespace: namespace, Name: name}
	if n, ok := meta["name"].(string); ok && n != "" {
		was.Name = n
	}
	if ns, ok := meta["namespace"].(string); ok && ns != "" {
		was.Namespace = ns
	}
	if was.Name == name && was.Namespace == namespace {
		return nil
	}
	return []crypto.Target{was}
}

// values reads what is sealed and the templates over it.
func (s *sealedSecret) values(spec, template map[string]any, policy Policy) (field string, err error) {
	if s.encrypted, err = textMap(spec["encryptedData"]); err != nil {
		return "spec.encryptedData", err
	}
	if s.templates, err = textMap(template["data"]); err != nil {
		return "spec.template.data", err
	}
	switch whole := spec["data"].(type) {
	case nil:
		if spec["encryptedData"] == nil && len(s.templates) == 0 {
			return "spec.encryptedData", errors.New("is missing; the Secret would lose all its values")
		}
	case string:
		if len(s.encrypted) > 0 {
			return "spec.data", errors.New("is the deprecated form and can not stand beside encryptedData; remove one of them")
		}
		if !policy.DeprecatedData {
			return "spec.data", errors.New("is the deprecated form, one blob for the whole Secret; seal it again with kubeseal or `seal sealedsecret`, or let it pass with --accept-deprecated-v1-data")
		}
		s.whole, s.templates = whole, nil // the template has no part in this form
	default:
		return "spec.data", errors.New("is not a text")
	}
	return "", nil
}

// maskedSecret has the name of the SealedSecret, whatever the template says.
func maskedSecret(namespace, name string, template map[string]any) (*unstructured.Unstructured, error) {
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
