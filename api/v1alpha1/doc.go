// Package v1alpha1 holds the types of the API group gitseal.io.
//
// A Sync keeps one folder of one repository applied. Its YAML schema, with the
// rules that the API server checks by itself, is made from the markers here by
// `make generate` (deploy/base/crds).
//
// +kubebuilder:object:generate=true
// +groupName=gitseal.io
package v1alpha1
