package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// runPlain reads a folder without a kustomization: every .yaml, .yml and .json
// file in it and below. A folder below that has a kustomization is built with
// kustomize. Names that start with a dot are left out.
func runPlain(ctx context.Context, tree fs.FS, dir string) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	seen := map[string]string{}
	err := fs.WalkDir(tree, dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if p != dir && strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			if p == dir || kustomizationIn(tree, p) == "" {
				return nil
			}
			objects, err := runKustomize(ctx, newRecord(tree), p, AsWritten)
			if err != nil {
				return err
			}
			if out, err = appendUnique(out, objects, seen, p); err != nil {
				return err
			}
			return fs.SkipDir
		}
		if !isManifestName(p) {
			return nil
		}
		objects, err := readManifests(tree, p)
		if err != nil {
			return err
		}
		out, err = appendUnique(out, objects, seen, p)
		return err
	})
	return out, err
}

func isManifestName(p string) bool {
	switch strings.ToLower(path.Ext(p)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

func appendUnique(out, objects []*unstructured.Unstructured, seen map[string]string, from string) ([]*unstructured.Unstructured, error) {
	for _, u := range objects {
		gk := u.GroupVersionKind().GroupKind()
		id := gk.String() + "\x00" + u.GetNamespace() + "\x00" + u.GetName()
		if first, ok := seen[id]; ok {
			if first == from {
				return nil, fmt.Errorf("%s %s is twice in %s", u.GetKind(), strings.TrimPrefix(u.GetNamespace()+"/"+u.GetName(), "/"), from)
			}
			return nil, fmt.Errorf("%s %s is in two files: %s and %s", u.GetKind(), strings.TrimPrefix(u.GetNamespace()+"/"+u.GetName(), "/"), first, from)
		}
		seen[id] = from
		out = append(out, u)
	}
	return out, nil
}

var (
	documentBreak = regexp.MustCompile(`(?m)^(?:---(?:[ \t].*)?|\.\.\.[ \t]*)\r?$`)
	documentEnd   = []byte("...")
	lineInError   = regexp.MustCompile(`\bline (\d+)`)
)

// readManifests decodes one file. Errors name the file, the document and its
// first line.
func readManifests(tree fs.FS, name string) ([]*unstructured.Unstructured, error) {
	b, err := readLimited(tree, name)
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	line, number := 1, 0
	for _, doc := range splitDocuments(b) {
		start := line
		line += bytes.Count(doc, []byte("\n"))
		if len(bytes.TrimSpace(stripComments(doc))) == 0 {
			continue
		}
		number++
		objects, err := decode(doc, start, 0)
		if errors.Is(err, errNoObject) && strings.EqualFold(path.Ext(name), ".json") {
			continue // the settings of some tool
		}
		if masking, ok := tree.(Masking); ok && err != nil && masking.Masks(err.Error()) {
			err = errors.New("apiVersion, kind or metadata.name is sealed, which must stay readable; seal the values only, with encrypted_regex")
		}
		if err != nil {
			return nil, fmt.Errorf("%s: document %d, from line %d: %w", name, number, start, err)
		}
		out = append(out, objects...)
	}
	return out, nil
}

// splitDocuments keeps every byte, so that lines can be counted.
func splitDocuments(b []byte) [][]byte {
	var out [][]byte
	last := 0
	for _, at := range documentBreak.FindAllIndex(b, -1) {
		if at[0] > last {
			out = append(out, b[last:at[0]])
			last = at[0]
		}
	}
	out = append(out, b[last:])
	for i, doc := range out {
		if rest, ok := bytes.CutPrefix(doc, documentEnd); ok { // "..." ended the document before
			out[i] = append([]byte("   "), rest...)
		}
	}
	return out
}

// stripComments leaves what makes a document more than comments, markers and
// directives.
func stripComments(doc []byte) []byte {
	var out []byte
	for _, line := range bytes.Split(doc, []byte("\n")) {
		trimmed := bytes.TrimSpace(bytes.TrimPrefix(line, []byte("---"))) // content may follow the marker
		if len(trimmed) == 0 || trimmed[0] == '#' || line[0] == '%' {
			continue
		}
		out = append(out, line...)
		out = append(out, '\n')
	}
	return out
}

var errNoObject = errors.New("not a Kubernetes object (no apiVersion and kind); a kustomization.yaml can say which files of the folder are")

// decode returns the objects of one document that begins on line start.
func decode(doc []byte, start, depth int) ([]*unstructured.Unstructured, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("more than %d lists within one another", maxNesting)
	}
	j, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		what := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), "yaml: ")
		what = lineInError.ReplaceAllStringFunc(what, func(s string) string { // of the file, not the document
			n, _ := strconv.Atoi(strings.TrimPrefix(s, "line ")) // the pattern matched digits only
			return "line " + strconv.Itoa(n+start-1)
		})
		return nil, fmt.Errorf("not valid YAML: %s", what)
	}
	if bytes.Equal(bytes.TrimSpace(j), []byte("null")) {
		return nil, nil
	}
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name         string `json:"name"`
			GenerateName string `json:"generateName"`
		} `json:"metadata"`
		Items []json.RawMessage `json:"items"`
	}
	var notText *json.UnmarshalTypeError
	if err := json.Unmarshal(j, &head); errors.As(err, &notText) && strings.Contains(notText.Field, ".") {
		return nil, fmt.Errorf("%s is a %s, not a text; quote it (y, n, yes, no, on and off mean true and false in YAML)", notText.Field, notText.Value)
	} else if err != nil || head.APIVersion == "" || head.Kind == "" {
		return nil, errNoObject
	}
	if strings.HasSuffix(head.Kind, "List") && head.Items != nil {
		var out []*unstructured.Unstructured
		for i, item := range head.Items {
			objects, err := decode(item, start, depth+1)
			if err != nil {
				return nil, fmt.Errorf("items[%s]: %w", strconv.Itoa(i), err)
			}
			out = append(out, objects...)
		}
		return out, nil
	}
	if head.Metadata.Name == "" {
		return nil, fmt.Errorf("%s has no metadata.name (generateName is not supported: an object must be found again)", head.Kind)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(j); err != nil {
		return nil, fmt.Errorf("%s %s: not a Kubernetes object", head.Kind, head.Metadata.Name)
	}
	return []*unstructured.Unstructured{u}, nil
}
