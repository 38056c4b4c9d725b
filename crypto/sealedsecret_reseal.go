package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// SealedSecretsRequest is what ResealSealedSecrets works on.
type SealedSecretsRequest struct {
	File []byte // YAML or JSON, of any number of documents
	Keys []CertificateKey
	To   Certificate
	// Namespace is that of SealedSecrets which name none, where a scope needs one.
	Namespace string
	Now       time.Time
}

// ListedSealedSecret is a SealedSecret of a file, without its values.
type ListedSealedSecret struct {
	Line   int // where its encryptedData begins
	Target Target
	Fields []string // encryptedData.password
	// OpenedBy are the fingerprints of the certificates whose keys open the fields, in
	// the same order, and "" for none. They are known only where there are keys.
	OpenedBy []string
}

// SealedSecretError says which SealedSecret of a file an error is about.
type SealedSecretError struct {
	Line int // of the value, or of the object
	Name string
	Err  error
}

func (e *SealedSecretError) Error() string {
	return fmt.Sprintf("line %d: SealedSecret %s: %v", e.Line, e.Name, e.Err)
}

// Unwrap returns the error itself.
func (e *SealedSecretError) Unwrap() error { return e.Err }

// ErrNoSealedSecret is returned for a file that holds none.
var ErrNoSealedSecret = errors.New("holds no SealedSecret")

// MayHoldSealedSecret is a quick look that never misses one.
func MayHoldSealedSecret(file []byte) bool { return bytes.Contains(file, []byte("SealedSecret")) }

// ListSealedSecrets lists the SealedSecrets of a file, those in lists too, with the
// keys that open their values. Errors: ErrNoSealedSecret, *LimitError, *FormatError,
// *SealedSecretError.
func ListSealedSecrets(req SealedSecretsRequest) ([]ListedSealedSecret, error) {
	found, err := findSealedSecrets(req)
	if err != nil {
		return nil, err
	}
	var out []ListedSealedSecret
	for _, s := range found {
		l := ListedSealedSecret{Line: s.line, Target: s.target}
		for _, v := range s.values {
			_, by, _ := v.open(req.Keys, s.target) // why it does not open is for ResealSealedSecrets to say
			l.Fields, l.OpenedBy = append(l.Fields, v.field), append(l.OpenedBy, by)
		}
		out = append(out, l)
	}
	return out, nil
}

// ResealSealedSecrets seals each value to the certificate, in the scope that the
// metadata of its object says; the template says nothing (CVE-2026-22728), and is not
// rendered. All other bytes stay as they are. Errors are those of ListSealedSecrets;
// within a *SealedSecretError also *SealedValueError, ErrNamespaceMissing and
// ErrExpiredCertificate.
func ResealSealedSecrets(req SealedSecretsRequest) ([]byte, []ListedSealedSecret, error) {
	found, err := findSealedSecrets(req)
	if err != nil {
		return nil, nil, err
	}
	var listed []ListedSealedSecret
	var changes []textChange
	for _, s := range found {
		fail := func(line int, err error) error {
			return &SealedSecretError{Line: line, Name: s.target.display(), Err: err}
		}
		if s.target.Scope != ClusterWide && s.target.Namespace == "" {
			return nil, nil, fail(s.line, ErrNamespaceMissing)
		}
		l := ListedSealedSecret{Line: s.line, Target: s.target}
		for _, v := range s.values {
			plain, by, err := v.open(req.Keys, s.target)
			if err != nil {
				return nil, nil, fail(v.node.Line, err)
			}
			text, err := SealValue(req.To, s.target, plain, req.Now)
			if err != nil {
				return nil, nil, fail(v.node.Line, err)
			}
			change, ok := changeScalar(req.File, v.node, text)
			if !ok {
				return nil, nil, fail(v.node.Line, fmt.Errorf("%s: can not be replaced in its place; write it on one line", v.field))
			}
			changes = append(changes, change)
			l.Fields, l.OpenedBy = append(l.Fields, v.field), append(l.OpenedBy, by)
		}
		listed = append(listed, l)
	}
	out, ok := applyChanges(req.File, changes)
	if !ok || !onlyValuesChanged(req, out, found) {
		return nil, nil, errNotTheSame
	}
	return out, listed, nil
}

type foundSealedSecret struct {
	line   int
	target Target
	values []foundValue
}

type foundValue struct {
	field string
	node  *yaml.Node
}

func (v foundValue) open(keys []CertificateKey, t Target) (plain Secret, by string, err error) {
	for _, k := range keys {
		if plain, err := OpenValue(OpenValueRequest{Keys: []CertificateKey{k}, Target: t, Field: v.field, Text: v.node.Value}); err == nil {
			return plain, k.cert.Fingerprint(), nil
		}
	}
	// Again with all of them, for what it says.
	_, err = OpenValue(OpenValueRequest{Keys: keys, Target: t, Field: v.field, Text: v.node.Value})
	return Secret{}, "", err
}

func (t Target) display() string {
	if t.Namespace == "" {
		return t.Name
	}
	return t.Namespace + "/" + t.Name
}

func findSealedSecrets(req SealedSecretsRequest) ([]foundSealedSecret, error) {
	if len(req.File) > MaxSealedFile {
		return nil, tooLarge()
	}
	if err := CheckYAML(req.File); err != nil {
		return nil, err
	}
	var out []foundSealedSecret
	for d := yaml.NewDecoder(bytes.NewReader(req.File)); ; {
		var doc yaml.Node
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			if len(out) == 0 {
				return nil, ErrNoSealedSecret
			}
			return out, nil
		case err != nil:
			return nil, formatError(YAML, err)
		}
		for _, root := range doc.Content {
			if err := req.find(root, &out, 0); err != nil {
				return nil, err
			}
		}
	}
}

const maxListsInLists = 10

// find looks at an object, and at those of a list.
func (req SealedSecretsRequest) find(n *yaml.Node, out *[]foundSealedSecret, depth int) error {
	if n.Kind != yaml.MappingNode || depth > maxListsInLists {
		return nil
	}
	if items := child(n, "items"); items != nil && items.Kind == yaml.SequenceNode {
		for _, item := range items.Content {
			if err := req.find(item, out, depth+1); err != nil {
				return err
			}
		}
	}
	group, _, _ := strings.Cut(textOf(child(n, "apiVersion")), "/")
	if textOf(child(n, "kind")) != "SealedSecret" || group != "bitnami.com" {
		return nil
	}
	meta := child(n, "metadata")
	annotations := map[string]string{}
	for _, a := range []string{NamespaceWideAnnotation, ClusterWideAnnotation} {
		annotations[a] = textOf(child(child(meta, "annotations"), a))
	}
	s := foundSealedSecret{line: n.Line, target: Target{
		Namespace: textOf(child(meta, "namespace")), Name: textOf(child(meta, "name")), Scope: ScopeOf(annotations),
	}}
	if s.target.Namespace == "" {
		s.target.Namespace = req.Namespace
	}
	fail := func(n *yaml.Node, what string) error {
		return &SealedSecretError{Line: n.Line, Name: s.target.display(), Err: errors.New(what)}
	}
	spec := child(n, "spec")
	if data := child(spec, "encryptedData"); data != nil && data.ShortTag() != "!!null" {
		if data.Kind != yaml.MappingNode {
			return fail(data, "encryptedData is not a map")
		}
		s.line = data.Line
		for i := 0; i+1 < len(data.Content); i += 2 {
			key, value := data.Content[i], data.Content[i+1]
			if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" || value.Kind != yaml.ScalarNode || value.ShortTag() != "!!str" {
				return fail(key, "encryptedData holds something that is not a text; aliases are not supported")
			}
			s.values = append(s.values, foundValue{JoinPath("encryptedData", key.Value), value})
		}
	}
	if blob := child(spec, "data"); blob != nil && blob.Kind == yaml.ScalarNode && blob.ShortTag() == "!!str" && blob.Value != "" {
		s.values = append(s.values, foundValue{"data", blob}) // deprecated: the whole Secret in one
	}
	*out = append(*out, s)
	return nil
}

// child is the value of a key of a map, or nil; aliases are followed.
func child(n *yaml.Node, key string) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func textOf(n *yaml.Node) string {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil || n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return ""
	}
	return n.Value
}

// onlyValuesChanged reads the new file and compares it with the old one, except for
// the values, which must open where a key for them is held.
func onlyValuesChanged(req SealedSecretsRequest, file []byte, before []foundSealedSecret) bool {
	again := req
	again.File = file
	after, err := findSealedSecrets(again)
	if err != nil || len(after) != len(before) {
		return false
	}
	for i, s := range after {
		if s.target != before[i].target || len(s.values) != len(before[i].values) {
			return false
		}
		for j, v := range s.values {
			old := before[i].values[j]
			if v.field != old.field || v.node.Value == old.node.Value {
				return false
			}
			at := slices.IndexFunc(req.Keys, func(k CertificateKey) bool { return k.cert.Fingerprint() == req.To.Fingerprint() })
			if at < 0 {
				continue
			}
			was, _, errWas := old.open(req.Keys, s.target)
			is, _, errIs := v.open(req.Keys[at:at+1], s.target)
			if errWas != nil || errIs != nil || !was.Equal(is) {
				return false
			}
		}
	}
	return sameButValues(req.File, file, before, after)
}

// sameButValues compares what all documents say, with the sealed values taken out.
func sameButValues(a, b []byte, before, after []foundSealedSecret) bool {
	nodes := func(file []byte) ([]*yaml.Node, bool) {
		var out []*yaml.Node
		for d := yaml.NewDecoder(bytes.NewReader(file)); ; {
			var doc yaml.Node
			switch err := d.Decode(&doc); {
			case errors.Is(err, io.EOF):
				return out, true
			case err != nil:
				return nil, false
			}
			out = append(out, &doc)
		}
	}
	blank := func(docs []*yaml.Node, found []foundSealedSecret) {
		sealed := map[[2]int]bool{}
		for _, s := range found {
			for _, v := range s.values {
				sealed[[2]int{v.node.Line, v.node.Column}] = true
			}
		}
		for _, d := range docs {
			blankScalars(d, sealed)
		}
	}
	x, okX := nodes(a)
	y, okY := nodes(b)
	blank(x, before)
	blank(y, after)
	return okX && okY && slices.EqualFunc(x, y, sameText)
}

func blankScalars(n *yaml.Node, at map[[2]int]bool) {
	if n.Kind == yaml.ScalarNode && at[[2]int{n.Line, n.Column}] {
		n.Value = ""
	}
	for _, c := range n.Content {
		blankScalars(c, at)
	}
}

// sameText compares what two nodes say, and the comments and quotes with it.
func sameText(a, b *yaml.Node) bool {
	return a.Kind == b.Kind && a.ShortTag() == b.ShortTag() && a.Style == b.Style && a.Value == b.Value && a.Anchor == b.Anchor &&
		a.HeadComment == b.HeadComment && a.LineComment == b.LineComment && a.FootComment == b.FootComment &&
		slices.EqualFunc(a.Content, b.Content, sameText)
}
