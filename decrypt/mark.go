package decrypt

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// markItems puts the mark of a file that could not be opened on the items of
// each List in it: a build takes them out and drops the List with its own mark.
// A file without a List is returned as it is.
func markItems(masked []byte, mark string) []byte {
	var docs []any
	found := false
	for d := yaml.NewDecoder(bytes.NewReader(masked)); ; {
		var doc any
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return masked // nothing that a build could read
		}
		found = markList(doc, mark) || found
		docs = append(docs, doc)
	}
	if !found {
		return masked
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	for _, doc := range docs {
		if err := e.Encode(doc); err != nil {
			return masked
		}
	}
	return out.Bytes()
}

func markList(doc any, mark string) bool {
	object, _ := doc.(map[string]any)
	kind, _ := object["kind"].(string)
	items, ok := object["items"].([]any)
	if !ok || !strings.HasSuffix(kind, "List") {
		return false
	}
	for _, item := range items {
		if markList(item, mark) {
			continue
		}
		if item, ok := item.(map[string]any); ok {
			meta, _ := item["metadata"].(map[string]any)
			if meta == nil {
				meta = map[string]any{}
				item["metadata"] = meta
			}
			annotations, _ := meta["annotations"].(map[string]any)
			if annotations == nil {
				annotations = map[string]any{}
				meta["annotations"] = annotations
			}
			annotations["gitseal.io/unopened"] = mark
		}
	}
	return true
}
