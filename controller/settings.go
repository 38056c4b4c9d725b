package controller

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/reconcile"
	"github.com/gitseal/gitseal/source"
)

// Floor is what Syncs outside of the agent's own namespace, the tenants', can not go
// below. Binding is always Required for them: they share the agent's keys.
type Floor struct {
	// ServiceAccount is that of a tenant's Sync which names none; "" refuses such.
	ServiceAccount string
	MAC            crypto.MACPolicy        // Required where it is ""
	Plaintext      decrypt.PlaintextPolicy // Deny where it is ""
	Outside        decrypt.OutsidePolicy   // Deny where it is ""
}

// Validate reports an unknown value by name.
func (f Floor) Validate() error {
	return decrypt.Policy{MAC: f.MAC, Plaintext: f.Plaintext, Outside: f.Outside}.Validate()
}

// settings is what a Sync comes to under the agent's rules.
type settings struct {
	tenant    bool
	reconcile reconcile.Config
	source    source.Config // without credentials
	user      string        // to impersonate; "" for the agent itself
	force     bool

	gitSecret, keysSecret string
	verify                *v1alpha1.Verify
	allowRollback         string
	dependsOn             []name
}

// name of a Sync.
type name struct{ Namespace, Name string }

func (n name) String() string { return n.Namespace + "/" + n.Name }

// settingsOf reads a Sync. It is pure. Errors are *SyncError, stalled, with all that is wrong.
func (c Config) settingsOf(sync *v1alpha1.Sync) (settings, error) {
	spec := sync.Spec
	s := settings{
		tenant: c.tenant(sync), force: spec.Force,
		verify: spec.Source.Verify, allowRollback: sync.Annotations[v1alpha1.AllowRollbackAnnotation],
	}
	var denied, invalid []error
	s.gitSecret, s.keysSecret = nameOf(spec.Source.SecretRef), nameOf(spec.Decryption.KeysFrom)

	s.source = source.Config{URL: spec.Source.URL, Timeout: spec.Source.Timeout.Duration,
		Ref: refOf(spec.Source.Ref)}
	if local(s.source.URL) {
		invalid = append(invalid, errors.New("spec.source.url: a path on the agent's machine is not allowed"))
	} else if err := (source.Config{URL: s.source.URL, Ref: s.source.Ref}).Validate(); err != nil && s.gitSecret == "" {
		invalid = append(invalid, fmt.Errorf("spec.source: %w", err))
	}

	limit, err := apply.ParsePruneLimit(spec.PruneLimit)
	if err != nil {
		invalid = append(invalid, fmt.Errorf("spec.pruneLimit: %w", err))
	}
	ignore, err := apply.ParseIgnoreRules(spec.IgnoreRules())
	if err != nil {
		invalid = append(invalid, fmt.Errorf("spec.ignoreFields: %w", err))
	}
	policy, err := c.policyOf(spec.Decryption, s.tenant)
	denied = append(denied, err)
	s.user, err = c.userOf(sync)
	denied = append(denied, err)

	target := cmp.Or(spec.TargetNamespace, sync.Namespace)
	if s.tenant && target != sync.Namespace {
		denied = append(denied, fmt.Errorf("spec.targetNamespace: %s is not the namespace of the Sync, the only one that it may write to", target))
	}
	if s.tenant && spec.AllowProtected {
		denied = append(denied, fmt.Errorf("spec.allowProtected: only Syncs of namespace %s may have it", c.Namespace))
	}
	for _, d := range spec.DependsOn {
		n := name{cmp.Or(d.Namespace, sync.Namespace), d.Name}
		switch {
		case s.tenant && n.Namespace != sync.Namespace:
			denied = append(denied, fmt.Errorf("spec.dependsOn: Sync %s is of another namespace", n))
		case n == name{sync.Namespace, sync.Name}:
			invalid = append(invalid, errors.New("spec.dependsOn: the Sync names itself"))
		case !slices.Contains(s.dependsOn, n):
			s.dependsOn = append(s.dependsOn, n)
		}
	}

	s.reconcile = reconcile.Config{
		Owner: c.ownerOf(sync), SourceName: spec.Source.URL, Path: cmp.Or(spec.Path, "."), TargetNamespace: target, Policy: policy,
		Prune: spec.Prunes(), PruneLimit: limit, PruneConfirm: sync.Annotations[v1alpha1.PruneConfirmAnnotation],
		ConfirmSourceChange: sync.Annotations[v1alpha1.SourceConfirmAnnotation] == spec.Source.URL,
		Ignore:              ignore, Drift: reconcile.DriftMode(cmp.Or(spec.Drift, "Correct")),
		Interval: cmp.Or(spec.Interval.Duration, time.Minute), Audit: c.Audit,
		WaveTimeout: cmp.Or(spec.Timeout.Duration, 5*time.Minute),
	}
	if strings.Contains("/"+path.Clean(spec.Path)+"/", "/../") {
		invalid = append(invalid, fmt.Errorf("spec.path: %q leaves the repository", spec.Path))
	}
	if spec.RetryInterval != nil {
		s.reconcile.RetryLimit = spec.RetryInterval.Duration
	}
	if spec.Wait {
		s.reconcile.Wait = s.reconcile.WaveTimeout
	}
	if !spec.AllowProtected {
		s.reconcile.Protected = c.protectedFrom(sync)
	}
	if err := errors.Join(denied...); err != nil {
		return settings{}, stalled(AccessDenied, errors.Join(err, errors.Join(invalid...)))
	}
	if err := errors.Join(invalid...); err != nil {
		return settings{}, stalled(InvalidSpec, err)
	}
	return s, nil
}

func nameOf(r *v1alpha1.LocalReference) string {
	if r == nil {
		return ""
	}
	return r.Name
}

func refOf(r v1alpha1.Ref) source.Ref {
	return source.Ref{Branch: r.Branch, Tag: r.Tag, SemVer: r.SemVer, Commit: r.Commit}
}

// local reports whether a URL is a place on the agent's own machine.
func local(url string) bool {
	return strings.HasPrefix(url, "/") || strings.HasPrefix(url, ".") || strings.HasPrefix(url, "file:")
}

// userOf is whom the Sync's requests are made as.
func (c Config) userOf(sync *v1alpha1.Sync) (string, error) {
	account := sync.Spec.ServiceAccountName
	if account != "" || !c.tenant(sync) {
		return account, nil
	}
	if c.Floor.ServiceAccount == "" {
		return "", fmt.Errorf("spec.serviceAccountName: a Sync outside of namespace %s must name a service account of its own", c.Namespace)
	}
	return c.Floor.ServiceAccount, nil
}

// ownerOf names the Sync to package apply.
func (c Config) ownerOf(sync *v1alpha1.Sync) apply.Owner {
	o := apply.Owner{Namespace: sync.Namespace, Name: sync.Name, State: c.Namespace}
	if c.tenant(sync) {
		o.Within = sync.Namespace
	}
	return o
}

// tenant reports whether the Sync is a tenant's.
func (c Config) tenant(sync *v1alpha1.Sync) bool { return sync.Namespace != c.Namespace }

// policyOf is what a Sync asks for, where the floor allows it.
func (c Config) policyOf(d v1alpha1.Decryption, tenant bool) (decrypt.Policy, error) {
	p := decrypt.Policy{
		Binding: decrypt.BindingPolicy(d.Binding), MAC: crypto.MACPolicy(d.MAC), Plaintext: decrypt.PlaintextPolicy(d.PlaintextSecrets),
		Outside: decrypt.OutsidePolicy(d.OutsideSecrets), SealedSecrets: decrypt.SealedSecretPolicy(d.SealedSecrets), DeprecatedData: d.AcceptDeprecatedV1Data,
	}
	if err := p.Validate(); err != nil || !tenant {
		return p, err
	}
	var errs []error
	atLeast(&errs, "binding", &p.Binding, decrypt.BindingRequired, decrypt.BindingRequired, decrypt.BindingIfPresent)
	atLeast(&errs, "mac", &p.MAC, c.Floor.MAC, crypto.MACRequired, crypto.MACWarn)
	atLeast(&errs, "plaintextSecrets", &p.Plaintext, c.Floor.Plaintext, decrypt.PlaintextDeny, decrypt.PlaintextWarn, decrypt.PlaintextAllow)
	atLeast(&errs, "outsideSecrets", &p.Outside, c.Floor.Outside, decrypt.OutsideDeny, decrypt.OutsideAllow)
	return p, errors.Join(errs...)
}

// atLeast refuses a policy that is looser than the floor. Where none is asked for it
// is the floor.
func atLeast[P ~string](errs *[]error, field string, asked *P, floor P, strictestFirst ...P) {
	floor = cmp.Or(floor, strictestFirst[0])
	*asked = cmp.Or(*asked, floor)
	if slices.Index(strictestFirst, *asked) > slices.Index(strictestFirst, floor) {
		*errs = append(*errs, fmt.Errorf("spec.decryption.%s: %s is looser than %s, which the agent requires of Syncs in this namespace", field, *asked, floor))
	}
}
