// Package build renders a folder of a tree into Kubernetes objects: with
// kustomize where there is a kustomization, as plain manifests otherwise. It
// reads only what the tree holds: no network, no exec, no plugins, nothing on
// disk. What it is given is masked already, so everything it returns or says
// is safe to print.
package build
