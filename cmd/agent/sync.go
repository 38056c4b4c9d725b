package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/decrypt"
	"github.com/gitseal/gitseal/internal/version"
	"github.com/gitseal/gitseal/keys"
	"github.com/gitseal/gitseal/reconcile"
	"github.com/gitseal/gitseal/source"
)

// syncOptions are the flags of `agent sync`.
type syncOptions struct {
	url, branch, tag, commit, path string
	git                            gitFlags

	target
	targetNamespace            string
	interval, timeout          time.Duration
	audit                      auditFlag
	once, wait                 bool
	waitTimeout                time.Duration
	prune, confirmSourceChange bool
	force                      bool
	pruneLimit, pruneConfirm   string
	drift                      string
	ignoreFields               []string
	binding, plaintext, mac    string
	outside, sealedSecrets     string
	deprecatedData             bool
	decryptionSecret           string
	sealedSecretsFrom          []string
	output                     string
	keys                       keysFlags
}

func newSyncCommand() *cobra.Command {
	var o syncOptions
	cmd := &cobra.Command{
		Use:   "sync --url URL [--ref BRANCH] [--path DIR]",
		Short: "Keep a cluster in step with one folder of one repository",
		Long: `Keep a cluster in step with one folder of one repository.

The agent makes its keys at the first start, in --namespace, and publishes their
public halves there in the ConfigMap gitseal-keys, for 'seal keys fetch'. Then it
looks at git at every --interval, applies what changed, prunes what left git, and
puts back what others change in the cluster. All its state is in the cluster.

A second agent with the same --namespace and --name waits until the first ends.`,
		Example: `  # the sidecar
  agent sync --url https://git.example/team/deploy.git --ref main --path apps

  # once, as a job, with credentials from a Secret of --namespace
  agent sync --url ssh://git@git.example/team/deploy.git --git-secret deploy-key --once -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.url, "url", "", "repository: https, http, ssh or file URL, or git@host:path (required)")
	f.StringVar(&o.branch, "ref", "", "branch to follow (default: the repository's HEAD)")
	f.StringVar(&o.tag, "tag", "", "tag to follow, instead of a branch")
	f.StringVar(&o.commit, "commit", "", "full commit hash to hold, instead of a branch")
	f.StringVar(&o.path, "path", ".", "folder of the repository to apply")
	o.git.add(f)
	o.target.add(f)
	f.StringVarP(&o.targetNamespace, "target-namespace", "n", "default", "namespace for objects that name none")
	f.DurationVar(&o.interval, "interval", time.Minute, "time between looks at git")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "longest time that one fetch may take")
	f.BoolVar(&o.once, "once", false, "apply once and exit: 0 if everything is applied, else 1")
	f.BoolVar(&o.wait, "wait", false, "wait until what was applied is ready, and report what is not; a newer commit ends the wait")
	f.DurationVar(&o.waitTimeout, "wait-timeout", 5*time.Minute, "longest time that --wait waits, and that a wave (gitseal.io/wave) waits for the one before it to be ready")
	f.BoolVar(&o.force, "force", false, "delete objects and make them anew where a field of them can not be changed")
	f.BoolVar(&o.prune, "prune", true, "delete objects that left git")
	f.StringVar(&o.pruneLimit, "prune-limit", "", "block a pass that would prune more than this number or percentage (default: more than 10 objects and more than half)")
	f.StringVar(&o.pruneConfirm, "prune-confirm", "", "commit whose prunes may exceed the limit")
	f.BoolVar(&o.confirmSourceChange, "confirm-source-change", false, "prune although --url or --path differ from the last time")
	f.StringVar(&o.drift, "drift", string(reconcile.Correct), "what to do with changes made in the cluster: Correct or Report")
	o.audit.add(f, "audits, which list the metadata of what was applied and count what the watches missed")
	f.StringArrayVar(&o.ignoreFields, "ignore-fields", nil, "fields that others may take over once they have written them, as KIND[.GROUP][/NAME]:/JSON/POINTER[,…], for instance Deployment.apps/web:/spec/replicas (may be repeated)")
	f.StringVar(&o.binding, "binding", string(decrypt.BindingIfPresent), "sealed files must say which object they are for: Required or IfPresent")
	f.StringVar(&o.plaintext, "plaintext-secrets", string(decrypt.PlaintextDeny), "Secrets that lie in git in the clear: Deny, Warn or Allow")
	f.StringVar(&o.mac, "mac", string(crypto.MACRequired), "SOPS files whose MAC is missing or wrong: Required refuses them, Warn lets them in")
	f.StringVar(&o.outside, "outside-secrets", string(decrypt.OutsideDeny), "sealed values outside of a Secret's data: Deny, or Allow into the very field that was sealed")
	f.StringVar(&o.sealedSecrets, "sealed-secrets", string(decrypt.Unseal), "SealedSecret objects: Unseal opens them here, PassThrough leaves them to the sealed-secrets controller")
	f.BoolVar(&o.deprecatedData, "accept-deprecated-v1-data", false, "open SealedSecrets that hold one blob for the whole Secret (spec.data)")
	f.StringVar(&o.decryptionSecret, "decryption-secret", "", "Secret of --namespace whose *.agekey and *.asc entries open files too")
	f.StringArrayVar(&o.sealedSecretsFrom, "sealed-secrets-keys-from", nil, "namespace whose sealed-secrets key Secrets open SealedSecrets too (may be repeated)")
	o.keys.add(f)
	f.StringVarP(&o.output, "output", "o", "", "with --once, print the report as json or yaml")
	return cmd
}

var commitHash = regexp.MustCompile(`^[0-9a-f]{40}$`)

// config turns the flags into the configuration of a Sync.
func (o syncOptions) config() (reconcile.Config, error) {
	var errs []error
	if o.url == "" {
		errs = append(errs, errors.New("--url is required"))
	}
	for _, ns := range o.sealedSecretsFrom {
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("--sealed-secrets-keys-from: %q: %s", ns, problems[0]))
		}
	}
	for flag, value := range map[string]string{"--name": o.name, "--namespace": o.namespace, "--target-namespace": o.targetNamespace} {
		if problems := validation.IsDNS1123Label(value); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("%s: %q: %s", flag, value, problems[0]))
		}
	}
	if o.pruneConfirm != "" && !commitHash.MatchString(o.pruneConfirm) {
		errs = append(errs, fmt.Errorf("--prune-confirm: %q is not a full commit hash", o.pruneConfirm))
	}
	limit, err := apply.ParsePruneLimit(o.pruneLimit)
	if err != nil {
		errs = append(errs, fmt.Errorf("--prune-limit: %w", err))
	}
	policy := decrypt.Policy{
		Plaintext: decrypt.PlaintextPolicy(o.plaintext), Binding: decrypt.BindingPolicy(o.binding), MAC: crypto.MACPolicy(o.mac),
		Outside: decrypt.OutsidePolicy(o.outside), SealedSecrets: decrypt.SealedSecretPolicy(o.sealedSecrets), DeprecatedData: o.deprecatedData,
	}
	errs = append(errs, policy.Validate())
	if m := reconcile.DriftMode(o.drift); m != reconcile.Correct && m != reconcile.ReportOnly {
		errs = append(errs, fmt.Errorf("--drift: %q is not Correct or Report", o.drift))
	}
	ignore, err := apply.ParseIgnoreRules(o.ignoreFields)
	if err != nil {
		errs = append(errs, fmt.Errorf("--ignore-fields: %w", err))
	}
	var wait time.Duration
	if o.waitTimeout <= 0 {
		errs = append(errs, fmt.Errorf("--wait-timeout: %s is no time to wait", o.waitTimeout))
	}
	if o.wait {
		wait = o.waitTimeout
	}
	if o.interval < time.Second {
		errs = append(errs, errors.New("--interval must be one second or more"))
	}
	errs = append(errs, o.audit.check())
	switch o.output {
	case "", "json", "yaml":
	default:
		errs = append(errs, fmt.Errorf("--output: %q is not json or yaml", o.output))
	}
	return reconcile.Config{
		Owner: o.owner(), SourceName: o.url, Path: o.path,
		TargetNamespace: o.targetNamespace, Policy: policy, Prune: o.prune, PruneLimit: limit,
		PruneConfirm: o.pruneConfirm, ConfirmSourceChange: o.confirmSourceChange,
		Drift: reconcile.DriftMode(o.drift), Ignore: ignore, Interval: o.interval, Audit: time.Duration(o.audit), Wait: wait, WaveTimeout: o.waitTimeout,
	}, errors.Join(errs...)
}

func (o syncOptions) run(ctx context.Context, stdout, stderr io.Writer) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	_, cluster, log, err := o.connect(stderr)
	if err != nil {
		return err
	}
	store := keys.Store{Client: cluster.Client(), Namespace: o.namespace, DecryptionSecret: o.decryptionSecret, SealedSecretsFrom: o.sealedSecretsFrom, Now: time.Now}
	keeper := o.keys.keeper(cluster, store, log, nil)
	prepare := keeper.Prepare
	if o.once {
		prepare = keeper.Once
	}
	ring, err := prepare(ctx)
	if err != nil {
		return err
	}
	creds, err := o.git.credentials(ctx, cluster.Client(), o.namespace)
	if err != nil {
		return err
	}
	src, err := source.New(source.Config{URL: o.url, Ref: source.Ref{Branch: o.branch, Tag: o.tag, Commit: o.commit}, Credentials: creds, Timeout: o.timeout})
	if err != nil {
		return err
	}
	work := func(ctx context.Context) error {
		runner := &apply.Runner{Cluster: cluster, Store: apply.NewInventoryStore(cluster, cfg.Owner), Owner: cfg.Owner, Force: o.force}
		if !o.once {
			runner.Drift = apply.NewDrift(ctx, cluster, cfg.Owner)
			runner.Drift.Poll = o.interval
		}
		s := reconcile.New(cfg, src, store, runner, log)
		if o.once {
			return o.finish(stdout, stderr, s.Once(ctx))
		}
		var keeping sync.WaitGroup
		defer keeping.Wait() // it ends with ctx, as Run does
		keeper.Changed = s.Again
		keeping.Go(func() { keeper.Run(ctx, ring) })
		s.Run(ctx, nil)
		return nil
	}
	log.Info("starting", "version", version.Get().Version, "url", o.url, "path", o.path, "namespace", o.namespace, "name", o.name)
	for {
		err := lead(ctx, cluster.Client(), cfg.Owner, log, work)
		if !errors.Is(err, errLeaseLost) || o.once || ctx.Err() != nil {
			return err
		}
		// The API server was away for longer than the lease lasts, usually.
		log.Warn("waiting for the lease again", "error", err.Error())
	}
}

// onceReport is the stable form of `agent sync --once -o json`.
type onceReport struct {
	Commit       string         `json:"commit"`
	Ref          string         `json:"ref,omitempty"`
	Ready        bool           `json:"ready"`
	Objects      int            `json:"objects"`
	Created      int            `json:"created"`
	Adopted      int            `json:"adopted"`
	Changed      int            `json:"changed"`
	Pruned       int            `json:"pruned"`
	Released     int            `json:"released"`
	Unchanged    int            `json:"unchanged"`
	Requests     int            `json:"requests"`
	Milliseconds int64          `json:"milliseconds"`
	Actions      []onceAction   `json:"actions,omitempty"`
	Failures     []string       `json:"failures,omitempty"`
	Warnings     []string       `json:"warnings,omitempty"`
	Stages       map[string]int `json:"stageMilliseconds,omitempty"`
}

type onceAction struct {
	Object string `json:"object"`
	Action string `json:"action"`
	Reason string `json:"reason"`
}

func (o syncOptions) finish(stdout, stderr io.Writer, r reconcile.Report) error {
	out := onceReport{
		Commit: r.Commit, Ref: r.Ref, Ready: len(r.Failures) == 0, Objects: r.Objects,
		Created: r.Count(apply.Create), Adopted: r.Count(apply.Adopt), Changed: r.Count(apply.Change),
		Pruned: r.Count(apply.Prune), Released: r.Count(apply.Release),
		Unchanged: r.Left, Requests: r.Requests, Milliseconds: r.Took.Milliseconds(), Warnings: r.Warnings,
		Stages: map[string]int{},
	}
	if len(r.Strays) > 0 {
		out.Warnings = append(slices.Clip(out.Warnings), apply.StraysWarning(o.owner(), r.Strays))
	}
	for st, d := range r.Stages {
		out.Stages[string(st)] = int(d.Milliseconds())
	}
	for _, d := range r.Done {
		out.Actions = append(out.Actions, onceAction{d.ID.String(), string(d.Action), d.Reason})
	}
	for _, f := range r.Failures {
		out.Failures = append(out.Failures, f.Error())
	}
	if err := out.print(stdout, o.output); err != nil {
		return err
	}
	if out.Ready {
		return nil
	}
	for _, f := range out.Failures {
		fmt.Fprintln(stderr, "failed:", f)
	}
	return errNotApplied
}

func (r onceReport) print(w io.Writer, output string) error {
	var b []byte
	var err error
	switch output {
	case "json":
		if b, err = json.MarshalIndent(r, "", "  "); err == nil {
			b = append(b, '\n')
		}
	case "yaml":
		b, err = yaml.Marshal(r)
	default:
		for _, a := range r.Actions {
			b = fmt.Appendf(b, "%s %s (%s)\n", a.Action, a.Object, a.Reason)
		}
		for _, w := range r.Warnings {
			b = fmt.Appendf(b, "warning: %s\n", w)
		}
		b = fmt.Appendf(b, "commit %s: %d objects: %d created, %d adopted, %d changed, %d pruned, %d released, %d unchanged, in %s\n",
			r.Commit, r.Objects, r.Created, r.Adopted, r.Changed, r.Pruned, r.Released, r.Unchanged, time.Duration(r.Milliseconds)*time.Millisecond)
	}
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}
