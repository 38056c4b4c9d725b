// Command seal seals secrets on laptops and in CI, with public keys only, and shows
// and steers what the agent keeps applied.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/internal/version"
)

// Exit codes, the same for every command.
const (
	exitOK           = 0
	exitFindings     = 1 // a difference, or something found
	exitError        = 2 // usage, or an error
	exitUnauthorised = 3 // no right, or no key that opens something
	exitTimeout      = 4
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// hinted is an error with a way out.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

func hint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// findings ends a command with exit code 1.
type findings struct{ text string }

func (f *findings) Error() string { return f.text }

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "error:", err)
	var h *hinted
	if errors.As(err, &h) {
		fmt.Fprintln(stderr, "hint:", h.hint)
	}
	var f *findings
	var k *noKeyError
	switch {
	case errors.As(err, &f):
		return exitFindings
	case forbidden(err), errors.As(err, &k):
		return exitUnauthorised
	case errors.Is(err, context.DeadlineExceeded) || apierrors.IsTimeout(err):
		return exitTimeout
	default:
		return exitError
	}
}

func forbidden(err error) bool {
	var r *apply.RefusedError
	if errors.As(err, &r) {
		return r.Code == http.StatusForbidden || r.Code == http.StatusUnauthorized
	}
	return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "seal",
		Short: "Seal secrets for git, with public keys only",
		Long: `Seal secrets for git, with public keys only.

Sealed files are standard: SOPS files with age recipients, and SealedSecrets.
Only the agent in the cluster can open them. No command talks to a cluster but
'install', 'keys', 'diff', 'rotate' without a private key, and those about Syncs: 'get',
'status', 'reconcile', 'suspend' and 'resume'.

Exit codes: 0 fine, 1 a difference or a finding, 2 an error, 3 not authorised, or no
key that opens a file, 4 timeout.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Get().Version,
	}
	keys := group(&cobra.Command{Use: "keys", Short: "Work with the cluster's keys"})
	keys.AddCommand(newKeysFetchCommand(), newKeysListCommand(), newKeysNewCommand(), newKeysBackupCommand(), newKeysRestoreCommand(), newKeysImportCommand(), newKeysRetireCommand())
	root.AddCommand(keys, newEncryptCommand(), newSecretCommand(), newSealedSecretCommand(), newRotateCommand(), newBuildCommand(), newDiffCommand(), newInstallCommand(),
		newGetCommand(), newStatusCommand(), newReconcileCommand(), newSuspendCommand(), newResumeCommand(), version.NewCommand())
	return root
}

// group makes a command that only holds others say so when it is given a word
// that is none of them.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		}
		return cmd.Help()
	}
	return cmd
}
