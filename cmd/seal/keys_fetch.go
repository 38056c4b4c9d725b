package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

// Where the cluster's public keys lie in a repository.
const (
	keysDir        = ".gitseal"
	certPath       = keysDir + "/" + keys.CertificateKey
	recipientsPath = keysDir + "/" + keys.RecipientsKey
	sopsConfigName = ".sops.yaml"
)

type fetchOptions struct {
	clusterFlags
	namespace string
	accept    bool
	output    string
	timeout   time.Duration
}

func newKeysFetchCommand() *cobra.Command {
	var o fetchOptions
	cmd := &cobra.Command{
		Use:   "fetch [DIR]",
		Short: "Write the cluster's public keys into a repository",
		Long: `Write the cluster's public keys into a repository.

The certificate and the recipients go to .gitseal/, and the recipients into the
creation rules of .sops.yaml; other rules and recipients stay as they are. After
that sealing needs no cluster. Keys that differ from those in the repository are
shown with both fingerprints, and written only with --accept.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, folderOf(args))
		},
	}
	f := cmd.Flags()
	o.clusterFlags.add(f)
	f.StringVarP(&o.namespace, "namespace", "n", "gitseal-system", "namespace of the agent")
	f.BoolVar(&o.accept, "accept", false, "write keys that differ from those in the repository")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "longest time to wait for the API server")
	addOutputFlag(cmd, &o.output)
	return cmd
}

// fetched is the stable form of `seal keys fetch -o json`.
type fetched struct {
	Recipients  []string `json:"recipients"`
	Certificate string   `json:"certificateFingerprint"`
	NotAfter    string   `json:"certificateNotAfter"`
	Files       []string `json:"written"`
}

func (o fetchOptions) run(cmd *cobra.Command, dir string) error {
	public, err := o.fetch(cmd)
	if err != nil {
		return err
	}
	old, err := readCommitted(dir)
	if err != nil {
		return err
	}
	if changes := old.differences(public); len(changes) > 0 && !o.accept {
		for _, c := range changes {
			fmt.Fprintln(cmd.ErrOrStderr(), c)
		}
		return hint(&findings{"the cluster's keys differ from those in the repository; nothing was written"}, "find out why (a rotation, or another cluster?), then run the command again with --accept")
	}
	out := fetched{Certificate: public.Cert.Fingerprint(), NotAfter: public.Cert.NotAfter().UTC().Format(time.RFC3339)}
	for _, r := range public.Recipients {
		out.Recipients = append(out.Recipients, r.String())
	}
	if out.Files, err = writeKeys(cmd, dir, old, public, out.Recipients); err != nil {
		return err
	}
	if o.output == "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "recipient %s\ncertificate %s, valid until %s\n", strings.Join(out.Recipients, ", "), out.Certificate, out.NotAfter)
		return nil
	}
	b, err := encode(out, o.output)
	if err != nil {
		return err
	}
	return write(cmd, "", b)
}

func (o fetchOptions) fetch(cmd *cobra.Command) (keys.Public, error) {
	cfg, err := o.config()
	if err != nil {
		return keys.Public{}, err
	}
	cfg.Timeout = o.timeout
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return keys.Public{}, err
	}
	public, err := keys.FetchPublic(cmd.Context(), client, o.namespace)
	if err != nil {
		return public, hint(err, "is the agent running, with --namespace %s?", o.namespace)
	}
	return public, nil
}

// committed is what a repository holds already.
type committed struct {
	recipients []string
	cert       crypto.Certificate
}

func readCommitted(dir string) (committed, error) {
	var c committed
	b, err := os.ReadFile(filepath.Join(dir, recipientsPath))
	if err == nil {
		rs, err := crypto.ParseRecipients(b)
		if err != nil {
			return c, fmt.Errorf("%s: %w", recipientsPath, err)
		}
		for _, r := range rs {
			c.recipients = append(c.recipients, r.String())
		}
	} else if !notExist(err) {
		return c, err
	}
	b, err = os.ReadFile(filepath.Join(dir, certPath))
	if err == nil {
		if c.cert, err = crypto.ParseCertificate(b); err != nil {
			return c, fmt.Errorf("%s: %w", certPath, err)
		}
	} else if !notExist(err) {
		return c, err
	}
	return c, nil
}

func (c committed) differences(p keys.Public) []string {
	var out []string
	var now []string
	for _, r := range p.Recipients {
		now = append(now, r.String())
	}
	if len(c.recipients) > 0 && strings.Join(c.recipients, "\n") != strings.Join(now, "\n") {
		out = append(out, fmt.Sprintf("recipients: repository %s, cluster %s", fingerprints(c.recipients), fingerprints(now)))
	}
	if !c.cert.IsZero() && c.cert.Fingerprint() != p.Cert.Fingerprint() {
		out = append(out, fmt.Sprintf("certificate: repository %s, cluster %s", c.cert.Fingerprint(), p.Cert.Fingerprint()))
	}
	return out
}

func fingerprints(recipients []string) string {
	out := make([]string, len(recipients))
	for i, r := range recipients {
		out[i] = crypto.RecipientFingerprint(r)
	}
	return strings.Join(out, ", ")
}

// writeKeys writes what differs; .sops.yaml first, since it can fail.
func writeKeys(cmd *cobra.Command, dir string, old committed, p keys.Public, recipients []string) ([]string, error) {
	sopsFile := filepath.Join(dir, sopsConfigName)
	config, err := os.ReadFile(sopsFile)
	if err != nil && !notExist(err) {
		return nil, err
	}
	updated, err := updateConfig(config, old.recipients, recipients)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sopsFile, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, keysDir), 0o755); err != nil {
		return nil, err
	}
	var written []string
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{sopsConfigName, updated},
		{recipientsPath, []byte(strings.Join(recipients, "\n") + "\n")},
		{certPath, p.Cert.PEM()},
	} {
		name := filepath.Join(dir, f.name)
		if b, err := os.ReadFile(name); err == nil && string(b) == string(f.content) {
			continue
		}
		if err := write(cmd, name, f.content); err != nil {
			return written, err
		}
		written = append(written, f.name)
	}
	return written, nil
}

var errNotAConfig = errors.New("creation_rules is not a list")
