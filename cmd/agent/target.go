package main

import (
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/internal/kubeconfig"
	"github.com/gitseal/gitseal/internal/version"
)

// clusterFlags say which cluster, which namespace of it is the agent's own, and how to log.
type clusterFlags struct {
	kubeconfig, context, namespace string
	log                            logFlags
}

func (c *clusterFlags) add(f *pflag.FlagSet, namespace string) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file (default: KUBECONFIG, or the cluster this runs in)")
	f.StringVar(&c.context, "context", "", "context of the kubeconfig")
	f.StringVar(&c.namespace, "namespace", "gitseal-system", namespace)
	c.log.add(f)
}

// connect reads the configuration; nothing is sent yet.
func (c clusterFlags) connect(stderr io.Writer) (*rest.Config, *apply.Cluster, *slog.Logger, error) {
	log, err := c.log.logger(stderr)
	if err != nil {
		return nil, nil, nil, err
	}
	cfg, err := kubeconfig.Load(c.kubeconfig, c.context)
	if err != nil {
		return nil, nil, nil, err
	}
	cfg.UserAgent = "gitseal-agent/" + version.Get().Version
	cluster, err := apply.Connect(cfg)
	return cfg, cluster, log, err
}

// target is the cluster and the sync that a command is about.
type target struct {
	clusterFlags
	name string
}

func (t *target) add(f *pflag.FlagSet) {
	t.clusterFlags.add(f, "namespace of the agent's keys and state")
	f.StringVar(&t.name, "name", "default", "name of this sync; tells several in one namespace apart")
}

func (t target) owner() apply.Owner { return apply.Owner{Namespace: t.namespace, Name: t.name} }

// auditFlag is the time between audits of the watches.
type auditFlag time.Duration

func (a *auditFlag) add(f *pflag.FlagSet, what string) {
	f.DurationVar((*time.Duration)(a), "audit-interval", 8*time.Hour, "about so long between "+what+"; 0 for none")
}

func (a auditFlag) check() error {
	if a != 0 && time.Duration(a) < time.Minute {
		return errors.New("--audit-interval must be one minute or more, or 0")
	}
	return nil
}
