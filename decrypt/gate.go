package decrypt

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/crypto"
)

const (
	plaintextAnnotation = "gitseal.io/plaintext"
	keyLabel            = "gitseal.io/key"
	encHead             = "ENC[AES256_GCM,"
)

// Masked is one pass over a tree: what its placeholders stand for, and the
// rules for putting them back.
type Masked struct {
	opener
	values       *values
	named        func() map[string][]namedObject // what the files that were read name, by kind
	keys         Keys
	certificates []crypto.CertificateKey
	certDigest   string
}

// Pass ends masking: the result resolves the placeholders of every file that
// was read so far.
func (m *Masker) Pass() *Masked {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := maps.Clone(m.files)
	return &Masked{
		opener: m.opener, values: m.values.clone(), named: sync.OnceValue(func() map[string][]namedObject { return indexFiles(files) }), keys: m.keys, certificates: m.certificates,
		certDigest: crypto.CertificatesDigest(m.certificates),
	}
}

// Gated is what the gate lets through and what it does not.
type Gated struct {
	Objects  []Object
	Refused  []Refusal // in the order of objects
	Warnings []Refusal // let through all the same
	// SealedTo counts the SealedSecrets of Objects by the fingerprint of each key that
	// they need; that of a Masker are the files.
	SealedTo map[string]int
}

// Gate checks rendered objects. Nothing of a refused object may be sent, and
// nothing may be pruned while there is a refusal. The objects are not changed.
func (m *Masked) Gate(objects []*unstructured.Unstructured) Gated {
	var out Gated
	for _, u := range objects {
		g := &gate{masked: m, rendered: u, object: describe(u)}
		g.target.Namespace, g.target.Name = g.place(u)
		g.target.Group, g.target.Kind = u.GroupVersionKind().Group, u.GetKind()
		var o Object
		if isSealedSecret(u) && m.policy.SealedSecrets != PassThrough {
			g.target.Group, g.target.Kind = "", "Secret"
			o = g.sealedSecret(u)
		} else {
			o = g.plain(&unstructured.Unstructured{Object: maps.Clone(u.Object)}) // only the top is changed
		}
		out.Warnings = append(out.Warnings, g.warnings...)
		if g.refusal != nil {
			g.refusal.Files, g.refusal.Annotations, g.refusal.Renamed = m.filesOf(u), u.GetAnnotations(), m.renamed(u)
			out.Refused = append(out.Refused, *g.refusal)
			continue
		}
		o.masked, o.outside = m, g.outside
		if o.sealed != nil {
			if out.SealedTo == nil {
				out.SealedTo = map[string]int{}
			}
			for _, key := range o.sealed.needs(m) {
				out.SealedTo[key]++
			}
		}
		out.Objects = append(out.Objects, o)
	}
	return out
}

// gate judges one object; the first refusal counts.
type gate struct {
	masked   *Masked
	rendered *unstructured.Unstructured
	object   string
	target   Target
	refusal  *Refusal
	warnings []Refusal
	whole    []string // digests of the whole files that the object holds
	outside  bool     // a value may be put outside of a Secret's data
}

func (g *gate) refuse(reason Reason, field, format string, args ...any) {
	if g.refusal == nil {
		g.refusal = &Refusal{Object: g.object, Target: g.target, Field: field, Reason: reason, Message: fmt.Sprintf(format, args...)}
	}
}

func (g *gate) plain(u *unstructured.Unstructured) Object {
	g.structure(u)
	g.reserved(u)
	if _, ok := u.Object["sops"]; ok {
		g.refuse(ReasonStillSealed, "sops", "the object carries sops metadata but its file was not opened; is it one of several documents in a file that sops itself would refuse?")
	}
	if isSecret(u) {
		g.secretData(u)
	}
	g.rest(u.Object, "", isSecret(u))
	if g.refusal != nil {
		return Object{}
	}
	b, err := json.Marshal(u.Object)
	if err != nil {
		g.refuse(ReasonInvalidSecret, "", "can not be written as JSON")
		return Object{}
	}
	parts := [][]byte{b}
	for _, digest := range g.whole {
		parts = append(parts, []byte(digest))
	}
	return Object{Masked: u, Input: g.masked.digester.Digest("input", parts...)}
}

// structure comes first: with a sealed kind, say, all else is a consequence.
func (g *gate) structure(u *unstructured.Unstructured) {
	for _, path := range [][]string{{"apiVersion"}, {"kind"}, {"metadata", "name"}, {"metadata", "namespace"}} {
		if text, _, err := unstructured.NestedString(u.Object, path...); err == nil {
			g.scalar(text, strings.Join(path, "."))
		}
	}
}

func (g *gate) reserved(u *unstructured.Unstructured) {
	if _, ok := u.GetLabels()[keyLabel]; ok {
		g.refuse(ReasonReserved, "metadata.labels", "the label %s marks gitseal's private keys and may not come from git", keyLabel)
	}
}

// secretData turns stringData into data and judges each value of it.
func (g *gate) secretData(u *unstructured.Unstructured) {
	data, err := secretValues(u)
	if err != nil {
		g.refuse(ReasonInvalidSecret, err.field, "%s", err.what)
		return
	}
	if len(data) > 0 {
		u.Object["data"] = data
	} else {
		delete(u.Object, "data")
	}
	delete(u.Object, "stringData")
	for _, key := range sortedKeys(data) {
		g.value(u, key, data[key].(string))
	}
}

// value judges one value of a Secret.
func (g *gate) value(u *unstructured.Unstructured, key, text string) {
	field := crypto.JoinPath("data", key)
	plain := decoded(text)
	if inner, ok := g.pasted(field, key, plain); ok {
		if g.refusal != nil {
			return
		}
		text, plain = inner, ""
		u.Object["data"].(map[string]any)[key] = text
	}
	if isSealed(text) || isSealed(plain) {
		g.refuse(ReasonStillSealed, field, "the value is still sealed; the sops metadata of its file is missing or was not recognised")
		return
	}
	r := resolver{values: g.masked.values}
	if _, err := r.data(text); err != nil {
		g.unresolved(field, err)
		return
	}
	g.whole = append(g.whole, r.whole...)
	allowed := g.masked.policy.Plaintext
	switch {
	case len(r.tokens) > 0:
		g.bindings(u, field, r.tokens)
	case text == "" || u.Object["type"] == "kubernetes.io/service-account-token":
	case allowed == PlaintextAllow:
	case allowed == PlaintextWarn:
		if u.GetAnnotations()[plaintextAnnotation] != "allow" {
			g.warnings = append(g.warnings, Refusal{Object: g.object, Target: g.target, Field: field, Reason: ReasonPlaintextSecret, Message: "the value lies in git in the clear"})
		}
	default:
		g.refuse(ReasonPlaintextSecret, field, "the value lies in git in the clear; seal the file with `seal encrypt`, or let it pass with --plaintext-secrets Warn, which the annotation %s: allow makes silent", plaintextAnnotation)
	}
}

// unresolved says why a value can not be put back.
func (g *gate) unresolved(field string, err error) {
	var notOpened *unopenedError
	switch {
	case errors.As(err, &notOpened):
		g.refuse(ReasonNotOpened, field, "its value comes from %s, which could not be opened", notOpened.file)
	case errors.Is(err, errNotBase64):
		g.refuse(ReasonInvalidSecret, field, "%v", err)
	default:
		g.refuse(ReasonPlaceholderBroken, field, "%v", err)
	}
}

// sealedLeaf is a value as sops seals it, wherever it stands in a text.
var sealedLeaf = regexp.MustCompile(`ENC\[AES256_GCM,data:[A-Za-z0-9+/=]*,iv:`)

func isSealed(text string) bool {
	return strings.HasPrefix(text, encHead) || sealedLeaf.MatchString(text)
}

// decoded is the text that base64 stands for, or "".
func decoded(text string) string {
	plain, err := base64.StdEncoding.DecodeString(whiteSpace.Replace(text))
	if err != nil {
		return ""
	}
	return string(plain)
}

// rest walks everything but a Secret's data: no placeholder, no sealed value.
func (g *gate) rest(v any, path string, skipData bool) {
	if g.refusal != nil {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range sortedKeys(v) {
			if skipData && path == "" && k == "data" {
				data, _ := v[k].(map[string]any)
				for _, key := range sortedKeys(data) {
					g.scalar(key, crypto.JoinPath(k, key))
				}
				continue
			}
			at := crypto.JoinPath(path, k)
			g.scalar(k, at)
			if text, ok := v[k].(string); ok && g.mayGoOutside(text, at) {
				continue
			}
			g.rest(v[k], at, skipData)
		}
	case []any:
		for i, item := range v {
			at := path + "[" + strconv.Itoa(i) + "]"
			if text, ok := item.(string); ok && g.mayGoOutside(text, at) {
				continue
			}
			g.rest(item, at, skipData)
		}
	case string:
		g.scalar(v, path)
	}
}

// listKey reports whether kustomize or the API server tells the items of a list of
// a built-in kind apart by this field: under a placeholder they would be others.
func (g *gate) listKey(path string) bool {
	group := g.rendered.GroupVersionKind().Group
	return (!strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io")) && listKeys.MatchString(path)
}

var listKeys = regexp.MustCompile(`\]\.(?:name|port|containerPort|protocol|mountPath|devicePath|ip|key|topologyKey|uid|type|namespace)$`)

func structuralField(path string) bool {
	switch path {
	case "apiVersion", "kind", "metadata.name", "metadata.namespace":
		return true
	}
	return false
}

func (g *gate) scalar(text, path string) {
	if isSealed(text) || isSealed(decoded(text)) {
		g.refuse(ReasonStillSealed, path, "the value is still sealed; only files that sops metadata belongs to are opened")
		return
	}
	token := findToken(text)
	if token == "" {
		if headPattern.MatchString(text) && g.masked.keys != nil && strings.Contains(text, openedHead) {
			g.refuse(ReasonPlaceholderBroken, path, "%v", errFragment)
		}
		return
	}
	if file, ok := g.masked.values.missing[token]; ok {
		g.refuse(ReasonNotOpened, path, "it was rendered from %s, which could not be opened", file)
		return
	}
	if _, ok := g.masked.values.sealed[token]; !ok {
		g.refuse(ReasonPlaceholderBroken, path, "%v", errUnknown)
		return
	}
	switch {
	case structuralField(path), g.masked.policy.Outside == OutsideAllow && g.listKey(path):
		g.refuse(ReasonStructureSealed, path, "%s seals this field, which must stay readable; seal it again with encrypted_regex: %s", g.masked.values.file(token), crypto.KubernetesSelector)
	default:
		g.refuse(ReasonPlaceholderOutsideSecret, path, "a sealed value of %s would be shown here; sealed values may only go into a Secret's data or stringData (or, with --outside-secrets Allow, into the very field that was sealed, if its file's MAC covers the kind of the object, which it does not with mac_only_encrypted)", g.masked.values.file(token))
	}
}
