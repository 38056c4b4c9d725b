package build

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// Cache keeps the parts of a build for the next build of the same folder. Safe for
// concurrent use, one build at a time.
type Cache struct {
	mu    sync.Mutex
	parts map[string]*built
	made  int
}

// NewCache returns an empty one.
func NewCache() *Cache { return &Cache{parts: map[string]*built{}} }

// Made counts the parts that were built since the Cache was made.
func (c *Cache) Made() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made
}

// part is what is built by itself: a folder, or some of the files that a
// kustomization lists beside folders.
type part struct {
	dir   string
	files []string
}

func (p part) key() string { return p.dir + "\x00" + strings.Join(p.files, "\x00") }

type built struct {
	read    *record
	objects []*unstructured.Unstructured
	effects effects
	texts   func() saying
}

// Run is Run of the package, as written, with the same result. What did not change
// since the last time is not built again, and a kustomization that only lists
// others is built one by one, since kustomize takes quadratic time for the whole;
// but only where that changes nothing (docs/adr/0009-split-builds.md). The objects
// are shared with later results and must not be changed.
func (c *Cache) Run(ctx context.Context, tree fs.FS, dir string) ([]*unstructured.Unstructured, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dir, err := folderOf(tree, dir)
	if err != nil {
		return nil, err
	}
	if kustomizationIn(tree, dir) == "" {
		return Run(ctx, tree, dir, AsWritten)
	}
	objects, err := c.run(ctx, tree, dir)
	if err != nil {
		return nil, err
	}
	return limited(objects, dir)
}

func (c *Cache) run(ctx context.Context, tree fs.FS, dir string) ([]*unstructured.Unstructured, error) {
	before := c.parts
	c.parts = map[string]*built{}
	parts, ok := split(tree, dir)
	if ok {
		all, err := c.buildAll(ctx, tree, parts, before)
		if err != nil {
			return nil, err
		}
		if independent(all) {
			var objects []*unstructured.Unstructured
			for _, b := range all {
				objects = append(objects, b.objects...)
			}
			return objects, nil
		}
	}
	whole, err := c.buildAll(ctx, tree, []part{{dir: dir}}, before)
	if err != nil {
		return nil, err
	}
	return whole[0].objects, nil
}

// buildAll builds what is not known, on all processors. The error is that of the
// first part which fails.
func (c *Cache) buildAll(ctx context.Context, tree fs.FS, parts []part, before map[string]*built) ([]*built, error) {
	out, errs := make([]*built, len(parts)), make([]error, len(parts))
	next := make(chan int)
	var workers sync.WaitGroup
	var fresh int
	var mu sync.Mutex
	for range min(runtime.GOMAXPROCS(0), len(parts)) {
		workers.Go(func() {
			for i := range next {
				if b := before[parts[i].key()]; b != nil && b.read.holds(tree) {
					out[i] = b
					continue
				}
				mu.Lock()
				fresh++
				mu.Unlock()
				out[i], errs[i] = buildPart(ctx, tree, parts[i])
			}
		})
	}
	for i := range parts {
		next <- i
	}
	close(next)
	workers.Wait()
	c.made += fresh
	for i, b := range out { // also where another one failed: they are good for the next time
		if b != nil {
			c.parts[parts[i].key()] = b
		}
	}
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func buildPart(ctx context.Context, tree fs.FS, p part) (*built, error) {
	shown := tree
	if p.files != nil {
		b, err := yaml.Marshal(map[string]any{"resources": p.files})
		if err != nil {
			return nil, err
		}
		shown = overlayFS{tree, map[string][]byte{kustomizationIn(tree, p.dir): b}}
	}
	read := newRecord(shown)
	objects, err := runKustomize(ctx, read, p.dir, AsWritten)
	if err != nil {
		return nil, err
	}
	if p.files != nil { // the list is part of the key
		delete(read.files, kustomizationIn(tree, p.dir))
	}
	b := &built{read: read, objects: objects}
	b.effects = effectsOf(b)
	b.texts = sync.OnceValue(func() saying { return textsOf(objects) })
	read.FS = nil // the cache must not keep a whole commit
	return b, nil
}

// split lists the parts of a folder whose kustomization only lists resources, and
// whether there is more than one.
func split(tree fs.FS, dir string) (parts []part, ok bool) {
	s := splitter{check: &checker{tree: tree, seen: map[string]bool{}}, seen: map[string]bool{}}
	if err := s.folder(dir); err != nil {
		return nil, false // the whole build says what is wrong
	}
	return s.parts, len(s.parts) > 1
}

type splitter struct {
	check *checker
	seen  map[string]bool
	parts []part
}

var errWhole = errors.New("must be built as a whole")

func (s *splitter) folder(dir string) error {
	file := kustomizationIn(s.check.tree, dir)
	if file == "" || s.seen[dir] {
		return errWhole
	}
	s.seen[dir] = true
	b, err := readLimited(s.check.tree, file)
	if err != nil {
		return err
	}
	var k types.Kustomization
	if err := k.Unmarshal(b); err != nil {
		return err
	}
	if k.Kind == types.ComponentKind {
		return errWhole
	}
	resources, only := onlyLists(k)
	if !only {
		s.parts = append(s.parts, part{dir: dir})
		return nil
	}
	var files []string
	folders := 0
	flush := func() {
		if len(files) > 0 {
			s.parts = append(s.parts, part{dir, files})
		}
		files = nil
	}
	for _, r := range resources {
		target, err := s.check.local(file, dir, pathEntry{field: "resources", value: r})
		if err != nil {
			return err
		}
		info, err := fs.Stat(s.check.tree, target)
		if err != nil {
			return err
		}
		if !info.IsDir() {
			files = append(files, r)
			continue
		}
		folders++
		flush()
		if err := s.folder(target); err != nil {
			return err
		}
	}
	if folders == 0 { // only files: the folder as it is
		s.parts = append(s.parts, part{dir: dir})
		return nil
	}
	flush()
	return nil
}

// onlyLists reports whether a kustomization does nothing but list resources.
func onlyLists(k types.Kustomization) (resources []string, only bool) {
	//lint:ignore SA1019 trees in the field still use it
	resources = slices.Concat(k.Resources, k.Bases)
	k.TypeMeta, k.MetaData, k.Resources = types.TypeMeta{}, nil, nil
	//lint:ignore SA1019 as above
	k.Bases = nil
	rest, err := yaml.Marshal(k)
	return resources, err == nil && strings.TrimSpace(string(rest)) == "{}" && len(resources) > 0
}
