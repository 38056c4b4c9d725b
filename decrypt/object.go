package decrypt

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/gitseal/gitseal/crypto"
)

// Object is one rendered object that passed the gate. It holds placeholders
// only, so it may be printed and logged.
type Object struct {
	// Masked is what git says. A Secret has no stringData: it was turned into
	// data, because an apply of stringData owns that field only. For a
	// SealedSecret it is the Secret that it stands for, without values.
	// It must not be changed.
	Masked *unstructured.Unstructured
	// Input is a keyed digest of everything that decides the body: the masked
	// object or, for a SealedSecret, its ciphertext and the keys that are held.
	// An equal Input means an equal body, without opening anything.
	Input string

	masked  *Masked
	sealed  *sealedSecret // nil unless it came from a SealedSecret
	outside bool          // values are put outside of a Secret's data, too
	without [][]string    // fields that are not sent
}

// FromSealedSecret reports whether the object is the Secret that a SealedSecret
// of the same name stands for.
func (o Object) FromSealedSecret() bool { return o.sealed != nil }

// GroupVersionKind is that of the object that is applied.
func (o Object) GroupVersionKind() schema.GroupVersionKind { return o.Masked.GroupVersionKind() }

// Namespace is empty for cluster-scoped objects and where git named none.
func (o Object) Namespace() string { return o.Masked.GetNamespace() }

// Name is the object's name.
func (o Object) Name() string { return o.Masked.GetName() }

// String is Kind/namespace/name, for messages.
func (o Object) String() string { return describe(o.Masked) }

// CarriesPlaintext reports whether Body reveals sealed values, so that the
// server's answers to it must not be repeated.
func (o Object) CarriesPlaintext() bool { return isSecret(o.Masked) || o.outside }

// Renamed is the object under another name, for a dry run.
func (o Object) Renamed(name string) Object {
	o.Masked = o.Masked.DeepCopy()
	o.Masked.SetName(name)
	return o
}

// Without is the object without some fields, each given by the steps to it: the
// names of fields, and the numbers of list items. What is not there is no error.
func (o Object) Without(fields ...[]string) Object {
	o.without = slices.Concat(o.without, fields)
	return o
}

// Shown is what git says, less the fields that are not sent.
func (o Object) Shown() *unstructured.Unstructured {
	u := o.Masked.DeepCopy()
	dropFields(u.Object, o.without)
	return u
}

// Body is the JSON to send, with labels added and values put back, and a keyed
// digest of it. Errors are safe to print and name the field and its source; the
// caller names the object.
func (o Object) Body(labels map[string]string) (crypto.Secret, string, error) {
	if o.masked == nil {
		return crypto.Secret{}, "", errors.New("was rendered without keys and can not be sent")
	}
	u := o.Masked.DeepCopy()
	if o.sealed != nil {
		if err := o.sealed.open(o.masked, u); err != nil {
			return crypto.Secret{}, "", o.masked.inFiles(err, "SealedSecret", u.GetName())
		}
	} else if isSecret(u) {
		if err := o.masked.putBackSecret(u); err != nil {
			return crypto.Secret{}, "", o.masked.inFiles(err, u.GetKind(), u.GetName())
		}
	}
	if o.outside {
		o.masked.putBackOutside(u)
	}
	return o.finish(u, labels)
}

// Volatile reports whether Body would render a template that gives another
// result each time.
func (o Object) Volatile() bool {
	if o.sealed == nil || !o.sealed.volatile {
		return false
	}
	_, rendered := keep(o.masked.cache, o.masked.cache.outs, o.sealed.outKey())
	return !rendered
}

// BodyWith is Body with the values that the Secret has in the cluster, for one
// that is Volatile: where its digest is that of the last apply, nothing needs to
// be rendered. ok is false where a value is missing.
func (o Object) BodyWith(labels map[string]string, live map[string]crypto.Secret) (body crypto.Secret, digest string, ok bool) {
	u := o.Masked.DeepCopy()
	data := map[string]any{}
	for _, keys := range []map[string]string{o.sealed.encrypted, o.sealed.templates} {
		for key := range keys {
			value, found := live[key]
			if !found {
				return crypto.Secret{}, "", false
			}
			data[key] = base64.StdEncoding.EncodeToString(value.Reveal())
		}
	}
	u.Object["data"] = data
	body, digest, err := o.finish(u, labels)
	return body, digest, err == nil
}

func (o Object) finish(u *unstructured.Unstructured, labels map[string]string) (crypto.Secret, string, error) {
	all := u.GetLabels()
	if all == nil {
		all = map[string]string{}
	}
	for k, v := range labels {
		all[k] = v
	}
	u.SetLabels(all)
	dropFields(u.Object, o.without)
	withoutEmpty(u)
	b, err := json.Marshal(u.Object)
	if err != nil {
		return crypto.Secret{}, "", errors.New("can not be written as JSON")
	}
	return crypto.NewSecret(b), o.masked.digester.Digest("body", b), nil
}

// withoutEmpty drops maps that say nothing but would be owned: what others add to
// one would look like drift.
func withoutEmpty(u *unstructured.Unstructured) {
	drop := func(in map[string]any, fields ...string) {
		for _, field := range fields {
			if m, ok := in[field].(map[string]any); ok && len(m) == 0 {
				delete(in, field)
			}
		}
	}
	meta, _ := u.Object["metadata"].(map[string]any)
	drop(meta, "annotations")
	if u.GroupVersionKind().Group == "" {
		drop(u.Object, "data", "binaryData")
	}
}

func describe(u *unstructured.Unstructured) string {
	if ns := u.GetNamespace(); ns != "" {
		return u.GetKind() + "/" + ns + "/" + u.GetName()
	}
	return u.GetKind() + "/" + u.GetName()
}

func isSecret(u *unstructured.Unstructured) bool {
	gvk := u.GroupVersionKind()
	return gvk.Kind == "Secret" && gvk.Group == ""
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
