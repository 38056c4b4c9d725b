package crypto

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Document says what one document of a file is, without its values.
type Document struct {
	APIVersion, Kind, Namespace, Name string
}

// IsObject reports whether it is a Kubernetes object.
func (d Document) IsObject() bool { return d.APIVersion != "" && d.Kind != "" }

type manifest struct {
	APIVersion string         `yaml:"apiVersion"`
	Kind       string         `yaml:"kind"`
	Metadata   manifestMeta   `yaml:"metadata"`
	Type       string         `yaml:"type"`
	Immutable  *bool          `yaml:"immutable"`
	Data       map[string]any `yaml:"data"`
	StringData map[string]any `yaml:"stringData"`
	SOPS       any            `yaml:"sops"`
}

type manifestMeta struct {
	Namespace   string            `yaml:"namespace"`
	Name        string            `yaml:"name"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

// Documents lists the documents of a yaml or json file; other formats have
// none. Errors are *FormatError and hold no content.
func Documents(plain Secret, format Format) ([]Document, error) {
	if format != YAML && format != JSON {
		return nil, nil
	}
	var out []Document
	err := eachDocument(plain, func(n *yaml.Node) error {
		var m struct {
			APIVersion yaml.Node `yaml:"apiVersion"`
			Kind       yaml.Node `yaml:"kind"`
			Metadata   struct {
				Namespace yaml.Node `yaml:"namespace"`
				Name      yaml.Node `yaml:"name"`
			} `yaml:"metadata"`
		}
		if n.Decode(&m) != nil { // a list, say: no object
			out = append(out, Document{})
			return nil
		}
		out = append(out, Document{m.APIVersion.Value, m.Kind.Value, m.Metadata.Namespace.Value, m.Metadata.Name.Value})
		return nil
	})
	return out, err
}

func eachDocument(plain Secret, f func(*yaml.Node) error) error {
	if len(plain.Reveal()) > MaxSealedFile {
		return tooLarge()
	}
	if _, err := scanYAML(plain.Reveal()); err != nil {
		return err
	}
	d := yaml.NewDecoder(bytes.NewReader(plain.Reveal()))
	for {
		var n yaml.Node
		switch err := d.Decode(&n); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return formatError(YAML, err)
		case n.Kind == yaml.DocumentNode && len(n.Content) == 1 && n.Content[0].ShortTag() == "!!null":
			continue
		}
		if err := f(&n); err != nil {
			return err
		}
	}
}

// NewManifest is a Secret to be written as YAML and sealed at once.
type NewManifest struct {
	Name, Namespace, Type string
	Values                map[string]Secret
}

// YAML writes the Secret; text goes into stringData, other bytes into data.
func (m NewManifest) YAML() (Secret, error) {
	text, binary := map[string]string{}, map[string]string{}
	for k, v := range m.Values {
		if b := v.Reveal(); utf8.Valid(b) && !bytes.ContainsAny(b, "\x00\x1b") {
			text[k] = string(b)
		} else {
			binary[k] = base64.StdEncoding.EncodeToString(b)
		}
	}
	doc := struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string `yaml:"kind"`
		Metadata   struct {
			Name      string `yaml:"name"`
			Namespace string `yaml:"namespace,omitempty"`
		} `yaml:"metadata"`
		Type       string            `yaml:"type,omitempty"`
		Data       map[string]string `yaml:"data,omitempty"`
		StringData map[string]string `yaml:"stringData,omitempty"`
	}{APIVersion: "v1", Kind: "Secret", Type: m.Type, Data: binary, StringData: text}
	doc.Metadata.Name, doc.Metadata.Namespace = m.Name, m.Namespace
	b, err := yaml.Marshal(doc)
	if err != nil {
		return Secret{}, errors.New("the Secret could not be written as YAML")
	}
	return NewSecret(b), nil
}

// SealManifestRequest is what SealManifests works on.
type SealManifestRequest struct {
	Plain     Secret // one or more Secrets in YAML or JSON
	Cert      Certificate
	Scope     Scope  // "" takes it from each Secret's annotations, as kubeseal does
	Namespace string // for Secrets that name none; a different one is an error
	Name      string // "" takes it from the Secret
	AllowNone bool   // accept a Secret without data
	Now       time.Time
}

// ErrNamespaceMissing is returned for a Secret that needs a namespace and names
// none: it would be bound to whatever namespace somebody happens to be in.
var ErrNamespaceMissing = errors.New("the Secret names no namespace, and a SealedSecret is bound to one")

// droppedAnnotations belong to the Secret's past, and hold its values.
var droppedAnnotations = []string{"kubectl.kubernetes.io/last-applied-configuration", "kubecfg.ksonnet.io/last-applied-configuration"}

// SealManifests turns Secrets into SealedSecrets, in order, each as a tree for
// JSON or YAML. Errors name the document and hold no content.
func SealManifests(req SealManifestRequest) ([]map[string]any, error) {
	var out []map[string]any
	n := 0
	err := eachDocument(req.Plain, func(node *yaml.Node) error {
		n++
		var m manifest
		if err := node.Decode(&m); err != nil {
			return fmt.Errorf("document %d: not a Secret", n)
		}
		if m.Kind != "Secret" || m.APIVersion != "v1" {
			return fmt.Errorf("document %d: not a Secret (apiVersion v1, kind Secret)", n)
		}
		if m.SOPS != nil {
			return fmt.Errorf("document %d: %w as a SOPS file; open it with sops first", n, ErrAlreadySealed)
		}
		s, err := req.seal(m)
		if err != nil {
			return fmt.Errorf("document %d: %w", n, err)
		}
		out = append(out, s)
		return nil
	})
	if err == nil && n == 0 {
		err = &FormatError{What: "empty"}
	}
	return out, err
}

func (req SealManifestRequest) seal(m manifest) (map[string]any, error) {
	if req.Name != "" {
		m.Metadata.Name = req.Name
	}
	if m.Metadata.Name == "" {
		return nil, errors.New("the Secret has no metadata.name")
	}
	scope := req.Scope
	if scope == "" {
		scope = ScopeOf(m.Metadata.Annotations)
	}
	ns := m.Metadata.Namespace
	switch {
	case ns == "":
		ns = req.Namespace
	case req.Namespace != "" && req.Namespace != ns:
		return nil, fmt.Errorf("the Secret is of namespace %s, not %s", ns, req.Namespace)
	}
	if ns == "" && scope != ClusterWide {
		return nil, ErrNamespaceMissing
	}
	values, err := m.values()
	if err != nil {
		return nil, err
	}
	if len(values) == 0 && !req.AllowNone {
		return nil, errors.New("the Secret has no data; nothing would be sealed")
	}
	encrypted := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		if bytes.HasPrefix(values[k].Reveal(), []byte(encPrefix)) {
			return nil, fmt.Errorf("%s is %w by sops", k, ErrAlreadySealed)
		}
		text, err := SealValue(req.Cert, Target{ns, m.Metadata.Name, scope}, values[k], req.Now)
		if err != nil {
			return nil, err
		}
		encrypted[k] = text
	}
	annotations := maps.Clone(m.Metadata.Annotations)
	for _, a := range append(droppedAnnotations, NamespaceWideAnnotation, ClusterWideAnnotation) {
		delete(annotations, a)
	}
	meta := map[string]any{"name": m.Metadata.Name}
	templateMeta := map[string]any{"name": m.Metadata.Name}
	if ns != "" {
		meta["namespace"], templateMeta["namespace"] = ns, ns
	}
	if a := scope.Annotation(); a != "" {
		meta["annotations"] = map[string]any{a: "true"}
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[a] = "true"
	}
	if len(annotations) > 0 {
		templateMeta["annotations"] = anyMap(annotations)
	}
	if len(m.Metadata.Labels) > 0 {
		templateMeta["labels"] = anyMap(m.Metadata.Labels)
	}
	template := map[string]any{"metadata": templateMeta}
	if m.Type != "" {
		template["type"] = m.Type
	}
	if m.Immutable != nil {
		template["immutable"] = *m.Immutable
	}
	return map[string]any{
		"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": meta,
		"spec": map[string]any{"encryptedData": encrypted, "template": template},
	}, nil
}

// values merges data and stringData, which wins.
func (m manifest) values() (map[string]Secret, error) {
	out := map[string]Secret{}
	for k, v := range m.Data {
		s, ok := v.(string)
		if !ok && v != nil {
			return nil, fmt.Errorf("data.%s is not a text", k)
		}
		b, err := base64.StdEncoding.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\r", "", "\t", "").Replace(s))
		if err != nil {
			return nil, fmt.Errorf("data.%s is not base64; did you mean stringData?", k)
		}
		out[k] = NewSecret(b)
	}
	for k, v := range m.StringData {
		switch v := v.(type) {
		case nil:
			out[k] = NewSecret(nil)
		case string:
			out[k] = NewSecretString(v)
		case int, int64, uint64, bool, float64:
			b, err := json.Marshal(v)
			if err != nil {
				return nil, fmt.Errorf("stringData.%s is not a text", k)
			}
			out[k] = NewSecret(b)
		default:
			return nil, fmt.Errorf("stringData.%s is not a text", k)
		}
	}
	return out, nil
}

func anyMap(m map[string]string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}
