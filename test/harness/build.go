package harness

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// Build says what to build from one of this repository's nested modules.
type Build struct {
	Name    string   // of the folder in the cache, and in progress lines
	Module  string   // folder of the module, relative to the repository's root
	Targets []Target // in the order in which they are built
	LDFlags string   // added to "-s -w"
	// Own is for a module that has code of its own: then its .go files (of the
	// top folder) belong to the cache key. Without it the key is that of its
	// requirements.
	Own bool
	// Hint says how long a first build takes; shown in the first progress line.
	Hint string
}

// Target is one binary.
type Target struct {
	Name    string // of the file
	Package string // what "go build" is given
}

const (
	// progressInterval is the longest silence on the progress writer.
	progressInterval = 10 * time.Second
	// lockInterval is how often we look whether another process has built.
	lockInterval = 100 * time.Millisecond
	// outputBytes bounds how much of a failed build's output an error carries.
	outputBytes = 8 << 10
)

// Run returns the folder that holds the binaries, and builds it first if it is
// not in the cache: $GITSEAL_CACHE, or gitseal in the user's cache folder. A
// cache hit runs no process. Any number of processes may call it at once, one of
// them builds. Folders in the cache appear complete or not at all, and may be
// removed when nothing runs from them. Progress lines go to progress, which is
// written to by the calling goroutine only.
func (b Build) Run(ctx context.Context, progress io.Writer) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, filepath.FromSlash(b.Module))
	key, err := b.key(module)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", b.Name, err)
	}
	folder := filepath.Join(cache, b.Name+"-"+key)
	if exists(folder) {
		return folder, nil
	}
	unlock, err := b.lock(ctx, progress, folder)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", b.Name, err)
	}
	defer unlock()
	if exists(folder) { // another process built it while we waited
		return folder, nil
	}
	// The name is fixed, so what a killed build left is found and replaced.
	partial := folder + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return "", err
	}
	for i, target := range b.Targets {
		step := fmt.Sprintf("building %s (%d of %d)", target.Name, i+1, len(b.Targets))
		if i == 0 && b.Hint != "" {
			step += ", first time: " + b.Hint
		}
		if err := b.compile(ctx, progress, step, module, filepath.Join(partial, target.Name), target.Package); err != nil {
			return "", fmt.Errorf("build %s: %s: %w", b.Name, target.Name, err)
		}
	}
	return folder, os.Rename(partial, folder)
}

// compile runs go build and prints step with the elapsed time now and then.
func (b Build) compile(ctx context.Context, progress io.Writer, step, module, output, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", append(b.flags(), "-o", output, pkg)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	done := make(chan error, 1)
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { done <- cmd.Wait() }()
	fmt.Fprintf(progress, "%s…\n", step)
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			fmt.Fprintf(progress, "%s… %s\n", step, time.Since(start).Round(time.Second))
		case err := <-done:
			if err != nil {
				return fmt.Errorf("go build: %w\n%s", err, tail(out.Bytes(), outputBytes))
			}
			return nil
		}
	}
}

func (b Build) flags() []string {
	return []string{"build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w " + b.LDFlags}
}

// key names what the binaries are made of.
func (b Build) key(module string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %q\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, b.flags())
	for _, target := range b.Targets {
		fmt.Fprintf(h, "%q\n", target)
	}
	files := []string{filepath.Join(module, "go.mod"), filepath.Join(module, "go.sum")}
	if b.Own {
		own, err := filepath.Glob(filepath.Join(module, "*.go"))
		if err != nil {
			return "", err
		}
		files = append(files, own...) // Glob sorts
	}
	for _, file := range files {
		if err := hashFile(h, file); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

func hashFile(h hash.Hash, file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(h, "%q %d\n", filepath.Base(file), len(content))
	h.Write(content)
	return nil
}

// lock takes the lock of one cache folder; the kernel frees it when we die.
func (b Build) lock(ctx context.Context, progress io.Writer, folder string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(folder+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	var told time.Time
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if time.Since(told) >= progressInterval {
			fmt.Fprintf(progress, "waiting for another process that builds %s… %s\n", b.Name, time.Since(start).Round(time.Second))
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(lockInterval):
		}
	}
}

func cacheFolder() (string, error) {
	if folder := os.Getenv("GITSEAL_CACHE"); folder != "" {
		return filepath.Abs(folder)
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder, set GITSEAL_CACHE: %w", err)
	}
	return filepath.Join(user, "gitseal"), nil
}

// Root returns the repository's root: the nearest folder at or above the working
// directory with the go.mod of gitseal.
func Root() (string, error) {
	working, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for folder := working; ; folder = filepath.Dir(folder) {
		content, err := os.ReadFile(filepath.Join(folder, "go.mod"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if bytes.HasPrefix(content, []byte("module github.com/gitseal/gitseal\n")) {
			return folder, nil
		}
		if folder == filepath.Dir(folder) {
			return "", fmt.Errorf("%s is not in a checkout of gitseal", working)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// tail returns the last limit bytes, without surrounding space.
func tail(content []byte, limit int) []byte {
	return bytes.TrimSpace(content[max(0, len(content)-limit):])
}
