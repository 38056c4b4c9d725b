package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/decrypt"
)

// diffTerms are the agent's own, as its flags or a Sync have them.
type diffTerms struct {
	owner           apply.Owner
	targetNamespace string
	sealedSecrets   decrypt.SealedSecretPolicy
	ignore          []apply.IgnoreRule
	prune           bool
	limit           apply.PruneLimit

	of     *v1alpha1.Sync // nil where flags say all
	folder string         // of the repository, of a Sync
}

// terms reads the flags, and the Sync that they name.
func (o diffOptions) terms(ctx context.Context) (diffTerms, error) {
	if o.sync == "" {
		t := diffTerms{owner: apply.Owner{Namespace: o.namespace, Name: o.name}, targetNamespace: o.targetNamespace, prune: o.prune}
		if t.targetNamespace == "" {
			t.targetNamespace = "default"
		}
		err := t.read(o.sealedSecrets, o.ignoreFields, o.pruneLimit, "--prune-limit", "--ignore-fields")
		return t, err
	}
	flags := syncFlags{clusterFlags: o.clusterFlags, namespace: o.targetNamespace}
	names, err := flags.namesOf([]string{o.sync})
	if err != nil {
		return diffTerms{}, err
	}
	s, err := flags.connect()
	if err != nil {
		return diffTerms{}, err
	}
	found, err := s.find(ctx, names)
	if err != nil {
		return diffTerms{}, err
	}
	sync := found[0].Sync
	t := diffTerms{
		owner: apply.Owner{Namespace: sync.Namespace, Name: sync.Name, State: o.namespace}, targetNamespace: sync.Spec.TargetNamespace,
		prune: o.prune && sync.Spec.Prunes(), of: &sync, folder: path.Clean("/" + sync.Spec.Path)[1:],
	}
	if t.folder == "" {
		t.folder = "."
	}
	if t.targetNamespace == "" {
		t.targetNamespace = sync.Namespace
	}
	if sync.Namespace != o.namespace {
		t.owner.Within = sync.Namespace
	}
	err = t.read(sync.Spec.Decryption.SealedSecrets, sync.Spec.IgnoreRules(), sync.Spec.PruneLimit, sync.Name+": spec.pruneLimit", sync.Name+": spec.ignoreFields")
	return t, err
}

// read takes what has to be parsed; limitName and ignoreName are for errors.
func (t *diffTerms) read(sealedSecrets string, ignoreFields []string, pruneLimit, limitName, ignoreName string) error {
	t.sealedSecrets = decrypt.SealedSecretPolicy(sealedSecrets)
	var errs []error
	if err := (decrypt.Policy{SealedSecrets: t.sealedSecrets}).Validate(); err != nil {
		errs = append(errs, err)
	}
	var err error
	if t.limit, err = apply.ParsePruneLimit(pruneLimit); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", limitName, err))
	}
	if t.ignore, err = apply.ParseIgnoreRules(ignoreFields); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w", ignoreName, err))
	}
	return errors.Join(errs...)
}

// known is what the agent knows of the cluster, as far as the user may see it.
type known struct {
	inventory     apply.Inventory
	drifted, held map[apply.ID]string
	byLabels      bool
}

// inventory is the agent's. Who may not read that gets what the labels of a Sync's objects
// tell, which says nothing of drift.
func (t diffTerms) inventory(ctx context.Context, r *apply.Runner, warn io.Writer) (k known, err error) {
	k.inventory, err = r.Store.Load(ctx)
	switch {
	case err == nil:
		k.drifted, k.held, err = r.Survey(ctx, k.inventory)
		return k, err
	case t.of == nil || !apierrors.IsForbidden(err):
		return k, err
	}
	listing, err := r.Cluster.Members(ctx, []apply.Owner{t.owner})
	if err != nil {
		return k, err
	}
	k.inventory, k.byLabels = listing.Inventory(t.owner), true
	if t.of.Status.Applied != nil {
		k.inventory.Commit, k.inventory.Source = t.of.Status.Applied.Hash, t.of.Spec.Source.URL+"//"+t.folder
	}
	fmt.Fprintln(warn, "warning: you may not read the agent's inventory, so changes made in the cluster do not show: only what differs in git")
	var unlisted []string
	for _, u := range listing.Unlisted {
		if u.Namespaced || u.Kind.Kind == "" || t.owner.Within == "" {
			unlisted = append(unlisted, cmp.Or(u.Kind.Kind, "all of "+u.Kind.Group))
		}
	}
	if len(unlisted) > 0 {
		fmt.Fprintf(warn, "warning: you may not list %s: what would be pruned of these does not show\n", strings.Join(unlisted, ", "))
	}
	return k, nil
}
