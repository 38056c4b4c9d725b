package main

import (
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/keys"
)

// keysFlags say how the agent's own keys are kept.
type keysFlags struct{ requireBackup bool }

func (k *keysFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&k.requireBackup, "require-key-backup", false, "a new key generation becomes active only once 'seal keys backup' has written it; the very first one is at once")
}

// keeper follows the keys; changed is told when they are others.
func (k keysFlags) keeper(cluster *apply.Cluster, store keys.Store, log *slog.Logger, changed func()) keys.Keeper {
	return keys.Keeper{Store: store, Metadata: cluster.Metadata(), RequireBackup: k.requireBackup, Changed: changed, Log: log}
}
