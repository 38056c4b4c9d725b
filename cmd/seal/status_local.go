package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/gitseal/gitseal/source"
)

// clone is the one that the command runs in; nil where that is none.
type clone struct {
	git           *source.Clone
	head, subject string
}

func openClone(dir string) *clone {
	dotGit, err := findUp(dir, ".git")
	if err != nil {
		return nil
	}
	git, err := source.OpenClone(filepath.Dir(dotGit))
	if err != nil {
		return nil // a repository that nobody can read says nothing about a cluster
	}
	head, subject, err := git.Head()
	if err != nil {
		return nil // as one without a commit
	}
	return &clone{git, head, subject}
}

// local is how HEAD of the clone stands to what is applied, in its stable form.
type local struct {
	Head     string `json:"head"`
	Subject  string `json:"subject,omitempty"`
	Relation string `json:"relation"`

	why string // it is unknown
}

const (
	relationUnknown = "unknown"
	relationNothing = "none"
)

// compare is nil where the clone has nothing to do with the Sync: no remote of it is the
// Sync's repository, and it does not have the commit.
func (c *clone) compare(ctx context.Context, o object) *local {
	if c == nil {
		return nil
	}
	follows, err := c.git.Follows(o.Spec.Source.URL)
	if err != nil {
		follows = false // the commits tell
	}
	out := &local{Head: c.head, Subject: c.subject, Relation: relationNothing}
	if o.Status.Applied == nil {
		if follows {
			return out
		}
		return nil
	}
	relation, err := c.git.Compare(ctx, c.head, o.Status.Applied.Hash)
	if err != nil {
		out.Relation, out.why = relationUnknown, err.Error()
		return out
	}
	if relation == source.Absent && !follows {
		return nil
	}
	out.Relation = string(relation)
	return out
}

func (l local) text() string {
	text := fmt.Sprintf("%s %q: ", l.Head[:8], printable(l.Subject))
	switch source.Relation(l.Relation) {
	case source.Same:
		return text + "the applied commit"
	case source.Ahead:
		return text + "ahead of the applied commit"
	case source.Behind:
		return text + "behind the applied commit; git pull"
	case source.Diverged:
		return text + "neither before nor after the applied commit"
	case source.Absent:
		return text + "this clone does not have the applied commit; git fetch"
	case relationNothing:
		return text + "nothing is applied yet"
	}
	return text + "how it stands to the applied commit is not known: " + printable(l.why)
}
