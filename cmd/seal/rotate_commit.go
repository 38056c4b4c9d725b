package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// committer commits with the user's own git: identity, signature, hooks.
type committer struct {
	cmd *cobra.Command
	top string
	// more files to commit, also such as git does not know yet
	more []string
}

// newCommitter refuses before anything is done what would put other changes into the
// commit.
func newCommitter(cmd *cobra.Command, root string, plan []plannedFile, more []string) (*committer, error) {
	g := &committer{cmd: cmd, top: root, more: more}
	top, err := g.git(cmd.Context(), nil, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, err
	}
	g.top = strings.TrimRight(string(top), "\n")
	staged, err := g.git(cmd.Context(), nil, "diff", "--cached", "--name-only", "-z")
	if err != nil {
		return nil, err
	}
	if names := split(staged); len(names) > 0 {
		return nil, hint(fmt.Errorf("changes are staged already, of %s", some(names)), "commit them first, or rotate without --commit")
	}
	status, err := g.git(cmd.Context(), nil, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
	if err != nil {
		return nil, err
	}
	var dirty []string
	for _, line := range split(status) {
		at := slices.IndexFunc(plan, func(p plannedFile) bool { return len(line) > 3 && g.relative(p.path) == line[3:] })
		if at >= 0 && !plan[at].done {
			dirty = append(dirty, line[3:])
		}
	}
	if len(dirty) > 0 {
		return nil, hint(fmt.Errorf("changed since the last commit: %s", some(dirty)), "commit or undo that first, or rotate without --commit")
	}
	return g, nil
}

// commit adds exactly the files that were sealed anew, as far as git knows them.
func (g *committer) commit(ctx context.Context, plan []plannedFile) (string, error) {
	var paths []string
	for _, p := range plan {
		if p.changed || p.done {
			paths = append(paths, g.relative(p.path))
		}
	}
	if len(paths) == 0 {
		return "", nil
	}
	tracked, err := g.git(ctx, nil, "ls-files", "-z")
	if err != nil {
		return "", err
	}
	known := map[string]bool{}
	for _, name := range split(tracked) {
		known[name] = true
	}
	paths = slices.DeleteFunc(paths, func(p string) bool { return !known[p] })
	if len(paths) == 0 {
		return "", hint(errors.New("git knows none of the files; nothing was committed"), "add them yourself")
	}
	files := len(paths)
	for _, p := range g.more {
		paths = append(paths, g.relative(p))
	}
	list := []byte(strings.Join(paths, "\x00") + "\x00")
	if _, err := g.git(ctx, list, "add", "--pathspec-from-file=-", "--pathspec-file-nul"); err != nil {
		return "", err
	}
	message := fmt.Sprintf("seal rotate: %d files\n\n%s\n", files, strings.Join(paths, "\n"))
	if _, err := g.git(ctx, []byte(message), "commit", "--quiet", "--cleanup=verbatim", "--file=-"); err != nil {
		_, undo := g.git(ctx, list, "reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul")
		return "", errors.Join(err, undo)
	}
	commit, err := g.git(ctx, nil, "rev-parse", "HEAD")
	return strings.TrimSpace(string(commit)), err
}

func (g *committer) git(ctx context.Context, in []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"--literal-pathspecs", "-C", g.top}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(errOut.String()))
	}
	return out, nil
}

// relative is how git names the file.
func (g *committer) relative(path string) string {
	abs, err := filepath.Abs(path)
	if err == nil {
		// git resolves links above the work tree.
		var dir string
		if dir, err = filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
			abs = filepath.Join(dir, filepath.Base(abs))
		}
	}
	rel, relErr := filepath.Rel(g.top, abs)
	if err != nil || relErr != nil {
		return path
	}
	return filepath.ToSlash(rel)
}

func split(z []byte) []string {
	return slices.DeleteFunc(strings.Split(string(z), "\x00"), func(s string) bool { return s == "" })
}

// some names a few.
func some(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}
