// Command bench measures the agent side by side with the raw floor of the same
// work, in one run on one machine: a real control plane, a real git server, the
// tree of docs/performance.md. It prints a table; requests come from the audit
// log.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var o options
	flag.IntVar(&o.objects, "objects", 1000, "objects in the tree: 50 in each namespace, a fifth of them SOPS Secrets of four values")
	flag.IntVar(&o.edits, "edits", 100, "hand edits whose repair is timed")
	flag.StringVar(&o.bin, "bin", "bin", "folder with the program agent")
	only := flag.Bool("decryption", false, "measure decryption alone, which needs no cluster")
	flag.Parse()
	err := opening(ctx)
	if err == nil && !*only {
		err = run(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
