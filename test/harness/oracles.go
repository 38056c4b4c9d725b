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

// oracles lists the tools that our results are compared with.
func oracles() []Target {
	return []Target{
		{Name: "sops", Package: "github.com/getsops/sops/v3/cmd/sops"},
		{Name: "kubeseal", Package: "github.com/bitnami-labs/sealed-secrets/cmd/kubeseal"},
		{Name: "controller", Package: "github.com/bitnami-labs/sealed-secrets/cmd/controller"},
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

// BuildOracle returns the path of an unmodified tool: "sops", "kubeseal" or
// "controller" (that of sealed-secrets), in the version that test/oracles/go.mod
// requires. Each is built alone, the first time it is asked for.
func BuildOracle(ctx context.Context, progress io.Writer, name string) (string, error) {
	all := oracles()
	i := slices.IndexFunc(all, func(t Target) bool { return t.Name == name })
	if i < 0 {
		return "", fmt.Errorf("oracle %q: want one of %q", name, Oracles())
	}
	folder, err := Build{
		Name:    name,
		Module:  "test/oracles",
		Targets: all[i : i+1],
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
