package build

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
)

const maxNesting = 64 // kustomizations that include one another

// KustomizationError says what a kustomization asks for that is refused.
type KustomizationError struct {
	File, Field, What string
}

func (e *KustomizationError) Error() string {
	if e.Field == "" {
		return e.File + ": " + e.What
	}
	return fmt.Sprintf("%s: %s: %s", e.File, e.Field, e.What)
}

// preflight reads every kustomization that the build of dir will read. The
// library would fetch what is a URL over the network, and run git, even from
// an in-memory tree, and has no option against it.
// It returns the replacements that may cut a sealed value.
func preflight(tree fs.FS, dir string) ([]cut, error) {
	c := &checker{tree: tree, seen: map[string]bool{}}
	err := c.folder(dir, 0)
	return c.cuts, err
}

type checker struct {
	tree fs.FS
	seen map[string]bool
	cuts []cut
}

func (c *checker) folder(dir string, depth int) error {
	file := kustomizationIn(c.tree, dir)
	if file == "" || c.seen[file] {
		return nil
	}
	c.seen[file] = true
	if depth > maxNesting {
		return &KustomizationError{file, "", fmt.Sprintf("more than %d kustomizations include one another", maxNesting)}
	}
	b, err := readLimited(c.tree, file)
	if err != nil {
		return err
	}
	var k types.Kustomization
	if err := k.Unmarshal(b); err != nil {
		return &KustomizationError{file, "", "not a valid kustomization: " + strings.TrimPrefix(err.Error(), "invalid Kustomization: ")}
	}
	if err := refused(file, &k); err != nil {
		return err
	}
	if err := c.plugins(file, dir, &k); err != nil {
		return err
	}
	if err := c.replacements(file, dir, k.Replacements); err != nil {
		return err
	}
	for _, p := range paths(&k) {
		if p.inline && isInline(p.value) {
			continue
		}
		target, err := c.local(file, dir, p)
		if err != nil {
			return err
		}
		if info, err := fs.Stat(c.tree, target); err == nil && info.IsDir() {
			if err := c.folder(target, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// refused lists what would leave the tree or change other builds.
func refused(file string, k *types.Kustomization) error {
	switch {
	case len(k.HelmCharts) > 0 || len(k.HelmChartInflationGenerator) > 0 || k.HelmGlobals != nil:
		return &KustomizationError{file, "helmCharts", "not supported: charts are fetched and run by helm; render them in CI or use a HelmRelease"}
	case len(k.OpenAPI) > 0:
		return &KustomizationError{file, "openapi", "not supported: kustomize keeps the schema for every later build in the process"}
	}
	return nil
}

type pathEntry struct {
	field, value string
	inline       bool // may hold YAML instead of a path
}

// paths lists every field of a kustomization that names a file or folder.
func paths(k *types.Kustomization) []pathEntry {
	var out []pathEntry
	add := func(field string, inline bool, values ...string) {
		for i, v := range values {
			out = append(out, pathEntry{fmt.Sprintf("%s[%d]", field, i), v, inline})
		}
	}
	one := func(field, value string) {
		if value != "" {
			out = append(out, pathEntry{field: field, value: value})
		}
	}
	add("resources", false, k.Resources...)
	//lint:ignore SA1019 trees in the field still use it
	add("bases", false, k.Bases...)
	add("components", false, k.Components...)
	add("crds", false, k.Crds...)
	add("configurations", false, k.Configurations...)
	for i, p := range k.Patches {
		one(fmt.Sprintf("patches[%d].path", i), p.Path)
	}
	//lint:ignore SA1019 trees in the field still use it
	for i, p := range k.PatchesJson6902 {
		one(fmt.Sprintf("patchesJson6902[%d].path", i), p.Path)
	}
	//lint:ignore SA1019 trees in the field still use it
	for _, p := range k.PatchesStrategicMerge {
		add("patchesStrategicMerge", true, string(p))
	}
	for i, r := range k.Replacements {
		one(fmt.Sprintf("replacements[%d].path", i), r.Path)
	}
	sources := func(field string, s types.KvPairSources) {
		for i, f := range s.FileSources {
			if _, file, ok := strings.Cut(f, "="); ok {
				f = file
			}
			one(fmt.Sprintf("%s.files[%d]", field, i), f)
		}
		add(field+".envs", false, s.EnvSources...)
		one(field+".env", s.EnvSource)
	}
	for i, g := range k.ConfigMapGenerator {
		sources(fmt.Sprintf("configMapGenerator[%d]", i), g.KvPairSources)
	}
	for i, g := range k.SecretGenerator {
		sources(fmt.Sprintf("secretGenerator[%d]", i), g.KvPairSources)
	}
	return out
}

// local resolves an entry to a path of the tree that exists.
func (c *checker) local(file, dir string, p pathEntry) (string, error) {
	if looksRemote(p.value) {
		return "", &KustomizationError{file, p.field, fmt.Sprintf("%q is a remote address; gitseal renders only what the repository holds: copy it in", p.value)}
	}
	target := path.Join(dir, p.value)
	if strings.HasPrefix(p.value, "/") {
		target = strings.TrimPrefix(path.Clean(p.value), "/")
	}
	if !fs.ValidPath(target) {
		return "", &KustomizationError{file, p.field, fmt.Sprintf("%q is outside the repository", p.value)}
	}
	if _, err := fs.Stat(c.tree, target); err != nil {
		return "", &KustomizationError{file, p.field, fmt.Sprintf("%q does not exist in the repository (looked for %s)", p.value, target)}
	}
	return target, nil
}

// scpUser is what kustomize takes for the user of an address like git@host/path.
var scpUser = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9-]*@`)

// looksRemote is wider than what kustomize takes for a URL or git address, and
// as blind to case: a folder of that name is not read either, since kustomize
// would run git for it.
func looksRemote(v string) bool {
	v = strings.ToLower(strings.TrimSpace(v))
	return strings.Contains(v, "://") || strings.Contains(v, "::") || strings.Contains(v, "?") ||
		strings.Contains(v, ".git/") || strings.HasSuffix(v, ".git") || strings.Contains(v, "/_git/") ||
		strings.Contains(v, "@") && strings.Contains(v, ":") || scpUser.MatchString(v) ||
		strings.HasPrefix(v, "github.com/") || strings.HasPrefix(v, "github.com:") || strings.HasPrefix(v, "gh:") ||
		strings.HasPrefix(v, "http:") || strings.HasPrefix(v, "https:")
}

func readLimited(tree fs.FS, name string) ([]byte, error) {
	b, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) > MaxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, MaxFileBytes>>20)
	}
	return b, nil
}
