// Command demo runs gitseal's main job from end to end and tells what happens:
// against an embedded control plane or, with KUBECONFIG, a cluster of the
// user's own, in namespaces that it makes and removes.
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
	signal.Ignore(syscall.SIGPIPE) // `make demo | head` must clean up all the same
	bin := flag.String("bin", "bin", "folder with the programs seal and agent")
	flag.Parse()
	if err := run(ctx, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string) (err error) {
	s, err := newStage(ctx, bin)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.showAgentLog()
		}
		s.close()
	}()
	for _, step := range steps {
		if err := s.play(ctx, step); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	s.table()
	return nil
}
