package main

import (
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/internal/kubeconfig"
)

// clusterFlags say which cluster a command asks.
type clusterFlags struct{ kubeconfig, context string }

func (c *clusterFlags) add(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file (default: KUBECONFIG)")
	f.StringVar(&c.context, "context", "", "context of the kubeconfig")
}

func (c clusterFlags) config() (*rest.Config, error) {
	cfg, err := kubeconfig.Load(c.kubeconfig, c.context)
	if err != nil {
		return nil, hint(err, "say --kubeconfig, or set KUBECONFIG")
	}
	return cfg, nil
}
