// Command prepare builds everything that package harness needs into its cache, so
// that the minutes this takes do not count against a test's time limit. Give it
// the names of what to build, or nothing for all: controlplane, sops, kubeseal,
// controller, helm, buildah. It prints where each is. Of all, buildah may be missing:
// its test says so.
package main

import (
	"context"
	"errors"
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
	const controlPlane, buildah = "controlplane", "buildah"
	all := len(names) == 0
	if all {
		names = append(append([]string{controlPlane}, harness.Oracles()...), buildah)
	}
	for _, name := range names {
		var path string
		var err error
		switch name {
		case controlPlane:
			path, err = harness.BuildControlPlane(ctx, os.Stderr)
		case buildah:
			var b harness.Buildah
			b, err = harness.FetchBuildah(ctx, os.Stderr)
			path = b.Path
			if all && errors.Is(err, harness.ErrNoBuildah) {
				fmt.Fprintln(os.Stderr, "prepare:", err)
				continue
			}
		default:
			path, err = harness.BuildOracle(ctx, os.Stderr, name)
		}
		if err != nil {
			return err
		}
		fmt.Println(path)
	}
	return nil
}
