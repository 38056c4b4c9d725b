package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Repo is a bare repository, as a server has it, with a work tree from which it
// is filled by the real git. Commits have a fixed author and dates, so the same
// steps give the same hashes.
//
// Its methods return no errors. In a test they end it; otherwise the first error
// is kept, all that follows does nothing, and Err returns it. Use it from one
// goroutine, in a test from the test's own.
type Repo struct {
	Name string // servers have it as Name.git
	Bare string // folder of the bare repository
	Work string // folder of the work tree

	// Author of what follows, as "Name <mail>".
	Author string
	// Date of the next commit or tag; each takes a second.
	Date time.Time

	ctx context.Context
	t   testing.TB // nil outside of tests
	err error
}

// MainBranch is the branch that a new Repo is on.
const MainBranch = "main"

// GitEnv returns the whole environment for a git process that must not see this
// machine's or this user's git configuration, ask for a password or translate.
// It starts with PATH; add to it, do not add it to os.Environ.
func GitEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + os.DevNull,
		"LC_ALL=C",
		"GIT_CONFIG_GLOBAL=" + os.DevNull,
		"GIT_CONFIG_SYSTEM=" + os.DevNull,
		"GIT_CONFIG_NOSYSTEM=1",
		"GIT_TERMINAL_PROMPT=0",
		"GORACE=atexit_sleep_ms=0", // ours, built with the race detector, would linger for a second each
	}
}

// CreateRepo makes root/name.git and, next to it, the work tree root/name.work.
// It is empty and has no commit. ctx bounds every git process of the Repo.
func CreateRepo(ctx context.Context, root, name string) (*Repo, error) {
	r := &Repo{
		Name:   name,
		Bare:   filepath.Join(root, name+".git"),
		Work:   filepath.Join(root, name+".work"),
		Author: "Gitseal Test <test@example.com>",
		Date:   time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		ctx:    ctx,
	}
	if err := os.MkdirAll(r.Work, 0o755); err != nil {
		return nil, err
	}
	r.Git("init", "--quiet", "--bare", "--initial-branch="+MainBranch, r.Bare)
	r.Git("init", "--quiet", "--initial-branch="+MainBranch)
	r.Git("--git-dir", r.Bare, "config", "http.receivepack", "true")
	r.Git("--git-dir", r.Bare, "config", "gc.auto", "0")
	r.Git("config", "gc.auto", "0")
	r.Git("remote", "add", "origin", r.Bare)
	return r, r.err
}

// NewRepo is CreateRepo for a test, which fails at the first error.
func NewRepo(t testing.TB, root, name string) *Repo {
	t.Helper()
	r, err := CreateRepo(t.Context(), root, name)
	if err != nil {
		t.Fatal(err)
	}
	r.t = t
	return r
}

// Err returns the first error.
func (r *Repo) Err() error { return r.err }

// Write writes a file of the work tree, and the folders above it. path has
// slashes and is relative.
func (r *Repo) Write(path, content string) {
	r.helper()
	if r.err != nil {
		return
	}
	file := filepath.Join(r.Work, filepath.FromSlash(path))
	r.check(os.MkdirAll(filepath.Dir(file), 0o755))
	if r.err == nil {
		r.check(os.WriteFile(file, []byte(content), 0o644))
	}
}

// Remove removes a file or a folder of the work tree; it must exist.
func (r *Repo) Remove(path string) {
	r.helper()
	if r.err != nil {
		return
	}
	file := filepath.Join(r.Work, filepath.FromSlash(path))
	if _, err := os.Lstat(file); err != nil {
		r.check(err)
		return
	}
	r.check(os.RemoveAll(file))
}

// Commit commits the whole work tree, also when nothing has changed, pushes the
// branch and returns the commit's hash.
func (r *Repo) Commit(message string) string {
	r.helper()
	r.commit(message)
	r.Git("push", "--quiet", "origin", "HEAD")
	return r.Head()
}

// ForcePushOrphan replaces the history of the branch by one commit without
// parents that holds the given files only, as after somebody rewrote it, and
// returns its hash.
func (r *Repo) ForcePushOrphan(message string, files map[string]string) string {
	r.helper()
	branch := r.Git("symbolic-ref", "--short", "HEAD")
	r.Git("checkout", "--quiet", "--orphan", "gitseal-orphan")
	r.Git("rm", "-r", "-f", "--quiet", "--ignore-unmatch", ".")
	for path, content := range files {
		r.Write(path, content)
	}
	r.commit(message)
	r.Git("branch", "--quiet", "--move", "--force", branch)
	r.Git("push", "--quiet", "--force", "origin", "HEAD")
	return r.Head()
}

// Branch creates a branch at the current commit, switches to it and pushes it.
func (r *Repo) Branch(name string) {
	r.helper()
	r.Git("checkout", "--quiet", "-b", name)
	r.Git("push", "--quiet", "origin", "HEAD")
}

// Checkout switches to a branch that exists.
func (r *Repo) Checkout(branch string) {
	r.helper()
	r.Git("checkout", "--quiet", branch)
}

// Tag makes and pushes a lightweight tag of the current commit.
func (r *Repo) Tag(name string) {
	r.helper()
	r.Git("tag", name)
	r.Git("push", "--quiet", "origin", "refs/tags/"+name)
}

// AnnotatedTag makes and pushes a tag object of the current commit.
func (r *Repo) AnnotatedTag(name, message string) {
	r.helper()
	r.Git("tag", "--annotate", "--message", message, name)
	r.Date = r.Date.Add(time.Second)
	r.Git("push", "--quiet", "origin", "refs/tags/"+name)
}

// Head returns the hash of the current commit.
func (r *Repo) Head() string {
	r.helper()
	return r.Git("rev-parse", "HEAD")
}

// Git runs git in the work tree and returns its output without the last newline.
func (r *Repo) Git(args ...string) string {
	r.helper()
	if r.err != nil {
		return ""
	}
	cmd := exec.CommandContext(r.ctx, "git", args...)
	cmd.Dir = r.Work
	cmd.Env = r.env()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.check(fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, tail(stderr.Bytes(), outputBytes)))
		return ""
	}
	return strings.TrimSuffix(string(out), "\n")
}

func (r *Repo) commit(message string) {
	r.Git("add", "--all")
	r.Git("commit", "--quiet", "--allow-empty", "--message", message)
	r.Date = r.Date.Add(time.Second)
}

func (r *Repo) env() []string {
	name, mail, ok := strings.Cut(strings.TrimSuffix(r.Author, ">"), " <")
	if !ok {
		r.check(errors.New(`the author is not of the form "Name <mail>"`))
	}
	date := r.Date.Format(time.RFC3339)
	return append(GitEnv(),
		"GIT_AUTHOR_NAME="+name, "GIT_AUTHOR_EMAIL="+mail, "GIT_AUTHOR_DATE="+date,
		"GIT_COMMITTER_NAME="+name, "GIT_COMMITTER_EMAIL="+mail, "GIT_COMMITTER_DATE="+date,
	)
}

// check keeps the first error and ends a test.
func (r *Repo) check(err error) {
	r.helper()
	if err == nil || r.err != nil {
		return
	}
	r.err = fmt.Errorf("repository %s: %w", r.Name, err)
	if r.t != nil {
		r.t.Fatal(r.err)
	}
}

func (r *Repo) helper() {
	if r.t != nil {
		r.t.Helper()
	}
}
