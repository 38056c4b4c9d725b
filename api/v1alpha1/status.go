package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// SyncStatus is what became of a Sync. It holds names, counts and public
// fingerprints. It is written only when it changes.
type SyncStatus struct {
	// ObservedGeneration is the generation of the spec that the conditions are about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions: Ready, Reconciling, Stalled, Healthy.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Applied is the commit that is applied as a whole.
	// +optional
	Applied *Commit `json:"applied,omitempty"`

	// Attempted is the commit of the last pass, where that is another one.
	// +optional
	Attempted *Commit `json:"attempted,omitempty"`

	// Objects counts the objects.
	// +optional
	Objects ObjectCounts `json:"objects,omitzero"`

	// Keys count, for each key by its public fingerprint, the SOPS files and SealedSecrets
	// that it opens.
	// +optional
	// +listType=map
	// +listMapKey=fingerprint
	Keys []KeyCount `json:"keys,omitempty"`

	// Failures are the first failures of the last pass.
	// +optional
	// +listType=atomic
	Failures []Failure `json:"failures,omitempty"`

	// Warnings are the first things that were let through.
	// +optional
	// +listType=atomic
	Warnings []string `json:"warnings,omitempty"`

	// Unwatched are kinds of which drift is not seen when it happens: "polled" at each
	// interval, since the identity may not watch them, or "not seen", since the watch
	// fails; then nothing of the kind is pruned.
	// +optional
	// +listType=atomic
	Unwatched []string `json:"unwatched,omitempty"`

	// History is what was applied, the newest first; five entries at most.
	// +optional
	// +listType=atomic
	History []HistoryEntry `json:"history,omitempty"`

	// HandledReconcileAt is the value of the annotation gitseal.io/reconcile-at that
	// was dealt with last.
	// +optional
	HandledReconcileAt string `json:"handledReconcileAt,omitempty"`
}

// Commit of a repository.
type Commit struct {
	// Revision is the commit as it was found: main@sha1:….
	Revision string `json:"revision"`
	// Hash of the commit.
	Hash string `json:"hash"`
	// Subject is the first line of its message.
	// +optional
	Subject string `json:"subject,omitempty"`
	// Author is the name that the commit claims.
	// +optional
	Author string `json:"author,omitempty"`
	// Signers are who signed it, where verify is set: checked, not claimed.
	// +optional
	// +listType=atomic
	Signers []string `json:"signers,omitempty"`
}

// ObjectCounts counts objects.
type ObjectCounts struct {
	// Total of what git holds.
	Total int32 `json:"total"`
	// Failed of them were refused or not applied.
	// +optional
	Failed int32 `json:"failed,omitempty"`
	// Waiting for others, which failed or are not ready yet.
	// +optional
	Waiting int32 `json:"waiting,omitempty"`
	// Terminating were pruned, and are held by a finalizer.
	// +optional
	Terminating int32 `json:"terminating,omitempty"`
	// Fought are those that another writer changes again and again.
	// +optional
	Fought int32 `json:"fought,omitempty"`
}

// KeyCount is how much a key opened.
type KeyCount struct {
	// Fingerprint: an age recipient, "pgp" and an OpenPGP fingerprint, or the SHA256:… of a
	// SealedSecret certificate.
	Fingerprint string `json:"fingerprint"`
	Files       int32  `json:"files"`
}

// Failure of a stage, or of one object or file in it.
type Failure struct {
	// Stage of the pass.
	Stage string `json:"stage"`
	// Reason in one word, as in the conditions.
	Reason string `json:"reason"`
	// Object or file that failed.
	// +optional
	Object  string `json:"object,omitempty"`
	Message string `json:"message"`
}

// HistoryEntry is a commit that was applied.
type HistoryEntry struct {
	Revision string      `json:"revision"`
	Time     metav1.Time `json:"time"`
	// +optional
	Created int32 `json:"created,omitempty"`
	// +optional
	Adopted int32 `json:"adopted,omitempty"`
	// +optional
	Changed int32 `json:"changed,omitempty"`
	// +optional
	Pruned int32 `json:"pruned,omitempty"`
}

// Condition types. Ready is what users look at; the others are for tools that read
// kstatus.
const (
	Ready       = "Ready"
	Reconciling = "Reconciling"
	Stalled     = "Stalled"
	Healthy     = "Healthy"
)

// Annotations of a Sync.
const (
	// ReconcileAtAnnotation makes a pass at once, whenever its value changes.
	ReconcileAtAnnotation = "gitseal.io/reconcile-at"
	// PruneConfirmAnnotation names a commit for which pruneLimit does not hold.
	PruneConfirmAnnotation = "gitseal.io/prune-confirm"
	// SourceConfirmAnnotation lets objects be pruned although url or path changed: its
	// value is the new URL.
	SourceConfirmAnnotation = "gitseal.io/confirm-source"
	// AllowRollbackAnnotation names a commit that may be applied although it does not
	// descend from the one that is.
	AllowRollbackAnnotation = "gitseal.io/allow-rollback"
)

// Finalizer keeps a Sync until its objects are pruned, or given up.
const Finalizer = "gitseal.io/sync"
