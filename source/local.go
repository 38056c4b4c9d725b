package source

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
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
func (l *localRepository) tip(ref Ref, versions *semver.Constraints) (goal, error) {
	name := plumbing.HEAD
	var version string
	switch {
	case ref.Commit != "":
		hash, err := parseHash(ref.Commit)
		return goal{tip: hash}, err
	case ref.SemVer != "":
		tags, err := l.tags()
		if err != nil {
			return goal{}, err
		}
		var tag string
		if tag, version, err = highest(versions, slices.Values(tags), ref); err != nil {
			return goal{}, err
		}
		name = plumbing.NewTagReferenceName(tag)
	case ref.Branch != "":
		name = plumbing.NewBranchReferenceName(ref.Branch)
	case ref.Tag != "":
		name = plumbing.NewTagReferenceName(ref.Tag)
	}
	found, err := l.repo.Reference(name, true)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return goal{}, &RefNotFoundError{Ref: ref.String()}
	}
	if err != nil {
		return goal{}, fmt.Errorf("read ref: %w", err)
	}
	return goal{tip: found.Hash(), name: found.Name().Short(), version: version}, nil
}

// tags are the short names of all tags.
func (l *localRepository) tags() ([]string, error) {
	refs, err := l.repo.Tags()
	if err != nil {
		return nil, fmt.Errorf("read tags: %w", err)
	}
	var names []string
	err = refs.ForEach(func(r *plumbing.Reference) error {
		names = append(names, strings.TrimPrefix(r.Name().String(), tagPrefix))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read tags: %w", err)
	}
	return names, nil
}

// ends are the commits whose parents a shallow clone lacks.
func (l *localRepository) ends() (map[plumbing.Hash]bool, error) {
	hashes, err := l.repo.Storer.Shallow()
	if err != nil {
		return nil, fmt.Errorf("read the ends of a shallow clone: %w", err)
	}
	ends := map[plumbing.Hash]bool{}
	for _, h := range hashes {
		ends[h] = true
	}
	return ends, nil
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
