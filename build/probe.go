package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/types"
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
	delimiters []string   // of its targets
	selects    []selected // its source and its targets
}

const (
	probeMark = "!gitseal-probe!" // no build makes it
	probeFar  = 1 << 20           // an index that is always behind the last piece
)

// probe builds the folder again with each cut changed so that it appends its
// whole source to its target, behind a mark. A placeholder on either side of a
// mark would have been cut. kustomize itself finds source and target. Where such a
// build fails, a field that is no text for instance, each cut is tried alone, and
// those that still fail are judged by what the files say.
func probe(ctx context.Context, tree Masking, read *record, dir string, cuts []cut) error {
	failed, err := probeOnce(ctx, tree, dir, cuts)
	if !failed {
		return err
	}
	var unsure []cut
	for i, c := range cuts {
		failed, err := probeOnce(ctx, tree, dir, cuts[i:i+1])
		if err != nil {
			return err
		}
		if failed {
			unsure = append(unsure, c)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, c := range unsure {
		if mayMeetSealed(tree, read, c) {
			return &KustomizationError{c.file, c.at, "can not be checked for cutting a sealed value, since the build fails without its delimiter; seal the pieces as values of their own"}
		}
	}
	return nil
}

// probeOnce reports whether the changed build failed; the error is about a cut.
func probeOnce(ctx context.Context, tree Masking, dir string, cuts []cut) (failed bool, err error) {
	changed := map[string][]byte{}
	for i, c := range cuts {
		b := changed[c.file]
		if b == nil {
			var err error
			if b, err = readLimited(tree, c.file); err != nil {
				return false, err
			}
		}
		b, err := probed(b, c, i)
		if err != nil {
			return false, &KustomizationError{c.file, c.at, "can not be checked for cutting a sealed value: " + err.Error()}
		}
		changed[c.file] = b
	}
	objects, err := kustomize(ctx, overlayFS{tree, changed}, dir, AsWritten)
	if err != nil {
		return true, nil //nolint:nilerr // the real build did not fail: the change is at fault
	}
	for _, u := range objects {
		if i, side := markedToken(u, tree, cuts); side != "" {
			c := cuts[i]
			return false, &KustomizationError{c.file, strings.TrimPrefix(fmt.Sprintf("%s.%s.options.delimiter", c.at, side), "."),
				"would cut a sealed value in pieces, and kustomize sees only its placeholder; seal the piece as a value of its own"}
		}
	}
	return false, nil
}

// probed changes one replacement of a kustomization or of a list of them. The
// types are kustomize's own: it takes the names of fields in any case.
func probed(file []byte, c cut, number int) ([]byte, error) {
	if strings.HasPrefix(c.at, "replacements") {
		var k types.Kustomization
		if err := k.Unmarshal(file); err != nil {
			return nil, err
		}
		marked(&k.Replacements[c.index].Replacement, number)
		return yaml.Marshal(k)
	}
	var list []types.Replacement
	if yaml.Unmarshal(file, &list) == nil {
		marked(&list[c.index], number)
		return yaml.Marshal(list)
	}
	var one types.Replacement
	if err := yaml.Unmarshal(file, &one); err != nil {
		return nil, err
	}
	marked(&one, number)
	return yaml.Marshal(one)
}

func marked(r *types.Replacement, number int) {
	mark := strconv.Itoa(number)
	if r.Source != nil {
		if cutsSource(*r) {
			mark += "s"
		}
		r.Source.Options = nil
	}
	for _, target := range r.Targets {
		if target == nil {
			continue
		}
		mark := mark
		options := types.FieldOptions{}
		if target.Options != nil {
			options = *target.Options
		}
		if options.Delimiter != "" {
			mark += "t"
		}
		options.Delimiter, options.Index = probeMark+mark+probeMark, probeFar
		target.Options = &options
	}
}

// mayMeetSealed reports whether a replacement selects an object that lies in a
// file with a placeholder, or one that no file holds as it is selected.
func mayMeetSealed(tree Masking, read *record, c cut) bool {
	for _, want := range c.selects {
		found := false
		for name := range read.files {
			b, err := fs.ReadFile(tree, name)
			if err != nil {
				return true
			}
			for _, id := range objectsIn(b) {
				if (want.Kind == "" || want.Kind == id.Kind) && (want.Name == "" || want.Name == id.Name) {
					found = true
					if tree.Masks(string(b)) {
						return true
					}
				}
			}
		}
		if !found {
			return true
		}
	}
	return false
}

// selected is what a replacement says of an object.
type selected struct{ Kind, Name string }

// objectsIn lists the objects that a file holds; generated ones are not among
// them.
func objectsIn(file []byte) []selected {
	var out []selected
	for d := yamlv3.NewDecoder(bytes.NewReader(file)); ; {
		var doc struct {
			Kind     string
			Metadata struct{ Name string }
		}
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			return nil
		}
		out = append(out, selected{doc.Kind, doc.Metadata.Name})
	}
}

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
