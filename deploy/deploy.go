// Package deploy is what is installed: kustomize trees, and how they are put together
// for one cluster. `kubectl apply -k`, install.yaml, the chart and `seal install` all
// come from these files.
package deploy

import (
	"archive/zip"
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/build"
)

//go:embed base cluster namespaced components
var files embed.FS

// Namespace is that of the manifests as they are written.
const Namespace = "gitseal-system"

const image = "ghcr.io/gitseal/agent"

// Components returns the names that Options knows.
func Components() []string { return []string{"cluster-admin", "ha", "monitoring"} }

// Options say what an installation differs in. The zero value is deploy/cluster as it is
// written.
type Options struct {
	Namespace       string   // of the agent; "" for that of the manifests
	Image           string   // with tag or digest; "" for that of the manifests
	Replicas        int      // 0 for that of the manifests
	WatchNamespaces []string // the agent has rights in these and in its own only; none for the whole cluster
	Components      []string
}

// Validate reports what is wrong with o.
func (o Options) Validate() error {
	var errs []error
	for _, ns := range append([]string{o.namespace()}, o.WatchNamespaces...) {
		if len(validation.IsDNS1123Label(ns)) > 0 {
			errs = append(errs, fmt.Errorf("%q is not the name of a namespace", ns))
		}
	}
	if o.Replicas < 0 {
		errs = append(errs, fmt.Errorf("%d replicas", o.Replicas))
	}
	for _, c := range o.Components {
		if !slices.Contains(Components(), c) {
			errs = append(errs, fmt.Errorf("component %q is none of %s", c, strings.Join(Components(), ", ")))
		}
	}
	if _, err := parseImage(o.Image); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (o Options) namespace() string {
	if o.Namespace == "" {
		return Namespace
	}
	return o.Namespace
}

// Render returns the objects, with those first that others need: the namespace and the
// CRDs.
func Render(ctx context.Context, o Options) ([]*unstructured.Unstructured, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	overlays, err := o.overlays()
	if err != nil {
		return nil, err
	}
	tree, err := with(overlays)
	if err != nil {
		return nil, err
	}
	objects, err := build.Run(ctx, tree, "install", build.AsWritten)
	if err != nil {
		return nil, fmt.Errorf("render the manifests: %w", err)
	}
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int { return rank(a) - rank(b) })
	return objects, nil
}

// YAML writes objects as one stream.
func YAML(objects []*unstructured.Unstructured) ([]byte, error) {
	var out bytes.Buffer
	for _, o := range objects {
		b, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		out.WriteString("---\n")
		out.Write(b)
	}
	return out.Bytes(), nil
}

func rank(o *unstructured.Unstructured) int {
	switch o.GetKind() {
	case "Namespace":
		return 0
	case "CustomResourceDefinition":
		return 1
	case "Deployment": // its pods need all of the others
		return 3
	}
	return 2
}

// kustomization is the part of the format that overlays need.
type kustomization struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Resources  []string         `json:"resources"`
	Components []string         `json:"components,omitempty"`
	Namespace  string           `json:"namespace,omitempty"`
	Images     []map[string]any `json:"images,omitempty"`
	Replicas   []map[string]any `json:"replicas,omitempty"`
	Patches    []map[string]any `json:"patches,omitempty"`
}

// overlays are the kustomizations above the embedded ones, by file: install/agent is the
// agent's own namespace, and install/watch-N another one.
func (o Options) overlays() (map[string]kustomization, error) {
	agent := kustomization{Resources: []string{"../../cluster"}, Namespace: o.namespace()}
	top := kustomization{Resources: []string{"agent"}}
	out := map[string]kustomization{}
	if len(o.WatchNamespaces) > 0 {
		agent.Resources = []string{"../../namespaced"}
		watched := []string{"$(POD_NAMESPACE)"}
		for _, ns := range slices.Compact(slices.Sorted(slices.Values(o.WatchNamespaces))) {
			if ns == o.namespace() {
				continue
			}
			watched = append(watched, ns)
			folder := fmt.Sprintf("watch-%d", len(watched))
			top.Resources = append(top.Resources, folder)
			out["install/"+folder+"/kustomization.yaml"] = kustomization{
				Resources: []string{"../../namespaced/watch"}, Namespace: ns,
				Patches: patch("RoleBinding", "gitseal-agent-watch", "/subjects/0/namespace", o.namespace()),
			}
		}
		agent.Patches = patch("Deployment", "gitseal-agent", "/spec/template/spec/containers/0/args/1", "--watch-namespaces="+strings.Join(watched, ","))
	}
	for _, c := range slices.Compact(slices.Sorted(slices.Values(o.Components))) {
		agent.Components = append(agent.Components, "../../components/"+c)
	}
	img, err := parseImage(o.Image)
	if err != nil {
		return nil, err
	}
	if img != nil {
		agent.Images = []map[string]any{img}
	}
	if o.Replicas > 0 {
		agent.Replicas = []map[string]any{{"name": "gitseal-agent", "count": o.Replicas}}
	}
	out["install/agent/kustomization.yaml"], out["install/kustomization.yaml"] = agent, top
	return out, nil
}

func patch(kind, name, path, value string) []map[string]any {
	return []map[string]any{{
		"target": map[string]any{"kind": kind, "name": name},
		"patch":  fmt.Sprintf("- op: replace\n  path: %s\n  value: %s\n", path, value),
	}}
}

var imageForm = regexp.MustCompile(`^([a-z0-9][a-zA-Z0-9._:/-]*?)(?::([a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$`)

// parseImage makes an entry of the list `images` of a kustomization, nil for "".
func parseImage(s string) (map[string]any, error) {
	if s == "" {
		return nil, nil
	}
	m := imageForm.FindStringSubmatch(s)
	switch {
	case m == nil:
		return nil, fmt.Errorf("%q is not an image", s)
	case m[2] == "" && m[3] == "":
		return nil, fmt.Errorf("image %q has neither tag nor digest", s)
	}
	out := map[string]any{"name": image, "newName": m[1]}
	if m[3] != "" {
		out["digest"] = m[3]
		if m[2] != "" {
			out["newTag"] = m[2]
		}
		return out, nil
	}
	out["newTag"] = m[2]
	return out, nil
}

// with is the embedded tree and some files more.
func with(overlays map[string]kustomization) (fs.FS, error) {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	if err := w.AddFS(files); err != nil {
		return nil, err
	}
	for name, k := range overlays {
		k.APIVersion, k.Kind = "kustomize.config.k8s.io/v1beta1", "Kustomization"
		b, err := yaml.Marshal(k)
		if err != nil {
			return nil, err
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(b); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return zip.NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
}
