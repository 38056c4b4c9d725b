// Command bench measures the agent side by side with the raw floor of the same
// work, in one run on one machine: a real control plane, a real git server, the
// tree of docs/performance.md. It prints a table; requests come from the audit
// log. With -json it writes what bench/chart draws.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	sizes := []int{1000}
	flag.Func("objects", "objects in the tree, or a list such as 1000,5000 for one run after another: 50 in each namespace, a fifth of them SOPS Secrets of four values (default 1000)", func(text string) (err error) {
		sizes, err = parseSizes(text)
		return err
	})
	flag.IntVar(&o.edits, "edits", 100, "hand edits whose repair is timed")
	flag.StringVar(&o.bin, "bin", "bin", "folder with the program agent")
	flag.IntVar(&o.wholeBuild, "whole-build", 10_000, "leave the kustomize build of the whole tree out of the raw floor above so many objects: it takes quadratic time")
	flag.StringVar(&o.json, "json", "", "file for the measured rows, in which a run replaces the one of as many objects")
	part := flag.String("part", "all", "decryption, which needs no cluster; cluster, which is one tree; syncs, which is a controller with many; rotation, of a tree of files; or all")
	syncs := flag.Int("syncs", 100, "how many Syncs of ten objects the part syncs has")
	flag.Parse()
	err := measure(ctx, o, sizes, *part)
	if err == nil && (*part == "all" || *part == "syncs") {
		err = runSyncs(ctx, o, *syncs)
	}
	if err == nil && (*part == "all" || *part == "rotation") {
		err = rotation(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, o options, sizes []int, part string) error {
	switch part {
	case "all", "decryption", "cluster":
	case "syncs", "rotation":
		return nil
	default:
		return fmt.Errorf("-part: %q is not all, decryption, cluster, syncs or rotation", part)
	}
	if part != "cluster" {
		if err := opening(ctx); err != nil {
			return err
		}
	}
	if part == "decryption" {
		return nil
	}
	for _, o.objects = range sizes {
		if err := run(ctx, o); err != nil {
			return fmt.Errorf("%d objects: %w", o.objects, err)
		}
	}
	return nil
}

func parseSizes(text string) ([]int, error) {
	var sizes []int
	for _, field := range strings.Split(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < perNamespace {
			return nil, fmt.Errorf("%q is not a number of objects, %d or more", field, perNamespace)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}
