package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitseal/gitseal/crypto"
)

// certFlag says which certificate to seal to.
type certFlag struct{ file string }

func (c *certFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.file, "seal-cert", "", "certificate to seal to (default: $SEALED_SECRETS_CERT, or the nearest "+certPath+")")
}

// load reads the certificate; the nearest one is looked for from a folder upwards.
func (c certFlag) load(from string) (crypto.Certificate, error) {
	file := orElse(c.file, os.Getenv("SEALED_SECRETS_CERT"))
	if file == "" {
		var err error
		if file, err = findUp(from, certPath); err != nil {
			return crypto.Certificate{}, hint(fmt.Errorf("no %s in %s or above it", certPath, thisFolder(from)), "run `seal keys fetch` in the repository, or name a certificate by a flag")
		}
	}
	if strings.Contains(file, "://") {
		return crypto.Certificate{}, hint(errors.New("a certificate is read from a file, not fetched from an address"), "run `seal keys fetch`, which shows when the key has changed")
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return crypto.Certificate{}, err
	}
	cert, err := crypto.ParseCertificate(b)
	if err != nil {
		return crypto.Certificate{}, fmt.Errorf("%s: %w", file, err)
	}
	return cert, nil
}

type sealedSecretOptions struct {
	cert      certFlag
	bind      bindingFlags
	scope     string
	namespace string
	name      string
	allowNone bool
	file      string
	write     string
	output    string
}

func newSealedSecretCommand() *cobra.Command {
	var o sealedSecretOptions
	cmd := &cobra.Command{
		Use:     "sealedsecret [-f FILE] [-w FILE]",
		Aliases: []string{"sealed-secret"},
		Short:   "Turn a Secret into a SealedSecret",
		Long: `Turn a Secret into a SealedSecret (bitnami.com/v1alpha1), as kubeseal does.

The Secret is read from --secret-file or standard input, in YAML or JSON, several
documents too. Its namespace must be in the file, or said with -n or --for: it is
never taken from the kube context.`,
		Example: `  seal sealedsecret -f db-secret.yaml -w apps/db.yaml
  kubectl create secret generic db -n shop --from-file=pw --dry-run=client -o yaml | seal sealedsecret > db.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			plain, err := readPlain(cmd, o.file)
			if err != nil {
				return err
			}
			if err := o.seal(cmd, plain, time.Now()); err != nil {
				return wrap(display(o.file), err)
			}
			return nil
		},
	}
	o.bind.add(cmd)
	f := cmd.Flags()
	f.StringVar(&o.cert.file, "cert", "", "certificate to seal to (default: $SEALED_SECRETS_CERT, or the nearest "+certPath+")")
	f.StringVarP(&o.file, "secret-file", "f", "", "Secret to read (default: standard input)")
	f.StringVarP(&o.write, "sealed-secret-file", "w", "", "file to write (default: standard output)")
	f.StringVar(&o.scope, "scope", "", "strict, namespace-wide or cluster-wide (default: what the Secret's annotations say, else strict)")
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace, for a Secret that names none")
	f.StringVar(&o.name, "name", "", "name of the SealedSecret (default: the Secret's)")
	f.BoolVar(&o.allowNone, "allow-empty-data", false, "accept a Secret without data")
	addOutputFlag(cmd, &o.output)
	return cmd
}

// target joins --for, --unbound, --scope and -n.
func (o sealedSecretOptions) target() (namespace string, scope crypto.Scope, err error) {
	if o.scope != "" {
		if scope, err = crypto.ParseScope(o.scope); err != nil {
			return "", "", fmt.Errorf("--scope: %w", err)
		}
	}
	want := crypto.Scope("")
	namespace = o.namespace
	switch {
	case o.bind.unbound:
		want = crypto.ClusterWide
	case o.bind.target != "":
		b, err := crypto.ParseBinding(o.bind.target)
		if err != nil {
			return "", "", fmt.Errorf("--for: %w", err)
		}
		ns, name, _ := strings.Cut(string(b), "/")
		switch {
		case b == "*":
			want = crypto.ClusterWide
		case name == "*":
			want, namespace = crypto.NamespaceWide, ns
		default:
			want, namespace = crypto.Strict, ns
		}
	}
	if want != "" && scope != "" && want != scope {
		return "", "", fmt.Errorf("--scope %s contradicts --for or --unbound, which mean %s", scope, want)
	}
	if o.namespace != "" && namespace != o.namespace {
		return "", "", fmt.Errorf("--namespace %s contradicts --for %s", o.namespace, o.bind.target)
	}
	if want != "" {
		scope = want
	}
	return namespace, scope, nil
}

func (o sealedSecretOptions) seal(cmd *cobra.Command, plain crypto.Secret, now time.Time) error {
	namespace, scope, err := o.target()
	if err != nil {
		return err
	}
	cert, err := o.cert.load(".")
	if err != nil {
		return err
	}
	docs, err := crypto.SealManifests(crypto.SealManifestRequest{Plain: plain, Cert: cert, Scope: scope, Namespace: namespace, Name: o.name, AllowNone: o.allowNone, Now: now})
	if errors.Is(err, crypto.ErrNamespaceMissing) {
		return hint(err, "say -n NAMESPACE, or: %s", sayFor)
	}
	if err != nil {
		return err
	}
	if _, name, ok := strings.Cut(o.bind.target, "/"); ok && name != "*" {
		for _, d := range docs {
			if got := d["metadata"].(map[string]any)["name"]; got != name {
				return fmt.Errorf("--for %s does not fit the Secret %v", o.bind.target, got)
			}
		}
	}
	var out bytes.Buffer
	for _, d := range docs {
		b, err := encode(d, o.outputFor())
		if err != nil {
			return err
		}
		out.Write(b)
	}
	return write(cmd, o.write, out.Bytes())
}

// outputFor is YAML unless asked otherwise, or the file is called .json.
func (o sealedSecretOptions) outputFor() string {
	if o.output == "" && filepath.Ext(o.write) == ".json" {
		return "json"
	}
	return o.output
}

func thisFolder(name string) string {
	if name == "." {
		return "this folder"
	}
	return name
}
