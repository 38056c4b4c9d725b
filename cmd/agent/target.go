package main

import (
	"io"
	"log/slog"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/internal/kubeconfig"
	"github.com/gitseal/gitseal/internal/version"
)

// target is the cluster and the sync that a command is about.
type target struct {
	kubeconfig, context string
	namespace, name     string
	log                 logFlags
}

func (t *target) add(f *pflag.FlagSet) {
	f.StringVar(&t.kubeconfig, "kubeconfig", "", "kubeconfig file (default: KUBECONFIG, or the cluster this runs in)")
	f.StringVar(&t.context, "context", "", "context of the kubeconfig")
	f.StringVar(&t.namespace, "namespace", "gitseal-system", "namespace of the agent's keys and state")
	f.StringVar(&t.name, "name", "default", "name of this sync; tells several in one namespace apart")
	t.log.add(f)
}

func (t target) owner() apply.Owner { return apply.Owner{Namespace: t.namespace, Name: t.name} }

// connect reads the configuration; nothing is sent yet.
func (t target) connect(stderr io.Writer) (*apply.Cluster, *slog.Logger, error) {
	log, err := t.log.logger(stderr)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := t.restConfig()
	if err != nil {
		return nil, nil, err
	}
	cluster, err := apply.Connect(cfg)
	return cluster, log, err
}

func (t target) restConfig() (*rest.Config, error) {
	cfg, err := kubeconfig.Load(t.kubeconfig, t.context)
	if err != nil {
		return nil, err
	}
	cfg.UserAgent = "gitseal-agent/" + version.Get().Version
	return cfg, nil
}
