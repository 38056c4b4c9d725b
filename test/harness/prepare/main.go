// Command prepare builds everything that package harness needs into its cache, so
// that the minutes this takes do not count against a test's time limit. Give it
// the names of what to build, or nothing for all: controlplane, sops, kubeseal,
// controller, helm. It prints where each is.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/gitseal/gitseal/test/harness"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "prepare:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, names []string) error {
	const controlPlane = "controlplane"
	if len(names) == 0 {
		names = append([]string{controlPlane}, harness.Oracles()...)
	}
	for _, name := range names {
		var path string
		var err error
		if name == controlPlane {
			path, err = harness.BuildControlPlane(ctx, os.Stderr)
		} else {
			path, err = harness.BuildOracle(ctx, os.Stderr, name)
		}
		if err != nil {
			return err
		}
		fmt.Println(path)
	}
	return nil
}
