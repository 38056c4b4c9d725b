package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

type rotateOptions struct {
	clusterFlags
	agent      string // its namespace
	cluster    bool
	sameKey    bool
	timeout    time.Duration
	rule       ruleFlags
	cert       certFlag
	identities []string
	sealKeys   []string
	namespace  string
	keepData   bool
	dryRun     bool
	check      bool
	emergency  bool
	commit     bool
	output     string
}

func newRotateCommand() *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "rotate [DIR]",
		Short: "Seal every sealed file of a tree anew",
		Long: `Seal every sealed file of a tree anew: SOPS files and SealedSecrets.

SOPS files get a new data key, sealed to the recipients of the creation rule that
fits them, and SealedSecrets are sealed to the certificate of the repository, in
their scope. Everything else of a file stays as it is, byte for byte: comments,
order, layout, selectors, templates, labels. Each file is replaced as a whole or
not at all; a command that was interrupted goes on where it stopped.

Without a private key it works through the cluster: the agent makes a new key, whose
public half is written into the repository as 'seal keys fetch' does, and seals the
files anew, which it alone can open. Only ciphertext leaves the cluster. Recipients
besides the cluster must be listed in the ConfigMap gitseal-recipients of the agent's
namespace, which administrators write. It needs the rights of the Role gitseal-resealer.

With private keys that you hold it works offline: age identities by --identity, or by
SOPS_AGE_KEY_FILE and SOPS_AGE_KEY as for sops, and keys of sealed-secrets by
--seal-key. --check and --dry-run need no key.

When the new files are committed and applied, 'seal keys retire' ends the old key.`,
		Example: `  seal rotate --commit                         # a new key of the cluster, and all files sealed to it
  seal rotate --identity ~/old.agekey apps     # offline
  seal rotate --seal-key sealed-secrets-key.yaml --commit
  seal rotate --check                          # in CI: are all files sealed as .sops.yaml says?
  seal rotate --emergency --identity old.agekey    # and what must be changed at its source`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, folderOf(args)) },
	}
	o.rule.add(cmd)
	o.cert.add(cmd)
	f := cmd.Flags()
	o.clusterFlags.add(f)
	f.StringVar(&o.agent, "agent-namespace", "gitseal-system", "namespace of the agent")
	f.BoolVar(&o.cluster, "cluster", false, "through the cluster, also where the environment names private keys")
	f.BoolVar(&o.sameKey, "same-key", false, "through the cluster, to the key that it has, instead of a new one")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "longest time to wait for an answer of the agent")
	f.StringArrayVar(&o.identities, "identity", nil, "file of age identities, or OpenPGP private keys, to open files with; may be repeated")
	f.StringArrayVar(&o.sealKeys, "seal-key", nil, "private key of sealed-secrets, as PEM or as its Secret, to open SealedSecrets with; may be repeated")
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace of SealedSecrets that name none")
	f.BoolVar(&o.keepData, "keep-data-key", false, "seal the old data keys to the recipients, and leave the values as they are")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done")
	f.BoolVar(&o.check, "check", false, "list the files that are not sealed as .sops.yaml says, and end with exit code 1 if there are any")
	f.BoolVar(&o.emergency, "emergency", false, "a key has leaked: list every value that must be replaced at its source")
	f.BoolVar(&o.commit, "commit", false, "commit the files with git")
	addOutputFlag(cmd, &o.output)
	cmd.MarkFlagsMutuallyExclusive("dry-run", "check", "commit")
	cmd.MarkFlagsMutuallyExclusive("emergency", "check")
	for _, flag := range []string{"identity", "seal-key"} {
		cmd.MarkFlagsMutuallyExclusive("cluster", flag)
		cmd.MarkFlagsMutuallyExclusive("same-key", flag)
	}
	return cmd
}

func (o rotateOptions) run(cmd *cobra.Command, dir string) error {
	if o.output != "" && o.output != "json" && o.output != "yaml" {
		return fmt.Errorf("output %q is not json or yaml", o.output)
	}
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	keys, err := o.keys(cmd)
	if err != nil {
		return err
	}
	if o.check || o.dryRun {
		tree, err := findSealed(cmd.Context(), root, keys)
		if err != nil {
			return err
		}
		plan := o.plan(tree, root)
		if o.check {
			return o.printCheck(cmd, plan)
		}
		return o.printDryRun(cmd, plan)
	}
	return o.rotate(cmd, root, keys)
}

func (o rotateOptions) rotate(cmd *cobra.Command, root string, keys offlineKeys) error {
	state, err := openRotation(root, time.Now())
	if err != nil {
		return err
	}
	defer state.close()
	if err := removeLeftovers(root); err != nil {
		return err
	}
	r := rotation{resealer: offline{keys: keys, now: time.Now()}, state: state, size: offlineBatch}
	var written []string // public keys
	if o.cluster || o.sameKey || keys.none() {
		through, err := o.connect()
		if err != nil {
			return err
		}
		if written, err = through.newKey(cmd, repositoryOf(root), o.sameKey, state); err != nil {
			return err
		}
		r.resealer, r.size, keys = through, clusterBatch, offlineKeys{}
	}
	tree, err := findSealed(cmd.Context(), root, keys)
	if err != nil {
		return err
	}
	plan := o.plan(tree, root)
	for i := range plan {
		plan[i].keep = o.keepData
		plan[i].done = plan[i].err == nil && state.finished(plan[i], plan[i].raw)
	}
	var git *committer
	if o.commit {
		if git, err = newCommitter(cmd, root, plan, written); err != nil {
			return err
		}
	}
	r.progress = newProgress(cmd.ErrOrStderr(), len(plan))
	r.run(cmd.Context(), plan)
	report := o.report(plan)
	err = rotateOutcome(cmd.Context(), plan)
	if err == nil && git != nil {
		report.Commit, err = git.commit(cmd.Context(), plan)
	}
	if err == nil {
		err = errors.Join(syncFolders(plan), state.remove())
	}
	return errors.Join(o.print(cmd, report), err)
}

// noKeyError ends a command with exit code 3: something can not be opened with what
// is held.
type noKeyError struct{ text string }

func (e *noKeyError) Error() string { return e.text }

// rotateOutcome is the error of the whole command.
func rotateOutcome(ctx context.Context, plan []plannedFile) error {
	left, failed, noKey := 0, 0, 0
	for _, p := range plan {
		switch {
		case p.err != nil && errors.Is(p.err, context.Cause(ctx)) && ctx.Err() != nil:
			left++
		case p.err != nil && lacksKey(p.err):
			noKey++
		case p.err != nil:
			failed++
		}
	}
	switch {
	case left > 0:
		return hint(fmt.Errorf("%d of %d files are left: %w", left, len(plan), context.Cause(ctx)), "run it again to go on")
	case noKey > 0:
		return hint(&noKeyError{fmt.Sprintf("%d of %d files can not be opened with the keys at hand", noKey, len(plan))}, "run it again with more keys, or with --cluster: what is done is not done again")
	case failed > 0:
		return fmt.Errorf("%d of %d files could not be sealed anew", failed, len(plan))
	}
	return nil
}
