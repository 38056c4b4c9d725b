package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newBuildCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Render a folder without any key",
		Long: `Render a folder as the agent would, without any key.

Sealed values are shown as placeholders (gitseal1…), so the output is safe to
print and to keep. Generated names end in another suffix than in the cluster,
since they are computed from the placeholders. Files outside DIR are found as far as
the root of the git work tree.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runBuild(cmd, folderOf(args), output)
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

func runBuild(cmd *cobra.Command, dir, output string) error {
	work, err := workTree(dir)
	if err != nil {
		return err
	}
	objects, err := work.build(cmd.Context(), work.tree)
	if err != nil {
		return err
	}
	return printObjects(cmd, objects, output)
}

// folderOf is the argument DIR, or the folder that the command runs in.
func folderOf(args []string) string {
	if len(args) == 0 {
		return "."
	}
	return args[0]
}

// workTree opens the git work tree that dir lies in, or dir itself. Symbolic
// links that leave it are refused when they are followed.
func workTree(dir string) (work, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return work{}, err
	}
	if info, err := os.Stat(abs); err != nil || !info.IsDir() {
		return work{}, fmt.Errorf("%s is not a folder", dir)
	}
	root := abs
	if git, err := findUp(abs, ".git"); err == nil {
		root = filepath.Dir(git)
	}
	folder, err := filepath.Rel(root, abs)
	if err != nil {
		return work{}, err
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return work{}, err
	}
	return work{r.FS(), root, filepath.ToSlash(folder)}, nil
}
