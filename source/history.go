package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
)

// historyDepths are how many generations are asked for, one after the other; the
// last is all. Each request stands alone: what the ones before it brought costs an
// eighth of it.
var historyDepths = []int{64, 512, 4096, 32768, 0}

// historyFilters are what to leave out, the best first. A server may allow filters
// and refuse some.
var historyFilters = []string{"tree:0", "blob:none", ""}

// Descends says whether a commit that Fetch returned descends from another, or is
// that one: whether following it there was going forward. The other is a full hash; it
// need not have been fetched by this Source, and may be gone. Which commit is meant is
// said, and not taken from the last Fetch: that may have seen yet another one since.
//
// The common case, that it is a parent, costs nothing. Else the server is asked for
// the commits that lead away from it, without files where it allows a filter, 64
// generations deep and then more. That is bounded by Limits and the timeout of a
// Fetch, and nothing of it is kept.
//
// True is proven by hashes. False says that the history was read to where the two
// meet or to its roots, or that the server has no such commit; a server that lies
// can only get to false. What can not be decided is an error: ErrShallow, a
// *LimitError that names the limit, ErrNoCommit, and those of Fetch.
func (s *Source) Descends(ctx context.Context, commit *Commit, ancestor string) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	giveBack, err := s.takeTurn(bounded)
	if err != nil {
		return false, s.explain(ctx, bounded, err)
	}
	defer giveBack()
	yes, err := s.descends(bounded, commit, ancestor)
	if err != nil {
		return false, s.explain(ctx, bounded, fmt.Errorf("look for commit %s in its history: %w", printable(ancestor), err))
	}
	return yes, nil
}

func (s *Source) descends(ctx context.Context, last *Commit, ancestor string) (bool, error) {
	hash, err := parseHash(ancestor)
	if err != nil {
		return false, errors.New("want all 40 digits of its hash")
	}
	if last == nil {
		return false, ErrNoCommit
	}
	h := &history{tip: plumbing.NewHash(last.Hash), raw: last.Raw, ancestor: hash}
	parents, err := parseParents(last.Raw)
	if err != nil {
		return false, err
	}
	switch {
	case h.tip == hash || slices.Contains(parents, hash):
		return true, nil
	case len(parents) == 0:
		return false, nil
	case s.remote == nil:
		return s.localHistory(ctx, h)
	}
	return s.remoteHistory(ctx, h)
}

// history is a question, and what is known for its answer.
type history struct {
	tip      plumbing.Hash
	raw      []byte // the commit tip
	ancestor plumbing.Hash
	ends     map[plumbing.Hash]bool // commits whose parents are left out
}

// verdict is what a look at a part of the history says.
type verdict int

const (
	no        verdict = iota // it is not there
	yes                      // it is
	undecided                // where the part ends it may go on
)

// walk follows the parents from the tip. What get has not, with false, lies behind
// the ancestor: nobody looks there, for it can not lead to it.
func (h *history) walk(get func(plumbing.Hash) ([]byte, bool, error)) (verdict, error) {
	seen := map[plumbing.Hash]bool{h.tip: true}
	found := no
	for todo := []plumbing.Hash{h.tip}; len(todo) > 0; {
		hash := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		data, ok := h.raw, true
		if hash != h.tip {
			var err error
			if data, ok, err = get(hash); err != nil {
				return no, err
			}
		}
		if !ok {
			continue
		}
		parents, err := parseParents(data)
		if err != nil {
			return no, err
		}
		if slices.Contains(parents, h.ancestor) {
			return yes, nil
		}
		if h.ends[hash] && len(parents) > 0 {
			found = undecided
			continue
		}
		for _, p := range parents {
			if !seen[p] {
				seen[p] = true
				todo = append(todo, p)
			}
		}
	}
	return found, nil
}

// remoteHistory asks for what can be reached from the tip and not from the
// ancestor. If the ancestor is one, then on any way to it the last commit before it
// is in the answer, and names it as a parent.
func (s *Source) remoteHistory(ctx context.Context, h *history) (bool, error) {
	open, err := s.remote.open(ctx)
	if err != nil {
		return false, err
	}
	defer open.Close()
	adv := open.refs()
	ask, ok := adv.tip(h.tip)
	if !ok {
		ask = h.tip
	}
	filters := historyFilters
	if !adv.capabilities[capability.Filter] {
		filters = historyFilters[len(historyFilters)-1:]
	}
	for depths := historyDepths; len(depths) > 0; {
		w := want{hashes: []plumbing.Hash{ask}, have: h.ancestor, less: true, depth: depths[0], filter: filters[0]}
		found, err := s.askHistory(ctx, open, w, h)
		if errors.As(err, new(*refusedError)) && ctx.Err() == nil {
			if len(filters) == 1 {
				return false, fmt.Errorf("the server does not give commit %s, where no branch or tag stands: %w", h.tip, err)
			}
			filters = filters[1:]
			continue
		}
		if err != nil || found != undecided {
			return found == yes, err
		}
		if !w.deepens(adv) {
			break
		}
		depths = depths[1:]
	}
	return false, ErrShallow
}

func (s *Source) askHistory(ctx context.Context, open session, w want, h *history) (verdict, error) {
	answer, err := ask(ctx, open, w)
	if err != nil {
		return no, err
	}
	defer answer.Close()
	if !answer.common {
		return no, nil // the server has no such commit
	}
	got, err := unpackCommits(ctx, answer.pack, s.limits)
	if err != nil {
		return no, readError(answer.body, err, "the pack")
	}
	h.ends = answer.ends
	for hash := range open.refs().ends {
		h.ends[hash] = true
	}
	return h.walk(func(hash plumbing.Hash) ([]byte, bool, error) {
		obj, ok := got[hash]
		return obj.data, ok, nil
	})
}

func (s *Source) localHistory(ctx context.Context, h *history) (bool, error) {
	repo, err := openLocal(s.location.path, s.limits)
	if err != nil {
		return false, err
	}
	return repo.history(ctx, h)
}

// history reads as much as one pack may hold.
func (l *localRepository) history(ctx context.Context, h *history) (bool, error) {
	var err error
	if h.ends, err = l.ends(); err != nil {
		return false, err
	}
	read := int64(0)
	found, err := h.walk(func(hash plumbing.Hash) ([]byte, bool, error) {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		obj, err := l.get(hash, plumbing.CommitObject)
		if err != nil {
			return nil, false, err
		}
		if read += obj.size + objectOverhead; read > l.limits.UnpackedBytes {
			return nil, false, &LimitError{What: "the history", Limit: l.limits.UnpackedBytes, Unit: "bytes"}
		}
		return obj.data, true, nil
	})
	if err == nil && found == undecided {
		err = ErrShallow
	}
	return found == yes, err
}

// parseParents reads the parents of a commit: lines that follow the tree.
func parseParents(data []byte) ([]plumbing.Hash, error) {
	_, rest, ok := bytes.Cut(data, []byte("\n"))
	if !ok || !bytes.HasPrefix(data, []byte("tree ")) {
		return nil, fmt.Errorf("%w: malformed git commit", ErrProtocol)
	}
	var parents []plumbing.Hash
	for bytes.HasPrefix(rest, []byte("parent ")) {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		hash, err := parseHash(strings.TrimPrefix(string(line), "parent "))
		if err != nil {
			return nil, fmt.Errorf("%w: malformed git commit", ErrProtocol)
		}
		parents = append(parents, hash)
	}
	return parents, nil
}
