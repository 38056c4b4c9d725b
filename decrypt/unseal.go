package decrypt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/crypto"
)

// OpenError says why a SealedSecret could not be opened.
type OpenError struct {
	Reason Reason
	err    error // never holds content
}

func (e *OpenError) Unwrap() error { return e.err }
func (e *OpenError) Error() string { return string(e.Reason) + ": " + e.err.Error() }

// open fills in the values. All keys that fail are reported, not the first.
func (s *sealedSecret) open(m *Masked, u *unstructured.Unstructured) error {
	if s.whole != "" {
		return s.openWhole(m, u)
	}
	values, err := s.rendered(m)
	if err != nil {
		return err
	}
	data := map[string]any{}
	for key, value := range values {
		data[key] = base64.StdEncoding.EncodeToString(value.Reveal())
	}
	if len(data) > 0 {
		u.Object["data"] = data
	}
	return nil
}

// rendered is what the Secret holds: the opened values, and the templates
// rendered over them. Templates are rendered again only when the input changes:
// one that takes the time or a random value would change the Secret each time.
func (s *sealedSecret) rendered(m *Masked) (map[string]crypto.Secret, error) {
	if out, ok := keep(m.cache, m.cache.outs, s.outKey()); ok {
		return out, nil
	}
	values := map[string]crypto.Secret{}
	var errs openErrors
	for _, key := range slices.Sorted(maps.Keys(s.encrypted)) {
		value, err := s.value(m, "encryptedData."+key, s.encrypted[key])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		values[key] = value
	}
	if len(errs) > 0 {
		return nil, errs.join()
	}
	if len(s.templates) == 0 {
		return values, nil
	}
	parsed, err := parseTemplates(s.templates)
	if err != nil {
		return nil, &OpenError{ReasonTemplateFailed, err}
	}
	texts := make(map[string]string, len(values))
	for key, value := range values {
		texts[key] = string(value.Reveal())
	}
	m.cache.rendering.Lock()
	defer m.cache.rendering.Unlock()
	for _, p := range parsed {
		out, err := p.render(texts)
		if err != nil {
			errs = append(errs, &OpenError{ReasonTemplateFailed, err})
			continue
		}
		values[p.key] = crypto.NewSecret(out)
	}
	if len(errs) > 0 {
		return nil, errs.join()
	}
	store(m.cache, m.cache.outs, s.outKey(), values, &m.cache.opened.Templates)
	return values, nil
}

// openErrors are those of several values.
type openErrors []error

// join says once what is wrong with several values alike.
func (e openErrors) join() error {
	var out []error
	at := map[string]int{} // what is wrong → index in out
	for _, err := range e {
		var sealed *crypto.SealedValueError
		if !errors.As(err, &sealed) {
			out = append(out, err)
			continue
		}
		i, ok := at[sealed.Reason]
		if !ok {
			at[sealed.Reason] = len(out)
			out = append(out, err)
			continue
		}
		first := *out[i].(*OpenError)
		all := *first.err.(*crypto.SealedValueError)
		all.Field += ", " + sealed.Field
		out[i] = &OpenError{first.Reason, &all}
	}
	return &joinedError{out}
}

// joinedError is on one line, as a log wants it.
type joinedError struct{ errs []error }

func (e *joinedError) Unwrap() []error { return e.errs }
func (e *joinedError) Error() string {
	texts := make([]string, len(e.errs))
	for i, err := range e.errs {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// value opens one value, or finds it opened.
func (s *sealedSecret) value(m *Masked, field, text string) (crypto.Secret, error) {
	k := s.valueKey(m, text)
	if v, ok := keep(m.cache, m.cache.values, k); ok {
		return v, nil
	}
	v, err := crypto.OpenValue(crypto.OpenValueRequest{Keys: m.certificates, Target: s.target, Field: field, Text: text, Elsewhere: s.elsewhere})
	if err != nil {
		return crypto.Secret{}, &OpenError{reasonOf(err), err}
	}
	if bytes.HasPrefix(v.Reveal(), []byte(encHead)) {
		return crypto.Secret{}, &OpenError{ReasonStillSealed, fmt.Errorf("%s: what it holds is itself still sealed by sops; seal the plain value", field)}
	}
	store(m.cache, m.cache.values, k, v, &m.cache.opened.Values)
	return v, nil
}

func (s *sealedSecret) valueKey(m *Masked, text string) cacheKey {
	return keyOf([]byte(s.target.Scope), []byte(s.target.Namespace), []byte(s.target.Name), []byte(text), []byte(m.certDigest))
}

func (s *sealedSecret) outKey() cacheKey { return keyOf([]byte(s.input)) }

// keep tells the cache what git still holds.
func (s *sealedSecret) keep(m *Masked) {
	for _, text := range s.encrypted {
		keep(m.cache, m.cache.values, s.valueKey(m, text))
	}
	if s.whole != "" {
		keep(m.cache, m.cache.values, s.valueKey(m, s.whole))
	}
	keep(m.cache, m.cache.outs, s.outKey())
}

// openWhole opens the deprecated form: the sealed text is a whole Secret, with
// metadata and type of its own.
func (s *sealedSecret) openWhole(m *Masked, u *unstructured.Unstructured) error {
	v, err := s.value(m, "data", s.whole)
	if err != nil {
		return err
	}
	bad := &OpenError{ReasonNotReadable, errors.New("data: what it holds is no Secret; seal it again")}
	var inner struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"metadata"`
		Type       string            `json:"type"`
		Immutable  *bool             `json:"immutable"`
		Data       map[string][]byte `json:"data"`
		StringData map[string]string `json:"stringData"`
	}
	if err := yaml.Unmarshal(v.Reveal(), &inner); err != nil || inner.Kind != "Secret" && inner.Kind != "" {
		return bad
	}
	if _, ok := inner.Metadata.Labels[keyLabel]; ok {
		return &OpenError{ReasonReserved, fmt.Errorf("data: the label %s marks gitseal's private keys and may not come from git", keyLabel)}
	}
	data := map[string]any{}
	for key, value := range inner.Data {
		data[key] = base64.StdEncoding.EncodeToString(value)
	}
	for key, value := range inner.StringData {
		data[key] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	u.Object["data"] = data
	u.SetLabels(inner.Metadata.Labels)
	u.SetAnnotations(inner.Metadata.Annotations)
	if inner.Type != "" {
		u.Object["type"] = inner.Type
	}
	if inner.Immutable != nil {
		u.Object["immutable"] = *inner.Immutable
	}
	return nil
}
