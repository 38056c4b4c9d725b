package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

var errChangedMeanwhile = errors.New("was changed while it was sealed anew; it is left as it is")

// replaceFile puts a new content in the place of the old one, as a whole or not at
// all, unless somebody else has changed the file in between.
func replaceFile(path string, before, after []byte, mode fs.FileMode) error {
	temp := leftover(path)
	if err := os.Remove(temp); err != nil && !notExist(err) {
		return err
	}
	if err := writeBeside(temp, after, mode); err != nil {
		_ = os.Remove(temp) // the error above says more
		return fmt.Errorf("write: %w", err)
	}
	if err := unchanged(path, before); err != nil {
		_ = os.Remove(temp) // likewise
		return err
	}
	return os.Rename(temp, path)
}

func writeBeside(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func unchanged(path string, before []byte) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	now, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || !bytes.Equal(now, before) {
		return errChangedMeanwhile
	}
	return nil
}

// syncFolders makes the renames last, each folder once.
func syncFolders(plan []plannedFile) error {
	synced := map[string]bool{}
	for _, p := range plan {
		dir := filepath.Dir(p.path)
		if !p.changed || synced[dir] {
			continue
		}
		synced[dir] = true
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
