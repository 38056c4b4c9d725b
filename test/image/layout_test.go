package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// descriptor, manifest and imageConfig are what we need of the OCI image format:
// https://github.com/opencontainers/image-spec
type descriptor struct {
	MediaType string
	Digest    string
}

type manifest struct {
	Manifests []descriptor // of an index
	Config    descriptor
	Layers    []descriptor
}

type imageConfig struct {
	Created      time.Time
	Architecture string
	OS           string
	Config       struct {
		User         string
		Entrypoint   []string
		Cmd          []string
		Env          []string
		WorkingDir   string
		Volumes      map[string]any
		ExposedPorts map[string]any
		Labels       map[string]string
	}
}

// entry is a file of a layer.
type entry struct {
	Name     string
	Mode     fs.FileMode
	UID, GID int
	content  []byte
}

// readImage reads the image that makeImage has laid out, and every entry of its
// layers, once for all tests; they do not change what it returns.
func readImage(t *testing.T, layout string) (imageConfig, []entry) {
	t.Helper()
	made.Lock()
	defer made.Unlock()
	if made.entries == nil {
		made.config, made.entries = readLayout(t, layout)
	}
	return made.config, made.entries
}

// readLayout reads the one image of a layout.
func readLayout(t *testing.T, layout string) (imageConfig, []entry) {
	t.Helper()
	var index, m manifest
	read(t, filepath.Join(layout, "index.json"), &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d images in the layout, want one", len(index.Manifests))
	}
	read(t, blob(layout, index.Manifests[0]), &m)
	var config imageConfig
	read(t, blob(layout, m.Config), &config)
	var entries []entry
	for _, layer := range m.Layers {
		more, err := readLayer(blob(layout, layer))
		if err != nil {
			t.Fatalf("layer %s: %v", layer.Digest, err)
		}
		entries = append(entries, more...)
	}
	return config, entries
}

func blob(layout string, d descriptor) string {
	return filepath.Join(layout, "blobs", strings.Replace(d.Digest, ":", "/", 1))
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func readLayer(file string) ([]entry, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	var out []entry
	for r := tar.NewReader(unpacked); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		e := entry{Name: h.Name, Mode: h.FileInfo().Mode(), UID: h.Uid, GID: h.Gid}
		if e.content, err = io.ReadAll(r); err != nil {
			return nil, fmt.Errorf("%s: %w", h.Name, err)
		}
		out = append(out, e)
	}
}

// unpack writes the files of an image into a new folder.
func unpack(t *testing.T, entries []entry) string {
	t.Helper()
	folder := t.TempDir()
	for _, e := range entries {
		path := filepath.Join(folder, filepath.FromSlash(e.Name))
		var err error
		if e.Mode.IsDir() {
			err = os.MkdirAll(path, 0o755)
		} else {
			if err = os.WriteFile(path, e.content, 0o600); err == nil {
				err = os.Chmod(path, e.Mode) // whatever the umask is
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return folder
}
