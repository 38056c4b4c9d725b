package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/source"
	"github.com/gitseal/gitseal/verify"
)

// verification is what a Sync asks of commits that are new to it.
type verification struct {
	policy   verify.Policy
	settings settings
	applied  v1alpha1.Commit // before this loop; its zero value for none
	admitted *admission
	read     func(context.Context) (verify.Policy, error)
	noted    func(signers []string) // of the commit that is about to be let in
}

// verification reads the signers' keys as the one whom the Sync writes as; nil where
// nothing must be signed.
func (l *loop) verification(ctx context.Context, cluster *apply.Cluster, a *admission) (*verification, error) {
	want := l.settings.verify
	if want == nil {
		return nil, nil
	}
	v := &verification{settings: l.settings, admitted: a, applied: l.applied, noted: l.note}
	v.read = func(ctx context.Context) (verify.Policy, error) { return l.policy(ctx, cluster, want) }
	var err error
	v.policy, err = v.read(ctx)
	return v, err
}

func (l *loop) policy(ctx context.Context, cluster *apply.Cluster, want *v1alpha1.Verify) (verify.Policy, error) {
	p := verify.Policy{Mode: verify.Mode(want.Mode)}
	var err error
	if p.Keys, err = l.signersOf(ctx, cluster, want.SecretRef.Name); err != nil {
		return p, err
	}
	for _, folder := range want.Paths {
		keys, err := l.signersOf(ctx, cluster, folder.SecretRef.Name)
		if err != nil {
			return p, err
		}
		p.Paths = append(p.Paths, verify.PathRule{Prefix: folder.Path, Keys: keys})
	}
	if err := p.Validate(); err != nil {
		return p, &SyncError{Reason: InvalidSpec, Err: fmt.Errorf("spec.source.verify: %w", err)}
	}
	return p, nil
}

func (l *loop) signersOf(ctx context.Context, cluster *apply.Cluster, secret string) (verify.Keys, error) {
	data, err := l.secret(ctx, cluster, secret)
	if err != nil {
		return verify.Keys{}, err
	}
	keys, err := verify.ParseKeys(data)
	if err != nil {
		return verify.Keys{}, &SyncError{Reason: CredentialsFailed, Err: fmt.Errorf("secret %s/%s: %w", l.sync.Namespace, secret, err)}
	}
	return keys, nil
}

// check lets a commit in that is signed by somebody who may, and that goes forward.
func (v *verification) check(ctx context.Context, commit *source.Commit) error {
	refuse := func(reason string, err error) error {
		return &VerificationError{Reason: reason, Commit: commit.Hash, Err: err}
	}
	before := v.before(ctx)
	signed := verify.Signed{Commit: commit.Raw, Tag: commit.RawTag, TagName: tagOf(commit.Ref), Now: time.Now()}
	if before != nil {
		signed.Changes = verify.Only(commit.Tree.ChangedSince(before.Tree))
	}
	signers, err := v.policy.Check(signed)
	if err != nil { // the keys may have been changed since they were read
		if p, readErr := v.read(ctx); readErr == nil {
			v.policy = p
			signers, err = p.Check(signed)
		}
	}
	if err != nil {
		return refuse(VerificationFailed, err)
	}
	if err := v.forward(ctx, commit); err != nil {
		var undecided *undecidedError
		if errors.As(err, &undecided) {
			return fmt.Errorf("commit %.12s: %w", commit.Hash, err)
		}
		return refuse(NotADescendant, err)
	}
	var names []string
	for _, s := range signers {
		names = append(names, s.String())
	}
	v.noted(names)
	return nil
}

// before is the last good commit, where path rules need its tree.
func (v *verification) before(ctx context.Context) *source.Commit {
	if len(v.policy.Paths) > 0 {
		v.admitted.fallBack(ctx)
	}
	return v.admitted.good
}

// undecidedError says why it could not be found out whether a commit goes forward.
type undecidedError struct{ err error }

func (e *undecidedError) Error() string { return e.err.Error() }
func (e *undecidedError) Unwrap() error { return e.err }

// forward refuses a commit that would bring back what was left behind: somebody who may
// push, and not sign, could replay an old signed one. A tag that is itself signed
// answers for its version; where only the commit is, anybody could have tagged it.
func (v *verification) forward(ctx context.Context, commit *source.Commit) error {
	base := v.applied
	if g := v.admitted.good; g != nil {
		base = v1alpha1.Commit{Hash: g.Hash, Revision: g.Ref}
	}
	allowed := v.settings.allowRollback == commit.Hash || v.settings.source.Ref.Commit == commit.Hash
	if base.Hash == "" || base.Hash == commit.Hash || allowed {
		return nil
	}
	how := fmt.Sprintf("; to apply it nevertheless annotate the Sync with %s: %s", v1alpha1.AllowRollbackAnnotation, commit.Hash)
	was, is := tagOf(base.Revision), tagOf(commit.Ref)
	if v.settings.source.Ref.SemVer != "" && source.LowerVersion(is, was) {
		return fmt.Errorf("%s is a lower version than %s, which is applied%s", is, was, how)
	}
	if v.settings.source.Ref.SemVer != "" && v.policy.Mode != verify.Head && v.policy.Mode != "" && source.LowerVersion(was, is) {
		return nil
	}
	forward, err := v.admitted.git.repository.source.Descends(ctx, commit, base.Hash)
	switch {
	case err != nil:
		return &undecidedError{fmt.Errorf("find out whether it descends from %.12s, which is applied: %w", base.Hash, err)}
	case !forward:
		return fmt.Errorf("does not descend from %.12s, which is applied%s", base.Hash, how)
	}
	return nil
}

// tagOf is the name of a tag or branch in a revision such as v1.2.3@sha1:….
func tagOf(revision string) string {
	i := strings.LastIndex(revision, "@sha1:")
	if i < 0 {
		return ""
	}
	return revision[:i]
}
