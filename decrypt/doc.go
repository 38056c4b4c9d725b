// Package decrypt keeps plaintext out of rendering. [Masker] shows a git tree
// in which every sealed value is a placeholder, and remembers what each stands
// for; [Masked.Gate] refuses rendered objects in which a placeholder stands
// where it must not, a value is still sealed, or a Secret is in the clear; and
// [Object.Body] puts the values back, into the one request body that is sent.
//
// It holds plaintext as crypto.Secret only. It takes keys through the small
// interface [Keys] and links no Kubernetes client, so that a render without
// keys needs neither cluster nor client.
package decrypt
