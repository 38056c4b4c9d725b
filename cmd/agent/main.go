// Command agent applies what a git repository holds to a cluster, sealed
// secrets included. It runs in the cluster, or next to another pipeline.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // --once did not apply everything
	exitUsage  = 2 // flags, configuration, or no start possible
)

// gcPercent trades processor time for memory: a sidecar is mostly idle, and its
// memory is paid for all day. GOGC in the environment wins. Near MEMORY_LIMIT, the pod's
// own in bytes, garbage is collected more often; there GOMEMLIMIT wins.
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if limit, err := strconv.ParseInt(os.Getenv("MEMORY_LIMIT"), 10, 64); err == nil && limit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(limit / 10 * 9)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// errNotApplied is returned by a pass whose failures were printed already.
var errNotApplied = errors.New("not everything was done")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o controllerOptions
	root := &cobra.Command{
		Use:   "agent",
		Short: "Apply what git holds to a cluster, sealed secrets included",
		Long: `Apply what git holds to a cluster, sealed secrets included.

Without a command it runs as a controller: it keeps every Sync of the cluster
applied. 'agent sync' keeps one folder of one repository applied, from flags
alone, and needs no Sync and no CRD.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.Flags().Changed("protect"), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Get().Version,
	}
	o.add(root)
	root.AddCommand(newSyncCommand(), newDeleteCommand(), version.NewCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errNotApplied):
		fmt.Fprintln(stderr, "error:", err)
		return exitFailed
	default:
		fmt.Fprintln(stderr, "error:", err)
		return exitUsage
	}
}
