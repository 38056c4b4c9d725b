package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/test/harness"
)

// rotation measures `seal rotate` next to a loop of `sops updatekeys`, which keeps the
// data keys, over the same files.
func rotation(ctx context.Context, o options) error {
	sops, err := harness.BuildOracle(ctx, os.Stderr, "sops")
	if err != nil {
		return err
	}
	seal, err := filepath.Abs(filepath.Join(o.bin, "seal"))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "gitseal-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("\n%-58s %9s\n", "rotation", "time")
	for _, c := range []struct {
		what string
		run  func(dir, identity string, files []string) error
	}{
		{"seal rotate", func(dir, identity string, _ []string) error {
			return command(ctx, dir, identity, seal, "rotate")
		}},
		{"a loop of sops updatekeys", func(dir, identity string, files []string) error {
			for _, f := range files {
				if err := command(ctx, dir, identity, sops, "updatekeys", "--yes", f); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		tree := filepath.Join(dir, c.what)
		identity, files, err := rotationTree(tree)
		if err != nil {
			return err
		}
		start := time.Now()
		if err := c.run(tree, identity, files); err != nil {
			return fmt.Errorf("%s: %w", c.what, err)
		}
		fmt.Printf("%-58s %9s\n", fmt.Sprintf("%s, %d SOPS files of 4 values", c.what, len(files)), ms(time.Since(start)))
	}
	return nil
}

func command(ctx context.Context, dir, identity, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SOPS_AGE_KEY_FILE="+identity)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// rotationTree writes files that are sealed to a key which .sops.yaml no longer names.
func rotationTree(dir string) (identity string, files []string, err error) {
	var ids [2]crypto.Identity
	for i := range ids {
		if ids[i], err = crypto.GenerateIdentity(); err != nil {
			return "", nil, err
		}
	}
	write := func(name string, content []byte) {
		path := filepath.Join(dir, name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o755)
		}
		if err == nil {
			err = os.WriteFile(path, content, 0o600)
		}
	}
	write(".git/HEAD", nil)
	write(".sops.yaml", []byte("creation_rules: [{age: "+ids[1].Recipient().String()+"}]\n"))
	write("identity", ids[0].Text().Reveal())
	for i := range sopsFiles {
		name := fmt.Sprintf("apps/%d/db.yaml", i)
		sealed, sealErr := crypto.SealSOPS(crypto.SealRequest{
			Plain:  crypto.NewSecretString(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: ns-%d}\nstringData: {a: one-%[1]d, b: two-%[1]d, c: three-%[1]d, d: four-%[1]d}\n", i)),
			Format: crypto.YAML, Now: time.Now(),
			Rule: crypto.Rule{Recipients: []crypto.Recipient{ids[0].Recipient()}, EncryptedRegex: crypto.KubernetesSelector},
		})
		if err == nil {
			err = sealErr
		}
		write(name, sealed)
		files = append(files, name)
	}
	return filepath.Join(dir, "identity"), files, err
}
