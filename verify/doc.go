// Package verify says who signed a commit or a tag of git, and whether that is
// somebody who may.
//
// It owns the forms of trusted keys (OpenPGP certificates, ssh's allowed_signers
// and public keys), the split of a git object into what was signed and the
// signature, and the rules of who may change which folder. It is pure: bytes and
// the time go in, a Signer or an error comes out. No git, gpg or ssh-keygen is
// run, and there is no keyring, agent or keyserver.
//
// It judges as `git verify-commit` and `git verify-tag` do, and is stricter where
// those were made for a person who looks at the output:
//
//   - a signature by a key that is expired or revoked now is refused, whenever it
//     was made: the date in a signature is the word of whoever holds the key. An
//     ssh key must also have been valid at the date of the commit, as git has it;
//   - one signature, in one armored block with nothing around it. git joins
//     several gpgsig headers, drops any header that begins with gpgsig, and reads
//     over what follows the block; here each of these is refused;
//   - SHA-1 and weaker, RSA under 2048 bits, DSA, text signatures, S/MIME and
//     certificates of ssh are refused;
//   - what was signed must be a commit, or a tag, from its first line on.
//
// Errors never hold what a key or a signature consists of beyond its fingerprint,
// and ParseKeys never repeats its input.
//
//	keys, err := verify.ParseKeys(secret.Data)
//	if err != nil {
//		return err
//	}
//	signer, err := keys.Commit(commit.Raw, time.Now())
//	if errors.Is(err, verify.ErrUnsigned) {
//		return err
//	}
package verify
