package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/source"
)

// work is a folder of a git work tree.
type work struct {
	tree   fs.FS
	root   string // of the work tree, or the folder itself
	folder string // in it
}

// render is a tree as objects, without keys.
type render struct {
	objects []decrypt.Object
	inputs  map[apply.ID]string
	secrets map[apply.ID]map[string]string // placeholders, by key
}

// renders are the work tree and, if the agent has applied anything, the commit that it
// applied last.
func (w work) renders(ctx context.Context, inv apply.Inventory, policy decrypt.SealedSecretPolicy, namespace string) (now, before render, err error) {
	plain, err := w.build(ctx, w.tree)
	if err != nil {
		return now, before, err
	}
	var old []*unstructured.Unstructured
	if inv.Commit != "" {
		if err := w.sameFolder(inv.Source); err != nil {
			return now, before, err
		}
		commit, err := w.commit(ctx, inv.Commit)
		if err != nil {
			return now, before, hint(fmt.Errorf("what the agent has applied: %w", err), "if this clone does not have it, run git fetch")
		}
		if old, err = w.build(ctx, commit.Tree); err != nil {
			return now, before, fmt.Errorf("commit %s, which the agent has applied: %w", inv.Commit, err)
		}
	}
	names := generatedNames(old, inv, namespace)
	if before, err = newRender(old, names, policy, namespace); err != nil {
		return now, before, err
	}
	now, err = newRender(plain, names, policy, namespace)
	return now, before, err
}

func (w work) build(ctx context.Context, tree fs.FS) ([]*unstructured.Unstructured, error) {
	masker := decrypt.NewMasker(decrypt.MaskerConfig{Tree: tree})
	objects, err := build.Run(ctx, masker, w.folder, build.ByKind)
	if fatal := masker.Err(); fatal != nil {
		return nil, fatal
	}
	return objects, err
}

// at is the same folder in a commit of the clone.
func (w work) at(ctx context.Context, revision string) (work, error) {
	clone, err := source.OpenClone(w.root)
	if err != nil {
		return w, fmt.Errorf("--commit: %w", err)
	}
	hash, err := clone.Resolve(revision)
	if err != nil {
		return w, fmt.Errorf("--commit: %w", err)
	}
	commit, err := w.commit(ctx, hash)
	if err != nil {
		return w, fmt.Errorf("--commit %s: %w", revision, err)
	}
	w.tree = commit.Tree
	return w, nil
}

// sameFolder compares the folder with the one that the agent applies.
func (w work) sameFolder(of string) error {
	i := strings.LastIndex(of, "//")
	if i < 0 {
		return nil
	}
	if applied := of[i+2:]; applied != path.Clean(w.folder) {
		return hint(fmt.Errorf("the agent applies the folder %s of its repository, and this is %s", applied, w.folder), "name that folder, or say --name for another sync")
	}
	return nil
}

func (w work) commit(ctx context.Context, hash string) (*source.Commit, error) {
	src, err := source.New(source.Config{URL: "file://" + w.root, Ref: source.Ref{Commit: hash}})
	if err != nil {
		return nil, err
	}
	commit, _, err := src.Fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("commit %s could not be read: %w", hash, err)
	}
	return commit, nil
}

// generatedNames maps names that kustomize made for a render without keys to those that
// the same objects have in the cluster, where the suffix was made with keys.
func generatedNames(objects []*unstructured.Unstructured, inv apply.Inventory, namespace string) map[string]string {
	type place struct{ kind, namespace, base string }
	there := map[place][]string{}
	for id := range inv.Entries {
		if base, generated := decrypt.BaseName(id.Name); generated && id.Group == "" {
			at := place{id.Kind, id.Namespace, base}
			there[at] = append(there[at], id.Name)
		}
	}
	names := map[string]string{}
	for _, u := range objects {
		base, generated := decrypt.BaseName(u.GetName())
		if !generated || u.GroupVersionKind().Group != "" {
			continue
		}
		ns := u.GetNamespace()
		if ns == "" {
			ns = namespace
		}
		if found := there[place{u.GetKind(), ns, base}]; len(found) == 1 {
			names[u.GetName()] = found[0]
		}
	}
	return names
}

func newRender(objects []*unstructured.Unstructured, names map[string]string, policy decrypt.SealedSecretPolicy, namespace string) (render, error) {
	r := render{inputs: map[apply.ID]string{}, secrets: map[apply.ID]map[string]string{}}
	var errs []error
	for _, u := range objects {
		u, _ := rename(u.Object, names).(map[string]any)
		o, err := decrypt.Preview(&unstructured.Unstructured{Object: u}, policy)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.objects = append(r.objects, o)
		gvk := o.GroupVersionKind()
		id := apply.ID{Group: gvk.Group, Kind: gvk.Kind, Namespace: o.Namespace(), Name: o.Name()}
		for _, ns := range []string{id.Namespace, namespace} { // as Resolve places it, where that is not known here
			id.Namespace = ns
			r.inputs[id] = o.Input
			if id.Kind == "Secret" && id.Group == "" {
				r.secrets[id], _, _ = unstructured.NestedStringMap(o.Masked.Object, "data")
			}
			if o.Namespace() != "" {
				break
			}
		}
	}
	return r, errors.Join(errs...)
}

// rename replaces whole texts in a tree of JSON values.
func rename(v any, names map[string]string) any {
	switch v := v.(type) {
	case string:
		if to, ok := names[v]; ok {
			return to
		}
	case map[string]any:
		for k := range v {
			v[k] = rename(v[k], names)
		}
	case []any:
		for i := range v {
			v[i] = rename(v[i], names)
		}
	}
	return v
}

// known is the inventory as if the agent had rendered without keys.
func (r render) known(inv apply.Inventory) apply.Inventory {
	out := inv.Clone()
	for id, e := range out.Entries {
		e.Input = r.inputs[id]
		out.Entries[id] = e
	}
	return out
}
