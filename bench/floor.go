package main

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/utils/ptr"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/source"
)

// floor is what the parts cost when nothing else is done: what no agent that
// does this work with these libraries can go below.
type floor struct {
	git, sops, kustomize, patches time.Duration
	files, secrets, objects       int
}

func (f floor) total() time.Duration { return f.git + f.sops + f.kustomize + f.patches }

// measureFloor works on a tree of its own, with namespaces of its own.
func (b *bench) measureFloor(ctx context.Context, url string, identities []crypto.Identity) (floor, error) {
	var f floor
	start := time.Now()
	src, err := source.New(source.Config{URL: url, Credentials: b.credentials})
	if err != nil {
		return f, err
	}
	commit, _, err := src.Fetch(ctx)
	if err != nil {
		return f, err
	}
	f.git = time.Since(start)

	start = time.Now()
	plain := map[string][]byte{}
	for _, name := range commit.Tree.Files() {
		raw, err := fs.ReadFile(commit.Tree, name)
		if err != nil {
			return f, err
		}
		f.files++
		if crypto.MayBeSOPS(raw) {
			file, err := crypto.OpenSOPS(crypto.OpenRequest{File: raw, Format: crypto.FormatOf(name), Keys: crypto.Keyring{Identities: identities}})
			if err != nil {
				return f, err
			}
			f.secrets++
			if raw, err = file.Masked(func(l crypto.Leaf) string { return "x" }); err != nil {
				return f, err
			}
		}
		plain[name] = raw
	}
	f.sops = time.Since(start)

	start = time.Now()
	objects, err := build.Run(ctx, memory(plain), "apps", build.AsWritten)
	if err != nil {
		return f, err
	}
	f.kustomize, f.objects = time.Since(start), len(objects)

	if f.patches, err = b.patchAll(ctx, objects); err != nil {
		return f, err
	}
	return f, nil
}

// patchAll sends one server-side apply for each object, namespaces first, as
// many at once as the agent does.
func (b *bench) patchAll(ctx context.Context, objects []*unstructured.Unstructured) (time.Duration, error) {
	client, err := metadata.NewForConfig(b.rest)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for _, namespaces := range []bool{true, false} {
		slots, errs := make(chan struct{}, apply.Concurrency), make(chan error, len(objects))
		var wg sync.WaitGroup
		for _, o := range objects {
			if (o.GetKind() == "Namespace") != namespaces {
				continue
			}
			body, err := o.MarshalJSON()
			if err != nil {
				return 0, err
			}
			gvr := schema.GroupVersionResource{Group: o.GroupVersionKind().Group, Version: "v1", Resource: strings.ToLower(o.GetKind()) + "s"}
			wg.Add(1)
			slots <- struct{}{}
			go func() {
				defer wg.Done()
				defer func() { <-slots }()
				_, err := client.Resource(gvr).Namespace(o.GetNamespace()).Patch(ctx, o.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: "floor", Force: ptr.To(true)})
				if err != nil {
					errs <- fmt.Errorf("%s: %w", o.GetName(), err)
				}
			}()
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			return 0, err
		}
	}
	return time.Since(start), nil
}
