package build

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// Masking is a tree in which values are placeholders; it tells them from other
// text.
type Masking interface {
	fs.FS
	Masks(text string) bool
}

// cut is a replacement with a delimiter: at says where it stands in file, index
// is its number in the list there.
type cut struct {
	file, at   string
	index      int
	delimiters []string // of its targets
}

const (
	probeMark = "!gitseal-probe!" // no build makes it
	probeFar  = 1 << 20           // an index that is always behind the last piece
)

// probe builds the folder again with each cut changed so that it appends its
// whole source to its target, behind a mark. A placeholder on either side of a
// mark would have been cut. kustomize itself finds source and target.
func probe(ctx context.Context, tree Masking, dir string, cuts []cut) error {
	changed := map[string][]byte{}
	for i, c := range cuts {
		b := changed[c.file]
		if b == nil {
			var err error
			if b, err = readLimited(tree, c.file); err != nil {
				return err
			}
		}
		b, err := probed(b, c, i)
		if err != nil {
			return &KustomizationError{c.file, c.at, "can not be checked for cutting a sealed value: " + err.Error()}
		}
		changed[c.file] = b
	}
	objects, err := kustomize(ctx, overlayFS{tree, changed}, dir, AsWritten)
	if err != nil {
		return &KustomizationError{cuts[0].file, cuts[0].at, "can not be checked for cutting a sealed value, since the build fails without its delimiter; seal the pieces as values of their own"}
	}
	for _, u := range objects {
		if i, side := markedToken(u, tree, cuts); side != "" {
			c := cuts[i]
			return &KustomizationError{c.file, strings.TrimPrefix(fmt.Sprintf("%s.%s.options.delimiter", c.at, side), "."),
				"would cut a sealed value in pieces, and kustomize sees only its placeholder; seal the piece as a value of its own"}
		}
	}
	return nil
}

// probed changes one replacement of a kustomization or of a list of them.
func probed(file []byte, c cut, number int) ([]byte, error) {
	var doc any
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return nil, err
	}
	var r map[string]any
	switch d := doc.(type) {
	case []any:
		r, _ = d[c.index].(map[string]any)
	case map[string]any:
		r = d
		if list, ok := d["replacements"].([]any); ok && strings.HasPrefix(c.at, "replacements") {
			r, _ = list[c.index].(map[string]any)
		}
	}
	mark := strconv.Itoa(number)
	if source, ok := r["source"].(map[string]any); ok {
		if options, _ := source["options"].(map[string]any); delimiterOf(options) != "" {
			mark += "s"
		}
		delete(source, "options")
	}
	targets, _ := r["targets"].([]any)
	for _, t := range targets {
		target, _ := t.(map[string]any)
		options, _ := target["options"].(map[string]any)
		if options == nil {
			options = map[string]any{}
			target["options"] = options
		}
		mark := mark
		if delimiterOf(options) != "" {
			mark += "t"
		}
		options["delimiter"], options["index"] = probeMark+mark+probeMark, probeFar
	}
	return yaml.Marshal(doc)
}

func delimiterOf(options map[string]any) string { s, _ := options["delimiter"].(string); return s }

// markedToken looks for a placeholder that would have been cut: the source of a
// mark that says "s", and where one says "t", what the field held before all marks
// or an earlier replacement wrote over it. What one put there as a piece stays a
// piece. The answer never depends on a value: if it did, who may commit could ask
// for it letter by letter.
func markedToken(u *unstructured.Unstructured, tree Masking, cuts []cut) (number int, side string) {
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, item := range v {
				walk(item)
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		case string:
			parts := strings.Split(v, probeMark)
			for i := 1; i+1 < len(parts) && side == ""; i += 2 {
				n := markNumber(parts[i], cuts)
				switch {
				case n < 0:
				case strings.HasSuffix(parts[i], "t") && tree.Masks(parts[0]):
					number, side = n, "targets"
				case strings.Contains(parts[i], "s") && tree.Masks(parts[i+1]):
					number, side = n, "source"
				case strings.HasSuffix(parts[i], "t") && placedWhole(tree, parts[:i], cuts):
					number, side = n, "targets"
				}
			}
		}
	}
	walk(u.Object)
	return number, side
}

// markNumber is the index in cuts of what stands between two marks, or -1 if a
// file holds such text.
func markNumber(mark string, cuts []cut) int {
	n, err := strconv.Atoi(strings.TrimRight(mark, "st"))
	if err != nil || n < 0 || n >= len(cuts) {
		return -1
	}
	return n
}

// placedWhole reports whether an earlier replacement made a placeholder the whole
// of a field: one without a delimiter, or with one that the field does not hold.
func placedWhole(tree Masking, before []string, cuts []cut) bool {
	for i := 2; i < len(before); i += 2 {
		n := markNumber(before[i-1], cuts)
		if n < 0 || !tree.Masks(before[i]) {
			continue
		}
		within := func(delimiter string) bool { return strings.Contains(before[0], delimiter) }
		if !strings.HasSuffix(before[i-1], "t") || !slices.ContainsFunc(cuts[n].delimiters, within) {
			return true
		}
	}
	return false
}

// overlayFS shows some files of a tree with other content.
type overlayFS struct {
	fs.FS
	changed map[string][]byte
}

func (o overlayFS) ReadFile(name string) ([]byte, error) {
	if b, ok := o.changed[name]; ok {
		return slices.Clone(b), nil
	}
	return fs.ReadFile(o.FS, name)
}

func (o overlayFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(o.FS, name) }
func (o overlayFS) Stat(name string) (fs.FileInfo, error)      { return fs.Stat(o.FS, name) }
