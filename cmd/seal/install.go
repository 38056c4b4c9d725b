package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/gitseal/gitseal/deploy"
	"github.com/gitseal/gitseal/internal/version"
)

type installOptions struct {
	clusterFlags
	deploy         deploy.Options
	export         bool
	dryRun         string
	forceConflicts bool
	output         string
	timeout        time.Duration
}

func newInstallCommand() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the agent, or print its manifests",
		Long: `Install the agent, or print its manifests.

The manifests are in this program; no network but the cluster's is used. They are
applied by server-side apply: the namespace and the CRD first, and the rest once the CRD
is served. Again, it upgrades; what is gone from the manifests since is not deleted.

Without --watch-namespaces the agent keeps the Syncs of all namespaces, and may act as
every service account. With it, it has rights in these namespaces, which must exist, and
in its own, only.

Components: ha (three replicas), monitoring (for the Prometheus operator), cluster-admin
(service account gitseal-applier, for Syncs in the agent's namespace that apply anything).`,
		Example: `  seal install --components ha,monitoring
  seal install --export > gitseal.yaml
  seal install --watch-namespaces team-a,team-b --dry-run=server`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	o.clusterFlags.add(f)
	f.StringVar(&o.deploy.Namespace, "namespace", deploy.Namespace, "namespace of the agent, its keys and state")
	f.StringVar(&o.deploy.Image, "image", "", "image of the agent, with tag or digest (default: that of this version)")
	f.IntVar(&o.deploy.Replicas, "replicas", 0, "replicas, of which one works (default: 1, with ha 3)")
	f.StringSliceVar(&o.deploy.WatchNamespaces, "watch-namespaces", nil, "give the agent rights in these namespaces and its own only (default: the whole cluster)")
	f.StringSliceVar(&o.deploy.Components, "components", nil, "further parts: "+strings.Join(deploy.Components(), ", "))
	f.BoolVar(&o.export, "export", false, "print the manifests, and ask no cluster")
	f.StringVar(&o.dryRun, "dry-run", "none", "none; client: say what would be applied, and ask no cluster; server: ask the API server, which stores nothing")
	f.BoolVar(&o.forceConflicts, "force-conflicts", false, "take over fields that others have set")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "longest time that it may take")
	addOutputFlag(cmd, &o.output)
	cmd.MarkFlagsMutuallyExclusive("export", "dry-run")
	return cmd
}

func (o installOptions) run(cmd *cobra.Command) error {
	if o.dryRun != "none" && o.dryRun != "client" && o.dryRun != "server" {
		return fmt.Errorf("--dry-run: %q is not none, client or server", o.dryRun)
	}
	objects, err := deploy.Render(cmd.Context(), o.deploy)
	if err != nil {
		return err
	}
	switch {
	case o.export:
		return printObjects(cmd, objects, o.output)
	case o.output != "":
		return fmt.Errorf("--output is for --export")
	case o.dryRun == "client":
		for _, object := range objects {
			fmt.Fprintln(cmd.OutOrStdout(), nameOf(object), "serverside-applied (dry run)")
		}
		return nil
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	cfg.UserAgent = "gitseal-seal/" + version.Get().Version
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	mode := deploy.Apply
	switch {
	case o.dryRun == "server":
		mode = deploy.DryRun
	case o.forceConflicts:
		mode = deploy.Force
	}
	err = deploy.Install(ctx, cfg, objects, mode, func(object *unstructured.Unstructured, outcome deploy.Outcome) {
		fmt.Fprintln(cmd.OutOrStdout(), nameOf(object), outcome)
	})
	switch {
	case apierrors.IsConflict(err):
		return hint(err, "--force-conflicts takes these fields over; where the agent keeps itself from git, change git instead")
	case meta.IsNoMatchError(err):
		return hint(err, "install the Prometheus operator first, or leave out --components monitoring")
	case apierrors.IsNotFound(err) && len(o.deploy.WatchNamespaces) > 0:
		return hint(err, "make the namespaces of --watch-namespaces first")
	}
	return err
}

// nameOf is an object as kubectl names it.
func nameOf(o *unstructured.Unstructured) string {
	kind := strings.ToLower(o.GetKind())
	if group := o.GroupVersionKind().Group; group != "" {
		kind += "." + group
	}
	return kind + "/" + o.GetName()
}

// printObjects writes objects to standard output: as a stream of YAML, or a List of JSON.
func printObjects(cmd *cobra.Command, objects []*unstructured.Unstructured, output string) error {
	var out []byte
	items := make([]any, len(objects))
	for i, o := range objects {
		items[i] = o.Object
		if output != "json" {
			b, err := encode(o.Object, output)
			if err != nil {
				return err
			}
			out = append(out, b...)
		}
	}
	if output == "json" {
		b, err := encode(map[string]any{"apiVersion": "v1", "kind": "List", "items": items}, output)
		if err != nil {
			return err
		}
		out = b
	}
	return write(cmd, "", out)
}
