package verify

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"time"
)

// Mode says what must be signed, with the words of Flux's GitRepository.
type Mode string

// The modes. Empty is HEAD.
const (
	Head       Mode = "HEAD"       // the commit
	Tag        Mode = "Tag"        // the annotated tag that was followed
	TagAndHead Mode = "TagAndHEAD" // both, each by any of the trusted signers
)

// Policy says who must have signed.
type Policy struct {
	Keys  Keys
	Mode  Mode
	Paths []PathRule
}

// PathRule narrows who may change what lies under Prefix: whoever signed must be
// among its Keys, beside being among those of the Policy. Where the prefix of one
// rule begins with that of another, the longer one counts alone; files under no
// rule are for all of Policy.Keys.
//
// What counts is who signed the newest commit, in mode Tag the tag: with a
// signature one answers for all that came in between, whoever wrote it. Paths are
// those of git. What a kustomization takes from another folder, or through a
// symbolic link, is for the rules of that folder.
type PathRule struct {
	Prefix string // a folder or file, such as "clusters/prod"; empty for all
	Keys   Keys
}

// Validate reports what is wrong with p.
func (p Policy) Validate() error {
	if p.Keys.Len() == 0 {
		return ErrNoKeys
	}
	switch p.Mode {
	case "", Head, Tag, TagAndHead:
	default:
		return fmt.Errorf("mode %s: want %s, %s or %s", printable(string(p.Mode)), Head, Tag, TagAndHead)
	}
	seen := map[string]bool{}
	for _, r := range p.Paths {
		prefix := r.prefix()
		switch {
		case path.IsAbs(r.Prefix) || prefix == ".." || strings.HasPrefix(prefix, "../"):
			return fmt.Errorf("path %s: want a path within the repository", printable(r.Prefix))
		case seen[prefix]:
			return fmt.Errorf("path %s: there are two rules", printable(r.Prefix))
		case r.Keys.Len() == 0:
			return fmt.Errorf("path %s: %w", printable(r.Prefix), ErrNoKeys)
		}
		seen[prefix] = true
	}
	return nil
}

// prefix is "." for all.
func (r PathRule) prefix() string { return path.Clean(r.Prefix) }

// Changes are the paths that differ from the tree that was accepted last. The zero
// Changes are all there are: so it is where nothing was accepted before.
type Changes struct {
	known bool
	paths []string
}

// Only says that nothing differs beside these paths, of files and symbolic links
// that are new, gone or altered; none at all if they are empty.
func Only(paths []string) Changes { return Changes{known: true, paths: paths} }

// Signed is what Policy.Check judges.
type Signed struct {
	Commit  []byte    // the commit as git stores it
	Tag     []byte    // the annotated tag as git stores it, nil if there is none
	TagName string    // what the tag was found as; a tag that was signed under another name is refused. Empty: not compared
	Changes Changes   // for Policy.Paths
	Now     time.Time // when it is judged
}

// PathError says that somebody signed who may sign, but not for this path.
type PathError struct {
	Prefix string // of the rule
	Path   string // the first path under it that changed, empty if all count as changed
	Err    error  // what Keys.Commit or Keys.Tag of the rule's keys says
}

func (e *PathError) Error() string {
	changed := e.Path
	if changed == "" {
		changed = "all files"
	}
	return fmt.Sprintf("path %s (changed: %s): %v", printable(e.Prefix), printable(changed), e.Err)
}

func (e *PathError) Unwrap() error { return e.Err }

// Check returns who signed: of the commit, then of the tag, as far as the mode
// asks for them. Errors are those of Keys.Commit and Keys.Tag, *PathError, and
// those of Validate. The signers beside an error are nil.
func (p Policy) Check(s Signed) ([]Signer, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	var signers []Signer
	if p.Mode != Tag {
		signer, err := p.Keys.Commit(s.Commit, s.Now)
		if err != nil {
			return nil, err
		}
		signers = append(signers, signer)
	}
	if p.Mode == Tag || p.Mode == TagAndHead {
		if err := s.checkTag(); err != nil {
			return nil, fmt.Errorf("tag: %w", err)
		}
		signer, err := p.Keys.Tag(s.Tag, s.Now)
		if err != nil {
			return nil, err
		}
		signers = append(signers, signer)
	}
	for _, r := range p.Paths {
		changed, touched := p.touches(r, s.Changes)
		if !touched {
			continue
		}
		var err error
		if p.Mode == Tag {
			_, err = r.Keys.Tag(s.Tag, s.Now)
		} else {
			_, err = r.Keys.Commit(s.Commit, s.Now)
		}
		if err != nil {
			return nil, &PathError{Prefix: r.Prefix, Path: changed, Err: err}
		}
	}
	return signers, nil
}

// checkTag sees to it that the tag is one of this commit under this name: who can
// push may let any ref stand for any tag that was ever signed.
func (s Signed) checkTag() error {
	if len(s.Tag) == 0 {
		return fmt.Errorf("%w: there is no annotated tag", ErrUnsigned)
	}
	o, err := splitTag(s.Tag)
	if err != nil {
		return err
	}
	if o.kind != "commit" {
		return refuse("it stands for a %s, not for a commit", printable(o.kind))
	}
	if o.object != commitHash(s.Commit) {
		return refuse("it stands for another commit")
	}
	if s.TagName != "" && o.name != s.TagName {
		return refuse("it was signed as %s", printable(o.name))
	}
	return nil
}

// commitHash only ties two things together that the caller has looked up by hash,
// with collision detection, already.
func commitHash(raw []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "commit %d\x00", len(raw))
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil))
}

// touches says whether the rule applies, and the path that makes it so.
func (p Policy) touches(r PathRule, c Changes) (string, bool) {
	if !c.known {
		return "", true
	}
	for _, changed := range c.paths {
		clean := path.Clean(changed)
		// A file or link above the prefix decides what lies there, if anything.
		if within(r.prefix(), clean) || within(clean, r.prefix()) && p.longest(clean) == r.prefix() {
			return changed, true
		}
	}
	return "", false
}

// longest is the prefix of the rule that counts for a path.
func (p Policy) longest(file string) string {
	best := ""
	for _, r := range p.Paths {
		prefix := r.prefix()
		if within(file, prefix) && (best == "" || best == "." || len(prefix) > len(best) && prefix != ".") {
			best = prefix
		}
	}
	return best
}

// within says whether a path is a folder or lies under it.
func within(file, folder string) bool {
	return folder == "." || file == folder || strings.HasPrefix(file, folder+"/")
}
