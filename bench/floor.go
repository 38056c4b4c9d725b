package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/build"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/source"
	"github.com/gitseal/gitseal/test/harness"
)

// floor is what the parts cost when nothing else is done: what no agent that
// does this work with these libraries can go below.
type floor struct {
	git, sops, kustomize, patches time.Duration
	files, secrets, objects       int
	partly                        bool // the kustomize build of the whole tree was left out

	interval         time.Duration // of a pass as agents of today make it, nothing changed
	intervalRequests int
}

// floorName is the user agent of the floor's patches.
const floorName = "floor"

// addFloor adds the rows of the floor and of the yardstick.
func (r *report) addFloor(f floor) {
	parts := map[string]float64{"git": f.git.Seconds(), "sops": f.sops.Seconds(), "patches": f.patches.Seconds()}
	row := measured{Work: rawFloor, Requests: &f.objects, Parts: parts}
	if f.partly {
		row.Note = fmt.Sprintf("git %s, SOPS %s, patches %s; no kustomize build of the whole tree, so no sum", ms(f.git), ms(f.sops), ms(f.patches))
	} else {
		parts["kustomize"] = f.kustomize.Seconds()
		r.floor = f.git + f.sops + f.kustomize + f.patches
		row.Seconds = seconds(r.floor)
		row.Note = fmt.Sprintf("git %s, SOPS %s, kustomize %s, patches %s", ms(f.git), ms(f.sops), ms(f.kustomize), ms(f.patches))
	}
	r.add(row)
	r.add(measured{Work: todaysInterval, Seconds: seconds(f.interval), Requests: &f.intervalRequests, Note: "a GET and a dry run for each object (fluxcd/pkg/ssa), nothing changed"})
}

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
	var objects []*unstructured.Unstructured
	if f.partly = b.objects > b.wholeBuild; f.partly {
		// Not measured: how the objects for the patches are made is not the floor's.
		err = step("build in parts", nil, func() (err error) {
			objects, err = build.NewCache().Run(ctx, memory(plain), "apps")
			return err
		})
	} else {
		err = step("kustomize build of the whole tree", nil, func() (err error) {
			objects, err = build.Run(ctx, memory(plain), "apps", build.AsWritten)
			return err
		})
		f.kustomize = time.Since(start)
	}
	if err != nil {
		return f, err
	}
	f.objects = len(objects)

	if err := step("patches of the floor", b.sent(ctx, floorName), func() (err error) {
		f.patches, err = b.patchAll(ctx, objects)
		return err
	}); err != nil {
		return f, err
	}
	return f, b.yardstick(ctx, objects, &f)
}

// yardstick runs the program of that name over what was just applied.
func (b *bench) yardstick(ctx context.Context, objects []*unstructured.Unstructured, f *floor) error {
	program := filepath.Join(b.dir, "yardstick")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir, build.Stderr = filepath.Join("bench", "yardstick"), os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the yardstick, from the root of the repository: %w", err)
	}
	list := make([]map[string]any, len(objects))
	for i, o := range objects {
		list[i] = o.Object
	}
	in, err := json.Marshal(list)
	if err != nil {
		return err
	}
	mark := b.cp.Mark()
	cmd := exec.CommandContext(ctx, program, "--kubeconfig", b.cp.Kubeconfig, "--user-agent", "yardstick")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	var out []byte
	if err := step("yardstick, two passes", b.sent(ctx, "yardstick"), func() (err error) {
		out, err = cmd.Output()
		return err
	}); err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		return fmt.Errorf("yardstick: %w", err)
	}
	f.interval = time.Duration(n) * time.Millisecond
	ev, err := b.cp.Requests(ctx, mark, func(e harness.AuditEvent) bool { return e.UserAgent == "yardstick" && e.Resource != "" })
	f.intervalRequests = len(ev)
	return err
}

// patchAll sends one server-side apply for each object, namespaces first, as
// many at once as the agent does.
func (b *bench) patchAll(ctx context.Context, objects []*unstructured.Unstructured) (time.Duration, error) {
	cfg := rest.CopyConfig(b.rest)
	cfg.UserAgent = floorName
	client, err := metadata.NewForConfig(cfg)
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
