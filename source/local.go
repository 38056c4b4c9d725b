package source

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
)

// localRepository is a repository on this machine, bare or with a working copy,
// read in this process. What is uncommitted is not seen.
type localRepository struct {
	repo   *git.Repository
	limits Limits
}

// openLocal is called for every Fetch: go-git does not notice new packs.
func openLocal(path string, limits Limits) (*localRepository, error) {
	repo, err := git.PlainOpenWithOptions(path, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return nil, ErrRepositoryNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	return &localRepository{repo: repo, limits: limits}, nil
}

// tip returns the object that ref stands for and the name it was found as.
func (l *localRepository) tip(ref Ref) (plumbing.Hash, string, error) {
	name := plumbing.HEAD
	switch {
	case ref.Commit != "":
		hash, err := parseHash(ref.Commit)
		return hash, "", err
	case ref.Branch != "":
		name = plumbing.NewBranchReferenceName(ref.Branch)
	case ref.Tag != "":
		name = plumbing.NewTagReferenceName(ref.Tag)
	}
	found, err := l.repo.Reference(name, true)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return plumbing.ZeroHash, "", &RefNotFoundError{Ref: ref.String()}
	}
	if err != nil {
		return plumbing.ZeroHash, "", fmt.Errorf("read ref: %w", err)
	}
	return found.Hash(), found.Name().Short(), nil
}

// get implements objectStore. The size is looked at before the content is read,
// and the hash computed, as for what comes over the network.
func (l *localRepository) get(hash plumbing.Hash, kind plumbing.ObjectType) (object, error) {
	size, err := l.repo.Storer.EncodedObjectSize(hash)
	if err != nil {
		return object{}, fmt.Errorf("read %s %s: %w", kind, hash, err)
	}
	if size > l.limits.FileBytes {
		if kind == plumbing.BlobObject {
			return object{kind: kind, size: size, dropped: true}, nil
		}
		return object{}, &LimitError{What: "a git " + kind.String(), Limit: l.limits.FileBytes, Unit: "bytes"}
	}
	encoded, err := l.repo.Storer.EncodedObject(kind, hash)
	if err != nil {
		return object{}, fmt.Errorf("read %s %s: %w", kind, hash, err)
	}
	r, err := encoded.Reader()
	if err != nil {
		return object{}, fmt.Errorf("read %s %s: %w", kind, hash, err)
	}
	defer r.Close()
	data, err := io.ReadAll(newLimitedReader(r, "a git object", l.limits.FileBytes))
	if err != nil {
		return object{}, fmt.Errorf("read %s %s: %w", kind, hash, err)
	}
	hasher := plumbing.NewHasher(kind, int64(len(data)))
	if _, err := hasher.Write(data); err != nil {
		return object{}, err
	}
	if got, err := sum(hasher.Hash); err != nil || got != hash {
		return object{}, fmt.Errorf("%s %s is damaged", kind, hash)
	}
	return object{kind: kind, data: data, size: int64(len(data))}, nil
}
