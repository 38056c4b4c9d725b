// Package v1alpha1 holds the types of the API group gitseal.io.
//
// A Sync keeps one folder of one repository applied. This reference and the schema,
// with the rules that the API server checks by itself, are made from the types.
//
// +kubebuilder:object:generate=true
// +groupName=gitseal.io
package v1alpha1
