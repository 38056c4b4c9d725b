package build

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
)

// runKustomize builds with kustomize's library. Files outside the folder may
// be named (Flux allows it too); the tree is the border.
func runKustomize(ctx context.Context, tree *record, dir string, order Order) (objects []*unstructured.Unstructured, err error) {
	defer func() {
		if r := recover(); r != nil { // hostile input makes kyaml panic
			objects, err = nil, fmt.Errorf("kustomize build of %s: kustomize panicked on this input", dir)
		}
	}()
	cuts, err := preflight(tree, dir)
	if err != nil {
		return nil, err
	}
	masking, masked := tree.FS.(Masking)
	if objects, err = kustomize(ctx, tree, dir, order); err != nil {
		if masked && testFailed.MatchString(err.Error()) {
			err = fmt.Errorf("%w (a JSON6902 patch can not test a sealed value: kustomize sees a placeholder; remove the test operation)", err)
		}
		return nil, err
	}
	if masked && len(cuts) > 0 {
		if err := probe(ctx, masking, tree, dir, cuts); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// testFailed is what the JSON6902 library says of a Secret's value.
var testFailed = regexp.MustCompile(`testing value /(?:data|stringData)/.* failed`)

// kustomize builds a tree that preflight found harmless.
func kustomize(ctx context.Context, tree fs.FS, dir string, order Order) ([]*unstructured.Unstructured, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts := krusty.MakeDefaultOptions()
	opts.LoadRestrictions = types.LoadRestrictionsNone
	opts.Reorder = krusty.ReorderOption(order)
	m, err := krusty.MakeKustomizer(opts).Run(kustomizeFS{tree}, absolute(dir))
	if err != nil {
		return nil, fmt.Errorf("kustomize build of %s: %w", dir, err)
	}
	return fromResMap(ctx, m)
}

func fromResMap(ctx context.Context, m resmap.ResMap) ([]*unstructured.Unstructured, error) {
	objects := make([]*unstructured.Unstructured, 0, m.Size())
	for _, r := range m.Resources() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b, err := r.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.CurId(), err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(b); err != nil {
			return nil, fmt.Errorf("%s: %w", r.CurId(), err)
		}
		objects = append(objects, u)
	}
	return objects, nil
}
