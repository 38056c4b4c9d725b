package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

// keysFlags say whose keys a command is about.
type keysFlags struct {
	clusterFlags
	namespace string
	output    string
	timeout   time.Duration
}

func (o *keysFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	o.clusterFlags.add(f)
	f.StringVarP(&o.namespace, "namespace", "n", "gitseal-system", "namespace of the agent")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "longest time that it may take")
	addOutputFlag(cmd, &o.output)
}

// store is where the agent keeps its keys, with the rights of the caller.
func (o *keysFlags) store() (keys.Store, *rest.Config, error) {
	cfg, err := o.config()
	if err != nil {
		return keys.Store{}, nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	return keys.Store{Client: client, Namespace: o.namespace, Now: time.Now}, cfg, err
}

// checkOutput refuses an unknown format before anything is done.
func (o *keysFlags) checkOutput(more ...string) error {
	for _, known := range append([]string{"", "json", "yaml"}, more...) {
		if o.output == known {
			return nil
		}
	}
	return fmt.Errorf("output %q is not %s", o.output, strings.Join(append([]string{"json", "yaml"}, more...), ", "))
}

// print writes v where a format is asked for, else text, which is talk.
func (o *keysFlags) print(cmd *cobra.Command, v any, text string) error {
	if o.output == "" {
		fmt.Fprint(cmd.ErrOrStderr(), text)
		return nil
	}
	b, err := encode(v, o.output)
	if err != nil {
		return err
	}
	return write(cmd, "", b)
}

// explain adds a way out to what reading the published keys has come to.
func (o *keysFlags) explain(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return hint(err, "is the agent running, with --namespace %s?", o.namespace)
	case errors.Is(err, keys.ErrOldAgent):
		return hint(err, "`seal install`, or how the agent is installed")
	}
	return err
}

// mayRead adds to an error of the key Secrets whose right it is.
func (o *keysFlags) mayRead(err error) error {
	if forbidden(err) {
		return hint(err, "this needs rights on the Secrets of namespace %s, which only administrators of the agent have", o.namespace)
	}
	return err
}

func fingerprintLines(g keys.PublicGeneration) string {
	return fmt.Sprintf("recipient %s\ncertificate %s, valid until %s\n", crypto.RecipientFingerprint(g.Recipient), g.Certificate, g.NotAfter.UTC().Format(time.RFC3339))
}
