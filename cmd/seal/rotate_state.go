package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// rotationState remembers which files a rotation has finished, so that one that was
// interrupted goes on. It lies in the folder of git, or in the user's cache, holds
// digests of sealed files only, and is gone at the end.
type rotationState struct {
	mu   sync.Mutex
	file *os.File
	done map[string]bool
	// generation of the cluster's key that the agent was asked for; 0 for none.
	generation int
	// wrote is set once this run has finished a file.
	wrote bool
}

const (
	stateName = "gitseal-rotate"
	// What was left behind longer ago than this belongs to another rotation.
	stateLives      = 24 * time.Hour
	stateFirst      = "gitseal rotate v1 "
	stateGeneration = "generation "
)

var errRotating = errors.New("another rotation is at work in this repository")

// openRotation locks the state, so that two rotations can not meet. The lock ends with
// the process, however it ends.
func openRotation(root string, now time.Time) (*rotationState, error) {
	path, err := statePath(root)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil, errors.Join(errRotating, f.Close())
	}
	// The one that held the lock may have removed the file since.
	mine, err := f.Stat()
	if there, statErr := os.Stat(path); err != nil || statErr != nil || !os.SameFile(mine, there) {
		return nil, errors.Join(errRotating, f.Close())
	}
	s := &rotationState{file: f, done: map[string]bool{}}
	if !s.read(now) {
		s.done, s.generation = map[string]bool{}, 0
		if err = f.Truncate(0); err == nil {
			_, err = fmt.Fprintln(f, stateFirst+now.UTC().Format(time.RFC3339))
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// statePath is in the git folder of the work tree, if there is one.
func statePath(root string) (string, error) {
	git, err := findUp(root, ".git")
	if err == nil {
		info, err := os.Stat(git)
		if err == nil && info.IsDir() {
			return filepath.Join(git, stateName), nil
		}
		// In a linked work tree it is a file that names the folder.
		b, err := os.ReadFile(git)
		if err != nil {
			return "", err
		}
		if dir, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "gitdir: "); ok {
			if !filepath.IsAbs(dir) {
				dir = filepath.Join(filepath.Dir(git), dir)
			}
			return filepath.Join(dir, stateName), nil
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(abs))
	cache = filepath.Join(cache, "gitseal")
	return filepath.Join(cache, "rotate-"+hex.EncodeToString(sum[:8])), os.MkdirAll(cache, 0o700)
}

// read reports whether the state is one to go on with. A line that was cut off by a
// kill is one file more to do.
func (s *rotationState) read(now time.Time) bool {
	lines := bufio.NewScanner(s.file)
	if !lines.Scan() {
		return false
	}
	begun, err := time.Parse(time.RFC3339, strings.TrimPrefix(lines.Text(), stateFirst))
	if err != nil || now.Sub(begun) > stateLives || now.Before(begun.Add(-time.Minute)) {
		return false
	}
	for lines.Scan() {
		if n, ok := strings.CutPrefix(lines.Text(), stateGeneration); ok {
			s.generation, _ = strconv.Atoi(n) // 0 where the line was cut off: another one is asked for
			continue
		}
		s.done[strings.TrimSpace(lines.Text())] = true
	}
	return lines.Err() == nil
}

// digest stands for a content and for what it was sealed to.
func (p plannedFile) digest(content []byte) string {
	var to []string
	for _, r := range p.recipients {
		to = append(to, r.String())
	}
	slices.Sort(to)
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %v\n", to, p.cert.Fingerprint(), p.keep)
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

func (s *rotationState) finished(p plannedFile, content []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done[p.digest(content)]
}

// finish is called before the file takes its place: a kill in between leaves a digest
// of nothing, not a file that is done twice.
func (s *rotationState) finish(p plannedFile, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote = true
	_, err := fmt.Fprintln(s.file, "\n"+p.digest(content))
	return err
}

// begun notes the generation that is sealed to.
func (s *rotationState) begun(generation int) error {
	s.generation = generation
	_, err := fmt.Fprintf(s.file, "%s%d\n", stateGeneration, generation)
	return err
}

func (s *rotationState) remove() error {
	s.wrote = true // so that close leaves the path alone: it may be somebody else's by then
	return os.Remove(s.file.Name())
}

// close leaves a state behind only if there is something to go on with.
func (s *rotationState) close() {
	if !s.wrote && len(s.done) == 0 {
		_ = s.remove() // nothing to go on with is no loss
	}
	_ = s.file.Close() // each line was written
}
