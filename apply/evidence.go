package apply

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Evidence is what the cluster's metadata says about our last apply: the
// fields that we own. While it stays the same nobody has changed or removed a
// value that we applied (reference: docs/adr/0004-evidence.md).
type Evidence struct {
	UID    string `json:"u,omitempty"`
	Fields string `json:"f,omitempty"` // digest of our managedFields entry; "" if there is none
}

// evidenceOf reads it from metadata. resourceVersion is not part of it: every
// status update changes that.
func evidenceOf(m metav1.Object, manager string) Evidence {
	e := Evidence{UID: string(m.GetUID())}
	for _, f := range m.GetManagedFields() {
		if f.Manager != manager || f.Operation != metav1.ManagedFieldsOperationApply || f.Subresource != "" {
			continue
		}
		h := sha256.New()
		if f.Time != nil { // it can be missing after managedFields were cleared
			_, _ = h.Write([]byte(f.Time.UTC().Format(time.RFC3339))) // a hash never fails
		}
		_, _ = h.Write([]byte("\x00" + f.APIVersion + "\x00"))
		if f.FieldsV1 != nil {
			_, _ = h.Write(f.FieldsV1.GetRawBytes())
		}
		e.Fields = hex.EncodeToString(h.Sum(nil)[:12])
	}
	return e
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
