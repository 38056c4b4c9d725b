package controller

import (
	"errors"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/reconcile"
	"github.com/gitseal/gitseal/source"
)

// Reasons of conditions, failures and events. docs/reasons.md has them all, with what
// to do.
const (
	Succeeded            = "ReconciliationSucceeded"
	Progressing          = "Progressing"
	ProgressingWithRetry = "ProgressingWithRetry"

	InvalidSpec           = "InvalidSpec"
	AccessDenied          = "AccessDenied"
	DependencyNotReady    = "DependencyNotReady"
	CredentialsFailed     = "CredentialsFailed"
	FetchFailed           = "FetchFailed"
	AuthenticationFailed  = "AuthenticationFailed"
	VerificationFailed    = "VerificationFailed"
	NotADescendant        = "NotADescendant"
	KeysFailed            = "KeysFailed"
	DecryptionFailed      = "DecryptionFailed"
	BuildFailed           = "BuildFailed"
	PlaintextSecretDenied = "PlaintextSecretDenied"
	RefusedByGate         = "RefusedByGate"
	OutsideNamespace      = "OutsideNamespace"
	Protected             = "Protected"
	PlanFailed            = "PlanFailed"
	ApplyFailed           = "ApplyFailed"
	PruneFailed           = "PruneFailed"
	PruneBlocked          = "PruneBlocked"
	HealthCheckFailed     = "HealthCheckFailed"
	WaveNotReady          = "WaveNotReady"
	DeletionFailed        = "DeletionFailed"
)

// byStage is the reason of a failure that says no more.
var byStage = map[reconcile.Stage]string{
	reconcile.Fetch: FetchFailed, reconcile.Keys: KeysFailed, reconcile.Decrypt: DecryptionFailed, reconcile.Build: BuildFailed,
	reconcile.Gate: RefusedByGate, reconcile.Plan: PlanFailed, reconcile.Apply: ApplyFailed, reconcile.Prune: PruneFailed, reconcile.Health: HealthCheckFailed,
}

// SyncError says what a Sync lacks before git can be looked at, or to be deleted.
type SyncError struct {
	Reason  string
	Stalled bool // nothing is tried again until somebody changes the Sync
	Err     error
}

func (e *SyncError) Error() string { return e.Err.Error() }
func (e *SyncError) Unwrap() error { return e.Err }

func stalled(reason string, err error) error {
	return &SyncError{Reason: reason, Stalled: true, Err: err}
}

// reasonOf finds the reason of a failure.
func reasonOf(err error) string {
	var of *SyncError
	var outside *reconcile.OutsideError
	var refusal decrypt.Refusal
	var waiting *DependencyError
	var verification *VerificationError
	var stage *reconcile.StageError
	var denied *source.DeniedError
	switch {
	case errors.As(err, &of):
		return of.Reason
	case errors.As(err, &outside):
		return OutsideNamespace
	case errors.As(err, &waiting):
		return DependencyNotReady
	case errors.As(err, &verification):
		return verification.Reason
	case errors.Is(err, reconcile.ErrProtected):
		return Protected
	case errors.As(err, &denied):
		return AccessDenied
	case errors.Is(err, source.ErrAuthentication), errors.Is(err, source.ErrHostKey):
		return AuthenticationFailed
	case errors.As(err, &refusal) && refusal.Reason == decrypt.ReasonPlaintextSecret:
		return PlaintextSecretDenied
	case errors.As(err, &stage):
		return byStage[stage.Stage]
	}
	return PlanFailed
}

// objectOf names the object or file that a failure is about, "" for a whole stage.
func objectOf(err error) string {
	var f apply.Failure
	var p decrypt.Problem
	var r decrypt.Refusal
	switch {
	case errors.As(err, &f):
		return f.ID.String()
	case errors.As(err, &r):
		return r.Object
	case errors.As(err, &p):
		return p.File
	}
	return ""
}

// stageOf is the stage that a failure happened in.
func stageOf(err error) reconcile.Stage {
	var stage *reconcile.StageError
	if errors.As(err, &stage) {
		return stage.Stage
	}
	return reconcile.Fetch
}
