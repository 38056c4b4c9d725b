package main

import (
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/internal/kubeconfig"
	"github.com/gitseal/gitseal/internal/version"
)

// clusterFlags say which cluster a command asks.
type clusterFlags struct{ kubeconfig, context string }

func (c *clusterFlags) add(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file (default: KUBECONFIG)")
	f.StringVar(&c.context, "context", "", "context of the kubeconfig")
}

func (c clusterFlags) config() (*rest.Config, error) {
	cfg, _, err := c.configIn()
	return cfg, err
}

// configIn is config, with the namespace that the context names.
func (c clusterFlags) configIn() (*rest.Config, string, error) {
	cfg, namespace, err := kubeconfig.LoadNamespace(c.kubeconfig, c.context)
	if err != nil {
		return nil, "", hint(err, "say --kubeconfig, or set KUBECONFIG")
	}
	cfg.UserAgent = "gitseal-seal/" + version.Get().Version
	return cfg, namespace, nil
}
