package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/gitseal/gitseal/crypto"
)

// secretOptions are shared by `seal secret generic|tls|docker-registry`, which
// take the flags of kubectl create secret.
type secretOptions struct {
	bind      bindingFlags
	rule      ruleFlags
	cert      certFlag
	namespace string
	format    string
	scope     string
	write     string
	output    string

	secretType            string
	literals, files, envs []string
	tlsCert, tlsKey       string
	server, user, email   string
	passwordFile          string
}

func newSecretCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "secret",
		Short: "Make a Secret that is sealed at once, like kubectl create secret",
		Long: `Make a Secret that is sealed at once, like kubectl create secret.

The result is a SOPS file or, with --format sealedsecret, a SealedSecret. The
values are never written anywhere else.`,
	})
	cmd.AddCommand(newSecretGeneric(), newSecretTLS(), newSecretDocker())
	return cmd
}

func (o *secretOptions) addCommon(cmd *cobra.Command) {
	o.bind.add(cmd)
	o.rule.add(cmd)
	o.cert.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "", "namespace to write into the Secret; the kube context is never asked")
	f.StringVar(&o.format, "format", "sops", "sops or sealedsecret")
	f.StringVar(&o.scope, "scope", "", "scope of a SealedSecret: strict, namespace-wide or cluster-wide")
	f.StringVarP(&o.write, "write", "w", "", "write to this file instead of standard output; its name decides the rule of .sops.yaml")
	addOutputFlag(cmd, &o.output)
}

func newSecretGeneric() *cobra.Command {
	var o secretOptions
	cmd := &cobra.Command{
		Use:   "generic NAME [--from-file [KEY=]FILE] [--from-env-file FILE] [--from-literal KEY=VALUE]",
		Short: "Make a Secret from files, a dotenv file or literal values",
		Example: `  seal secret generic db -n shop --from-file password=/dev/stdin -w apps/db.yaml
  seal secret generic db -n shop --from-env-file db.env --format sealedsecret`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			values, err := o.values(cmd)
			if err != nil {
				return err
			}
			return o.seal(cmd, args[0], o.secretType, values)
		},
	}
	o.addCommon(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.literals, "from-literal", nil, "key and value; the value shows in the shell's history and in ps: prefer --from-file")
	f.StringArrayVar(&o.files, "from-file", nil, "file, or key=file; - is standard input; a folder adds each of its files")
	f.StringArrayVar(&o.envs, "from-env-file", nil, "file of KEY=value lines")
	f.StringVar(&o.secretType, "type", "", "type of the Secret (default Opaque)")
	return cmd
}

func newSecretTLS() *cobra.Command {
	var o secretOptions
	cmd := &cobra.Command{
		Use:   "tls NAME --cert FILE --key FILE",
		Short: "Make a TLS Secret from a certificate and its key",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := map[string]crypto.Secret{}
			for key, file := range map[string]string{"tls.crt": o.tlsCert, "tls.key": o.tlsKey} {
				v, err := readPlain(cmd, file)
				if err != nil {
					return err
				}
				values[key] = v
			}
			return o.seal(cmd, args[0], "kubernetes.io/tls", values)
		},
	}
	o.addCommon(cmd)
	// As in kubectl, --cert is the certificate to store. The one to seal to is
	// --seal-cert here.
	cmd.Flags().StringVar(&o.tlsCert, "cert", "", "PEM certificate to store")
	cmd.Flags().StringVar(&o.tlsKey, "key", "", "PEM private key to store")
	must(cmd.MarkFlagRequired("cert"))
	must(cmd.MarkFlagRequired("key"))
	return cmd
}

func newSecretDocker() *cobra.Command {
	var o secretOptions
	cmd := &cobra.Command{
		Use:   "docker-registry NAME --docker-username USER --docker-password-file FILE [--docker-server HOST]",
		Short: "Make a Secret for a container registry",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := readPlain(cmd, o.passwordFile)
			if err != nil {
				return err
			}
			config, err := o.dockerConfig(password)
			if err != nil {
				return err
			}
			return o.seal(cmd, args[0], "kubernetes.io/dockerconfigjson", map[string]crypto.Secret{".dockerconfigjson": config})
		},
	}
	o.addCommon(cmd)
	f := cmd.Flags()
	f.StringVar(&o.server, "docker-server", "https://index.docker.io/v1/", "address of the registry")
	f.StringVar(&o.user, "docker-username", "", "user name")
	f.StringVar(&o.email, "docker-email", "", "email address")
	f.StringVar(&o.passwordFile, "docker-password-file", "", "file with the password; - is standard input")
	must(cmd.MarkFlagRequired("docker-username"))
	must(cmd.MarkFlagRequired("docker-password-file"))
	return cmd
}

func must(err error) {
	if err != nil {
		panic("seal: internal error: " + err.Error())
	}
}

func (o *secretOptions) dockerConfig(password crypto.Secret) (crypto.Secret, error) {
	pw := strings.TrimRight(string(password.Reveal()), "\r\n")
	entry := map[string]string{"username": o.user, "password": pw, "auth": base64.StdEncoding.EncodeToString([]byte(o.user + ":" + pw))}
	if o.email != "" {
		entry["email"] = o.email
	}
	b, err := json.Marshal(map[string]any{"auths": map[string]any{o.server: entry}})
	if err != nil {
		return crypto.Secret{}, errors.New("the registry's configuration could not be written")
	}
	return crypto.NewSecret(b), nil
}

// values reads the sources; a key that is given twice is an error.
func (o *secretOptions) values(cmd *cobra.Command) (map[string]crypto.Secret, error) {
	out := map[string]crypto.Secret{}
	add := func(key string, v crypto.Secret) error {
		if problems := validation.IsConfigMapKey(key); len(problems) > 0 {
			// The text is not repeated: a value may have slipped into its place.
			return errors.New("a key of the Secret is not valid: it must consist of letters, digits, '-', '_' or '.'")
		}
		if _, ok := out[key]; ok {
			return fmt.Errorf("key %s is given twice", key)
		}
		out[key] = v
		return nil
	}
	for i, l := range o.literals {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--from-literal number %d is not KEY=VALUE", i+1)
		}
		if err := add(key, crypto.NewSecretString(value)); err != nil {
			return nil, err
		}
	}
	for _, f := range o.files {
		if err := addFile(cmd, f, add); err != nil {
			return nil, err
		}
	}
	for _, f := range o.envs {
		text, err := readPlain(cmd, f)
		if err != nil {
			return nil, err
		}
		if err := addEnv(f, text, add); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, hint(errors.New("no values"), "say --from-file, --from-env-file or --from-literal")
	}
	return out, nil
}

func addFile(cmd *cobra.Command, arg string, add func(string, crypto.Secret) error) error {
	key, file, ok := strings.Cut(arg, "=")
	if !ok {
		file = arg
		key = filepath.Base(arg)
		if file == "-" {
			return hint(errors.New("standard input has no name"), "say --from-file KEY=-")
		}
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			return addFolder(cmd, file, add)
		}
	}
	v, err := readPlain(cmd, file)
	if err != nil {
		return err
	}
	return add(key, v)
}

func addFolder(cmd *cobra.Command, dir string, add func(string, crypto.Secret) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || len(validation.IsConfigMapKey(e.Name())) > 0 {
			continue // as kubectl does
		}
		v, err := readPlain(cmd, filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if err := add(e.Name(), v); err != nil {
			return err
		}
	}
	return nil
}

// addEnv reads KEY=value lines as kubectl does. Errors name the line only.
func addEnv(file string, text crypto.Secret, add func(string, crypto.Secret) error) error {
	sc := bufio.NewScanner(bytes.NewReader(text.Reveal()))
	sc.Buffer(nil, maxInput)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimLeft(strings.TrimPrefix(sc.Text(), "\ufeff"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return fmt.Errorf("%s: line %d: not KEY=value", display(file), n)
		}
		if err := add(key, crypto.NewSecretString(value)); err != nil {
			return fmt.Errorf("%s: line %d: %w", display(file), n, err)
		}
	}
	return sc.Err()
}

func (o *secretOptions) seal(cmd *cobra.Command, name, secretType string, values map[string]crypto.Secret) error {
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return fmt.Errorf("name %q: %s", name, problems[0])
	}
	plain, err := crypto.NewManifest{Name: name, Namespace: o.namespace, Type: secretType, Values: values}.YAML()
	if err != nil {
		return err
	}
	switch o.format {
	case "sops":
		if o.output == "json" {
			return hint(errors.New("a SOPS file is written as YAML here"), "for JSON, make the Secret as a file and run `seal encrypt` on it")
		}
		path := o.write
		if path == "" || path == "-" {
			path = name + ".yaml"
		}
		sealed, err := sealPlain(plain, crypto.YAML, path, o.bind, o.rule)
		if err != nil {
			return err
		}
		return write(cmd, o.write, sealed)
	case "sealedsecret":
		ss := sealedSecretOptions{cert: o.cert, bind: o.bind, scope: o.scope, namespace: o.namespace, write: o.write, output: o.output}
		return ss.seal(cmd, plain, time.Now())
	default:
		return fmt.Errorf("--format: %q is not sops or sealedsecret", o.format)
	}
}
