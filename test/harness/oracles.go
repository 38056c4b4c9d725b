package harness

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// oracle is a tool, and the module whose go.mod says its version.
type oracle struct {
	Target
	module string
}

// oracles lists the tools that our results are compared with. helm has a module of its
// own, since what it requires would change what the others are built with.
func oracles() []oracle {
	const module = "test/oracles"
	return []oracle{
		{Target{Name: "sops", Package: "github.com/getsops/sops/v3/cmd/sops"}, module},
		{Target{Name: "kubeseal", Package: "github.com/bitnami-labs/sealed-secrets/cmd/kubeseal"}, module},
		{Target{Name: "controller", Package: "github.com/bitnami-labs/sealed-secrets/cmd/controller"}, module},
		{Target{Name: "helm", Package: "helm.sh/helm/v3/cmd/helm"}, module + "/helm"},
	}
}

// Oracles returns the names that BuildOracle knows.
func Oracles() []string {
	var names []string
	for _, oracle := range oracles() {
		names = append(names, oracle.Name)
	}
	return names
}

// BuildOracle returns the path of an unmodified tool: "sops", "kubeseal", "controller"
// (that of sealed-secrets) or "helm", in the version that the go.mod of its module
// requires. Each is built alone, the first time it is asked for.
func BuildOracle(ctx context.Context, progress io.Writer, name string) (string, error) {
	all := oracles()
	i := slices.IndexFunc(all, func(o oracle) bool { return o.Name == name })
	if i < 0 {
		return "", fmt.Errorf("oracle %q: want one of %q", name, Oracles())
	}
	folder, err := Build{
		Name:    name,
		Module:  all[i].module,
		Targets: []Target{all[i].Target},
		Hint:    "about a minute on two cores",
	}.Run(ctx, progress)
	return filepath.Join(folder, name), err
}

// Oracle is BuildOracle for tests; progress goes to standard error.
func Oracle(t testing.TB, name string) string {
	t.Helper()
	path, err := BuildOracle(t.Context(), os.Stderr, name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
