package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gitseal/gitseal/crypto"
)

// sealedFile is a file of the tree that holds sealed values.
type sealedFile struct {
	path          string // from where the command runs
	raw           []byte
	mode          fs.FileMode
	format        crypto.Format
	units         []crypto.ListedUnit // of SOPS
	sealedSecrets []crypto.ListedSealedSecret
	// err is set where the file can not be read: one that is sealed, as it seems, or any
	// that may not be opened.
	err error
}

// leftover is the name of the file that a new one is written to before it takes its
// place. After a kill it may lie there.
func leftover(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+leftoverEnd)
}

const leftoverEnd = ".gitseal-rotate"

func isLeftover(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, leftoverEnd)
}

// walkFiles calls f for each regular file below root. Links are not followed, and
// what git keeps for itself is left out.
func walkFiles(root string, f func(path string, d fs.DirEntry) error) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git" && path != root:
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		return f(path, d)
	})
}

func removeLeftovers(root string) error {
	return walkFiles(root, func(path string, _ fs.DirEntry) error {
		if isLeftover(filepath.Base(path)) {
			return os.Remove(path)
		}
		return nil
	})
}

// findSealed reads the tree.
func findSealed(ctx context.Context, root string, keys offlineKeys) ([]sealedFile, error) {
	var paths []string
	err := walkFiles(root, func(path string, _ fs.DirEntry) error {
		if !isLeftover(filepath.Base(path)) {
			paths = append(paths, path)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	found := make([]sealedFile, len(paths))
	inParallel(ctx, len(paths), func(i int) {
		found[i].path = paths[i]
		if err := found[i].read(keys); err != nil {
			found[i].err = err
		}
	})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var out []sealedFile
	for _, f := range found {
		if f.err != nil || len(f.units) > 0 || len(f.sealedSecrets) > 0 {
			out = append(out, f)
		}
	}
	return out, nil
}

// read looks at one file; what holds nothing sealed stays empty.
func (f *sealedFile) read(keys offlineKeys) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if f.mode = info.Mode().Perm(); info.Size() > crypto.MaxSealedFile {
		return f.lookAtLarge(file)
	}
	if f.raw, err = io.ReadAll(file); err == nil {
		f.look(keys)
	}
	return err
}

func (f *sealedFile) look(keys offlineKeys) {
	if crypto.MayBeSOPS(f.raw) {
		f.format = crypto.FormatOfFile(f.path, f.raw)
		f.units, f.err = crypto.ListSOPS(f.raw, f.format)
		var format *crypto.FormatError
		if errors.Is(f.err, crypto.ErrNotSOPS) || errors.As(f.err, &format) && crypto.FormatOf(f.path) == crypto.Binary {
			f.err = nil // or a text about such files
		}
	}
	if f.err != nil || !crypto.MayHoldSealedSecret(f.raw) || !isManifest(f.path) {
		return
	}
	f.sealedSecrets, f.err = crypto.ListSealedSecrets(crypto.SealedSecretsRequest{File: f.raw, Keys: keys.certificates})
	if errors.Is(f.err, crypto.ErrNoSealedSecret) || f.err != nil && !bytes.Contains(f.raw, []byte("encryptedData")) {
		f.err = nil
	}
}

func isManifest(path string) bool {
	ext := filepath.Ext(path)
	return ext == ".yaml" || ext == ".yml" || ext == ".json"
}

// lookAtLarge tells a sealed file that is too large from the many that are not sealed.
func (f *sealedFile) lookAtLarge(r io.Reader) error {
	mark := []byte("ENC[AES256_GCM,")
	buf := make([]byte, 1<<20)
	kept := 0
	for {
		n, err := r.Read(buf[kept:])
		if bytes.Contains(buf[:kept+n], mark) {
			return fmt.Errorf("larger than %d MiB", crypto.MaxSealedFile>>20)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		end := kept + n
		kept = min(end, len(mark))
		copy(buf, buf[end-kept:end])
	}
}
