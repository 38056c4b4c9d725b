// Package keys holds the private keys of an installation: it makes them, loads
// them from Secrets of the cluster, and publishes their public halves. Keys
// never leave the agent's namespace.
//
// A generation is one age identity and one RSA certificate key, in one Secret.
// Secrets and the ConfigMap are written with plain create and update, never
// with server-side apply, so that a lost race shows as a conflict.
package keys
