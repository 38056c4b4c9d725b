// Package crypto turns one sealed file or value into its content and back, for
// the two formats that gitseal speaks: SOPS files with age recipients, and the
// values of a SealedSecret. It also owns [Secret], the only type in which
// plaintext and private keys exist, and the binding that ties a sealed file to
// the object it was made for.
//
// It knows no cluster, no clock and no directory tree; what it needs of those
// is passed in. It is the only package that calls the sops library, whose
// errors can hold plaintext: they are replaced here and never wrapped.
package crypto
