// Package source turns a place in git into a commit as a read-only file tree.
//
// It owns the transports (https, http, ssh, a path on this machine), their
// credentials, and every limit on what a remote may make us read or keep.
// Nothing is checked out, no git program is run, nothing is written to disk,
// and nothing global is touched: two Sources share no client, no host keys and
// no connection. It never sees a decryption key.
//
// Every object is named by the hash that was computed from its content (with
// collision detection), from the commit down to the last file, so a tree is
// what its commit hash says or the Fetch fails.
//
// What it refuses: objects, packs and trees beyond Limits; symbolic links that
// leave the repository; names that are not plain paths; redirects to another
// origin while a credential is set; ssh without known_hosts; a URL that holds a
// password. Submodules are empty folders. SHA-256 repositories are not
// supported.
//
// Who signed a commit is for package verify, which takes Commit.Raw and RawTag.
// Whether following a ref was going forward, Source.Descends tells, and what changed
// on the way Tree.ChangedSince.
//
// Errors name the URL and the ref. They never hold what the server said beyond
// a status code, nor a credential.
//
//	src, err := source.New(source.Config{
//		URL:         "https://git.example.com/team/cluster.git",
//		Ref:         source.Ref{Branch: "main"},
//		Credentials: credentials,
//	})
//	if err != nil {
//		return err
//	}
//	commit, changed, err := src.Fetch(ctx)
//	if err != nil {
//		return err // src.Last() is still the last good commit
//	}
//	if changed {
//		deploy(ctx, commit.Ref, commit.Tree)
//	}
package source
