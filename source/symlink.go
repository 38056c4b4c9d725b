package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

var (
	errIsFolder  = errors.New("is a directory")
	errNotFolder = errors.New("not a directory")
)

// SymlinkError says why a symbolic link can not be followed. Unwrap gives
// fs.ErrNotExist for a dangling one, and nil for one that leaves the repository
// or runs in a circle.
type SymlinkError struct {
	Link   string
	Target string
	reason string
	cause  error
}

func (e *SymlinkError) Error() string {
	return fmt.Sprintf("symlink %s points to %s, %s", printable(e.Link), printable(e.Target), e.reason)
}

func (e *SymlinkError) Unwrap() error { return e.cause }

const (
	outside  = "outside the repository"
	dangling = "which does not exist"
	circular = "in a circle or through too many links"
)

type lastLink int

const (
	followLinks  lastLink = iota
	keepLastLink          // a link at the end of the path is the result itself
)

// Links returns the paths of all symbolic links, sorted, also dangling ones.
func (t *Tree) Links() []string {
	var links []string
	for p, n := range t.nodes {
		if n.mode&fs.ModeSymlink != 0 {
			links = append(links, p)
		}
	}
	slices.Sort(links)
	return links
}

// Resolve returns the real path of name: the one without symbolic links, which
// is also the one in Files.
func (t *Tree) Resolve(name string) (string, error) {
	n, err := t.find("resolve", name, followLinks)
	if err != nil {
		return "", err
	}
	return n.path, nil
}

// ReadLink implements fs.ReadLinkFS.
func (t *Tree) ReadLink(name string) (string, error) {
	n, err := t.find("readlink", name, keepLastLink)
	if err != nil {
		return "", err
	}
	if n.mode&fs.ModeSymlink == 0 {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return string(n.data), nil
}

func (t *Tree) find(op, name string, last lastLink) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	if n := t.nodes[name]; n != nil && (n.mode&fs.ModeSymlink == 0 || last == keepLastLink) {
		return n, nil
	}
	n, err := t.walk(name, last)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return n, nil
}

// followed is a link whose target is being walked: errors name it.
type followed struct {
	link  *node
	after int // elements that come after those of the target
}

// walk goes through name element by element, as the kernel does: ".." after a
// link to a folder is the parent of that folder.
func (t *Tree) walk(name string, last lastLink) (*node, error) {
	var inside []followed
	fail := func(reason string, cause error) error {
		if len(inside) == 0 {
			return cause
		}
		link := inside[len(inside)-1].link
		return &SymlinkError{Link: link.path, Target: string(link.data), reason: reason, cause: cause}
	}
	at := t.nodes["."]
	left := strings.Split(name, "/")
	for hops := 0; len(left) > 0; {
		for len(inside) > 0 && len(left) <= inside[len(inside)-1].after {
			inside = inside[:len(inside)-1]
		}
		element := left[0]
		left = left[1:]
		switch element {
		case "", ".":
			continue
		case "..":
			if at.parent == nil {
				return nil, fail(outside, nil)
			}
			at = at.parent
			continue
		}
		if !at.mode.IsDir() {
			return nil, fail(dangling, fs.ErrNotExist)
		}
		next := t.nodes[path.Join(at.path, element)]
		if next == nil {
			return nil, fail(dangling, fs.ErrNotExist)
		}
		if next.mode&fs.ModeSymlink == 0 || len(left) == 0 && last == keepLastLink {
			at = next
			continue
		}
		inside = append(inside, followed{link: next, after: len(left)})
		target := string(next.data)
		if path.IsAbs(target) {
			return nil, fail(outside, nil)
		}
		if target == "" || strings.Contains(target, "\x00") {
			return nil, fail(dangling, fs.ErrNotExist)
		}
		if hops++; hops > maxLinkHops {
			return nil, fail(circular, nil)
		}
		left = append(strings.Split(target, "/"), left...)
	}
	return at, nil
}

// refuseEscapes fails for the first link, by name, that leaves the tree.
func (t *Tree) refuseEscapes(ctx context.Context) error {
	for _, p := range t.Links() {
		if err := ctx.Err(); err != nil {
			return err
		}
		var bad *SymlinkError
		if _, err := t.walk(p, followLinks); errors.As(err, &bad) && bad.reason == outside {
			return bad
		}
	}
	return nil
}
