package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/types"
)

// plugins checks the configurations of generators, transformers and
// validators. They are resources of their own, inline or in a file, with
// further fields that kustomize would fetch from a URL.
func (c *checker) plugins(file, dir string, k *types.Kustomization) error {
	for _, list := range []struct {
		field   string
		entries []string
	}{{"generators", k.Generators}, {"transformers", k.Transformers}, {"validators", k.Validators}} {
		for i, entry := range list.entries {
			p := pathEntry{field: fmt.Sprintf("%s[%d]", list.field, i), value: entry}
			if err := c.plugin(file, dir, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) plugin(file, dir string, p pathEntry) error {
	if isInline(p.value) {
		return c.pluginConfigs(file, dir, p.field, inlineDocuments(p.value))
	}
	target, err := c.local(file, dir, p)
	if err != nil {
		return err
	}
	if info, err := fs.Stat(c.tree, target); err == nil && info.IsDir() {
		return &KustomizationError{file, p.field, fmt.Sprintf("%q is a folder; name the files in it", p.value)}
	}
	b, err := readLimited(c.tree, target)
	if err != nil {
		return err
	}
	docs := inlineDocuments(string(b))
	if docs == nil {
		return &KustomizationError{file, p.field, fmt.Sprintf("%s holds no generator or transformer", target)}
	}
	return c.pluginConfigs(target, dir, "", docs)
}

func (c *checker) pluginConfigs(file, dir, field string, docs []map[string]any) error {
	for _, doc := range docs {
		if doc["apiVersion"] != "builtin" {
			return &KustomizationError{file, field, fmt.Sprintf("%v %v is not built into kustomize; plugins and functions are programs and are not run", doc["apiVersion"], doc["kind"])}
		}
		if doc["kind"] == "HelmChartInflationGenerator" {
			return &KustomizationError{file, field, "HelmChartInflationGenerator is not supported: charts are fetched and run by helm; render them in CI or use a HelmRelease"}
		}
		if err := c.pluginPaths(file, dir, field, doc); err != nil {
			return err
		}
		if err := c.transformerReplacements(file, dir, doc); err != nil {
			return err
		}
	}
	return nil
}

// pluginPaths checks what a configuration names that kustomize would read. It
// takes the names of fields in any case, and so does this.
func (c *checker) pluginPaths(file, dir, at string, doc map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(doc)) {
		field := strings.TrimPrefix(at+"."+key, ".")
		var values []string
		switch strings.ToLower(key) {
		case "path", "targetfilepath", "env", "envs":
			values = texts(doc[key])
		case "files":
			for _, v := range texts(doc[key]) {
				_, source, ok := strings.Cut(v, "=")
				if !ok {
					source = v
				}
				values = append(values, source)
			}
		case "paths":
			for _, v := range texts(doc[key]) {
				if !isInline(v) {
					values = append(values, v)
				}
			}
		case "replacements":
			list, _ := doc[key].([]any)
			for i, item := range list {
				if r, ok := item.(map[string]any); ok {
					if err := c.pluginPaths(file, dir, fmt.Sprintf("%s[%d]", field, i), r); err != nil {
						return err
					}
				}
			}
		}
		for _, v := range values {
			if v == "" {
				continue
			}
			if _, err := c.local(file, dir, pathEntry{field: field, value: v}); err != nil {
				return err
			}
		}
	}
	return nil
}

func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, item := range v {
			out = append(out, texts(item)...)
		}
		return out
	}
	return nil
}

// addressStart is how everything begins that kustomize takes for a URL or git
// address.
var addressStart = regexp.MustCompile(`(?i)^\s*(?:git::|[a-z]+://|https?:|[a-z][a-z0-9-]*@|github\.com[/:])`)

// isInline reports whether an entry is a configuration or patch itself, not the
// path of one. kustomize tries the one and then the other, so what could be an
// address never counts as inline.
func isInline(text string) bool {
	return !addressStart.MatchString(text) && inlineDocuments(text) != nil
}

// inlineDocuments returns the documents of text where it is YAML maps, and nil
// where kustomize would take it for a path.
func inlineDocuments(text string) []map[string]any {
	var out []map[string]any
	d := yaml.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		var doc any
		switch err := d.Decode(&doc); {
		case errors.Is(err, io.EOF):
			return out
		case err != nil:
			return nil
		case doc == nil:
			continue
		}
		m, ok := doc.(map[string]any)
		if !ok {
			return nil
		}
		out = append(out, m)
	}
}
