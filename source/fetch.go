package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
	gitobject "github.com/go-git/go-git/v5/plumbing/object"
)

// maxSubjectRunes and maxNameRunes cut what goes into status and logs.
const (
	maxSubjectRunes = 200
	maxNameRunes    = 100
)

func (s *Source) fetch(ctx context.Context) (*Commit, bool, error) {
	last := s.last.Load()
	if last != nil && last.Hash == s.ref.Commit {
		return last, false, nil
	}
	if s.refused != nil && s.refused.tip.String() == s.ref.Commit {
		return nil, false, s.refused
	}
	if s.remote == nil {
		return s.fetchLocal(ctx)
	}
	open, err := s.remote.open(ctx)
	if err != nil {
		return nil, false, err
	}
	defer open.Close()
	if s.ref.Commit != "" {
		return s.fetchCommit(ctx, open)
	}
	to, err := s.advertisedTip(open.refs())
	if err != nil {
		return nil, false, err
	}
	if last != nil && s.tip == to.tip {
		commit, renamed := s.renamed(last, to)
		return commit, renamed, nil
	}
	if s.refused != nil && s.refused.tip == to.tip {
		return nil, false, s.refused
	}
	if last != nil {
		// The commit we have saves nearly all of the transfer. Whatever goes
		// wrong with it, asking as if for the first time may still work.
		w := want{hashes: []plumbing.Hash{to.tip}, have: plumbing.NewHash(last.Hash), depth: 1}
		thin := to
		thin.base = s.known
		commit, err := s.receive(ctx, open, w, thin)
		if err == nil || ctx.Err() != nil || errors.As(err, new(*refusedContent)) {
			return commit, err == nil, err
		}
	}
	commit, err := s.receive(ctx, open, want{hashes: []plumbing.Hash{to.tip}, depth: 1}, to)
	return commit, err == nil, err
}

// renamed returns the last commit as what to says it was found as. Only of a range
// of versions another tag may stand for the same commit.
func (s *Source) renamed(last *Commit, to goal) (*Commit, bool) {
	if s.ref.SemVer == "" || last.Ref == to.refOf(last.Hash) && last.Version == to.version {
		return last, false
	}
	commit := *last
	commit.Ref, commit.Version = to.refOf(last.Hash), to.version
	s.last.Store(&commit)
	return &commit, true
}

// advertisedTip returns the object that the ref stands for, and the name it was
// found as.
func (s *Source) advertisedTip(a *advertisement) (goal, error) {
	if s.ref.SemVer != "" {
		tags := func(yield func(string) bool) {
			for name := range a.refs {
				if tag, ok := strings.CutPrefix(name, tagPrefix); ok && !yield(tag) {
					return
				}
			}
		}
		tag, version, err := highest(s.versions, tags, s.ref)
		return goal{tip: a.refs[tagPrefix+tag], name: tag, version: version}, err
	}
	full, short := headRef, strings.TrimPrefix(a.head, branchPrefix)
	switch {
	case s.ref.Branch != "":
		full, short = branchPrefix+s.ref.Branch, s.ref.Branch
	case s.ref.Tag != "":
		full, short = tagPrefix+s.ref.Tag, s.ref.Tag
	}
	if hash, ok := a.refs[full]; ok {
		if short == "" {
			short = headRef
		}
		return goal{tip: hash, name: short}, nil
	}
	missing := &RefNotFoundError{Ref: s.ref.String()}
	switch {
	case len(a.refs) == 0:
		missing.Reason = "the repository is empty"
	case full == headRef:
		missing.Reason = "the default branch of the repository does not exist, name a branch"
	}
	return goal{}, missing
}

// fetchCommit gets one commit by its hash. Servers give what a ref stands for,
// many give any commit, and the others only whole histories.
func (s *Source) fetchCommit(ctx context.Context, open session) (*Commit, bool, error) {
	hash := plumbing.NewHash(s.ref.Commit)
	to := goal{tip: hash}
	ask := hash
	if tip, ok := open.refs().tip(hash); ok {
		ask = tip
	}
	commit, err := s.receive(ctx, open, want{hashes: []plumbing.Hash{ask}, depth: 1}, to)
	var refused *refusedError
	if err == nil || ctx.Err() != nil || !errors.As(err, &refused) {
		return commit, err == nil, err
	}
	missing := &RefNotFoundError{
		Ref:    s.ref.String(),
		Reason: "no branch or tag has it, and the server gives no other commits by hash: set uploadpack.allowReachableSHA1InWant there, or name a branch",
	}
	tips := open.refs().tips()
	if len(tips) == 0 {
		return nil, false, missing
	}
	to.missing = missing
	commit, err = s.receive(ctx, open, want{hashes: tips}, to)
	var limit *LimitError
	if errors.As(err, &limit) {
		err = fmt.Errorf("the server does not give a commit by hash (uploadpack.allowReachableSHA1InWant is not set), and its whole history is too much: %w", err)
	}
	return commit, err == nil, err
}

// goal is what a pack is fetched for.
type goal struct {
	tip     plumbing.Hash
	name    string  // the ref it was found as, empty for a commit by hash
	version string  // what name is as a version, for Ref.SemVer
	base    objects // what the pack may build on
	missing error   // instead of ErrProtocol when tip is not in the pack
}

// refOf is Commit.Ref.
func (g goal) refOf(hash string) string {
	if g.name == "" {
		return "sha1:" + hash
	}
	return g.name + "@sha1:" + hash
}

// receive asks for a pack and takes the commit in it.
func (s *Source) receive(ctx context.Context, open session, w want, to goal) (*Commit, error) {
	got, err := s.receiveObjects(ctx, open, w, to.base, dropBig)
	if errors.Is(err, errDroppedBase) && to.base == nil {
		got, err = s.receiveObjects(ctx, open, w, to.base, keepBig)
	}
	if err != nil {
		return nil, err
	}
	if _, ok := got[to.tip]; !ok && to.missing != nil {
		return nil, to.missing
	}
	commit, err := s.take(ctx, layered{got, to.base}, to)
	s.refused = nil
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrProtocol) {
		s.refused = &refusedContent{tip: to.tip, error: err}
		return nil, s.refused
	}
	return commit, err
}

// refusedContent is what we do not accept of a commit that arrived in full. It
// will be so as long as the ref stands there, so it is not asked for again.
type refusedContent struct {
	tip plumbing.Hash
	error
}

func (r *refusedContent) Unwrap() error { return r.error }

func (s *Source) receiveObjects(ctx context.Context, open session, w want, base objects, big bigBlobs) (objects, error) {
	answer, err := ask(ctx, open, w)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	got, err := unpack(ctx, answer.pack, base, s.limits, big)
	if err != nil {
		return nil, readError(answer.body, err, "the pack")
	}
	return got, nil
}

// ask sends a question and reads what comes before the pack. The answer is to be
// closed.
func ask(ctx context.Context, open session, w want) (*answer, error) {
	body, closer, err := open.pack(ctx, w.encode(open.refs()))
	if err != nil {
		return nil, err
	}
	out, err := w.readAnswer(body, open.refs())
	if err != nil {
		_ = closer.Close() // err says more
		if body.err == nil && !errors.As(err, new(*refusedError)) && !errors.As(err, new(*LimitError)) {
			err = &refusedError{} // some servers just end where others say why
		}
		return nil, readError(body, err, "the answer")
	}
	out.body, out.Closer = body, closer
	return out, nil
}

// layered looks into a pack and then into what we had before.
type layered [2]objects

func (l layered) get(hash plumbing.Hash, kind plumbing.ObjectType) (object, error) {
	if _, ok := l[0][hash]; !ok {
		if obj, ok := l[1][hash]; ok && obj.kind == kind {
			return obj, nil
		}
	}
	return l[0].get(hash, kind)
}

func (s *Source) fetchLocal(ctx context.Context) (*Commit, bool, error) {
	repo, err := openLocal(s.location.path, s.limits)
	if err != nil {
		return nil, false, err
	}
	to, err := repo.tip(s.ref, s.versions)
	if err != nil {
		return nil, false, err
	}
	if last := s.last.Load(); last != nil && s.tip == to.tip {
		commit, renamed := s.renamed(last, to)
		return commit, renamed, nil
	}
	commit, err := s.take(ctx, repo, to)
	if err != nil {
		if errors.Is(err, plumbing.ErrObjectNotFound) && s.ref.Commit != "" {
			err = &RefNotFoundError{Ref: s.ref.String()}
		}
		return nil, false, err
	}
	return commit, true, nil
}

// take loads the commit at to.tip and makes it the last good one. Only what it
// consists of is kept, so that memory does not grow with the number of fetches.
func (s *Source) take(ctx context.Context, store objectStore, to goal) (*Commit, error) {
	hash, rawTag := to.tip, []byte(nil)
	if to.name != "" {
		var err error
		if hash, rawTag, err = peel(store, to.tip); err != nil {
			return nil, err
		}
	}
	obj, err := store.get(hash, plumbing.CommitObject)
	if err != nil {
		return nil, err
	}
	decoded, err := decodeCommit(obj.data)
	if err != nil {
		return nil, err
	}
	tree, used, err := loadTree(ctx, store, decoded.TreeHash, s.limits)
	if err != nil {
		return nil, err
	}
	commit := &Commit{
		Hash:    hash.String(),
		Ref:     to.refOf(hash.String()),
		Version: to.version,
		Author:  oneLine(decoded.Author.Name, maxNameRunes),
		Email:   oneLine(decoded.Author.Email, maxNameRunes),
		Subject: oneLine(decoded.Message, maxSubjectRunes),
		When:    decoded.Author.When,
		Raw:     bytes.Clone(obj.data), // data goes on to be the base of deltas
		RawTag:  rawTag,
		Tree:    tree,
	}
	s.tip = to.tip
	if s.remote != nil {
		used[hash] = obj
		s.known = used
	}
	s.last.Store(commit)
	return commit, nil
}

// peel follows annotated tags down to what they stand for, and returns the first.
func peel(store objectStore, hash plumbing.Hash) (plumbing.Hash, []byte, error) {
	var first []byte
	for range maxTagDepth {
		tag, err := store.get(hash, plumbing.TagObject)
		if err != nil {
			return hash, first, nil // no tag: get of the commit says what it is
		}
		if first == nil {
			first = tag.data
		}
		header, _, _ := bytes.Cut(tag.data, []byte("\n"))
		text, ok := bytes.CutPrefix(header, []byte("object "))
		if !ok {
			return plumbing.ZeroHash, nil, fmt.Errorf("%w: malformed git tag", ErrProtocol)
		}
		if hash, err = parseHash(string(text)); err != nil {
			return plumbing.ZeroHash, nil, err
		}
	}
	return plumbing.ZeroHash, nil, &LimitError{What: "a tag of tags", Limit: maxTagDepth, Unit: "tags"}
}

func decodeCommit(data []byte) (*gitobject.Commit, error) {
	encoded := &plumbing.MemoryObject{}
	encoded.SetType(plumbing.CommitObject)
	if _, err := encoded.Write(data); err != nil {
		return nil, err
	}
	c := &gitobject.Commit{}
	if err := c.Decode(encoded); err != nil {
		return nil, fmt.Errorf("%w: malformed git commit", ErrProtocol)
	}
	return c, nil
}

// oneLine makes the first line of foreign text fit for status, logs and
// terminals.
func oneLine(text string, maxRunes int) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	line = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(line, "?"))
	if runes := []rune(line); len(runes) > maxRunes {
		line = string(runes[:maxRunes-1]) + "…"
	}
	return strings.TrimSpace(line)
}
