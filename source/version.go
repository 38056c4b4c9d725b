package source

import (
	"fmt"
	"iter"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// parseRange reads Ref.SemVer.
func parseRange(text string) (*semver.Constraints, error) {
	if len(text) > maxRangeBytes {
		return nil, fmt.Errorf("semver: longer than %d bytes", maxRangeBytes)
	}
	r, err := semver.NewConstraint(text)
	if err != nil {
		return nil, fmt.Errorf(`semver %s: want a range of versions, such as ">=1.2 <2" or "1.x"`, printable(text))
	}
	return r, nil
}

// parseVersion is as strict as Flux is: three numbers, with or without a "v".
func parseVersion(tag string) (*semver.Version, error) {
	return semver.StrictNewVersion(strings.TrimPrefix(tag, "v"))
}

// LowerVersion reports whether the version of one tag is lower than that of another.
// A tag that is no version is lower than none.
func LowerVersion(tag, than string) bool {
	a, err := parseVersion(tag)
	if err != nil {
		return false
	}
	b, err := parseVersion(than)
	return err == nil && a.LessThan(b)
}

// highest returns the tag with the highest version in the range, and the version.
// Of equal ones it is the last by name, whatever order they come in.
func highest(r *semver.Constraints, tags iter.Seq[string], ref Ref) (string, string, error) {
	var (
		best        string
		bestVersion *semver.Version
		all         int
		versions    int
	)
	for tag := range tags {
		all++
		v, err := parseVersion(tag)
		if err != nil {
			continue
		}
		versions++
		if !r.Check(v) {
			continue
		}
		if bestVersion != nil {
			if order := v.Compare(bestVersion); order < 0 || order == 0 && tag < best {
				continue
			}
		}
		best, bestVersion = tag, v
	}
	if bestVersion == nil {
		return "", "", &RefNotFoundError{Ref: ref.String(), Reason: noneInRange(all, versions)}
	}
	return best, bestVersion.String(), nil
}

func noneInRange(all, versions int) string {
	switch {
	case all == 0:
		return "the repository has no tags"
	case versions == 0:
		return fmt.Sprintf("none of its %d tags is a version such as v1.2.3", all)
	}
	return fmt.Sprintf("none of the %d versions among its %d tags is in that range", versions, all)
}
