package apply

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Evidence is what the cluster's metadata says about our last apply: the
// fields that we own. While it stays the same nobody has changed or removed a
// value that we applied (reference: docs/adr/0004-evidence.md).
type Evidence struct {
	UID    string `json:"u,omitempty"`
	Fields string `json:"f,omitempty"` // digest of our managedFields entry; "" if there is none
	// Replicas: spec.replicas is ours too. It is no part of Fields, since an
	// autoscaler may take it over.
	Replicas bool `json:"s,omitempty"`
}

// evidenceOf reads it from metadata. resourceVersion is not part of it: every
// status update changes that. Nor are the fields that others may take over, which
// are given as managedFields write them.
func evidenceOf(m metav1.Object, manager, ignored string) Evidence {
	e := Evidence{UID: string(m.GetUID())}
	for _, f := range m.GetManagedFields() {
		if !isOurs(f, manager) {
			continue
		}
		h := sha256.New()
		if f.Time != nil { // it can be missing after managedFields were cleared
			_, _ = h.Write([]byte(f.Time.UTC().Format(time.RFC3339))) // a hash never fails
		}
		_, _ = h.Write([]byte("\x00" + f.APIVersion + "\x00"))
		if f.FieldsV1 != nil {
			fields, replicas := ourFields(f, ignored)
			_, _ = h.Write(fields)
			e.Replicas = replicas
		}
		e.Fields = hex.EncodeToString(h.Sum(nil)[:12])
	}
	return e
}

func isOurs(f metav1.ManagedFieldsEntry, manager string) bool {
	return f.Manager == manager && f.Operation == metav1.ManagedFieldsOperationApply && f.Subresource == ""
}

// ourFields is an entry without what others may take over, and whether it has
// spec.replicas.
func ourFields(f metav1.ManagedFieldsEntry, ignored string) (fields []byte, hasReplicas bool) {
	raw := f.FieldsV1.GetRawBytes()
	if ignored == "" && !bytes.Contains(raw, []byte(`"f:replicas"`)) {
		return raw, false // nearly always
	}
	set, err := fieldSet(f)
	if err != nil {
		return raw, false
	}
	set = set.RecursiveDifference(ignoredSet(ignored))
	hasReplicas = set.Has(replicasPath)
	set = set.Difference(fieldpath.NewSet(replicasPath))
	if b, err := set.ToJSON(); err == nil {
		raw = b
	}
	return raw, hasReplicas
}

// holds reports whether the cluster still shows the evidence of our last apply.
func (e Evidence) holds(m metav1.Object, manager, ignored string) bool {
	now := evidenceOf(m, manager, ignored)
	if e.Replicas && !now.Replicas && autoscaled(m) {
		now.Replicas = true
	}
	return now == e
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:10])
}

// foreignManager names who wrote last besides us, for messages.
func foreignManager(m metav1.Object, manager string) string {
	var name, untimed string // the API server leaves no time on the entry of scale
	var at time.Time
	for _, f := range m.GetManagedFields() {
		if f.Manager == manager || f.Subresource == "status" {
			continue
		}
		if f.Time == nil {
			untimed = f.Manager
			continue
		}
		if !f.Time.Time.Before(at) {
			name, at = f.Manager, f.Time.Time
		}
	}
	return cmp.Or(name, untimed)
}
