package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/gitseal/gitseal/test/harness"
)

var steps = []step{
	{"The agent starts and makes its keys in the cluster", agentStarts},
	{"A repository is made, with the cluster's public keys in it", makeRepository},
	{"Three secrets are sealed on the laptop, and committed", sealSecrets},
	{"A Sync names the repository, and everything appears", everythingAppears},
	{"A second commit changes a value and removes a manifest", secondCommit},
	{"A hand edit with kubectl is put back", handEdit},
	{"The whole history of the repository is searched for plaintext", searchHistory},
}

func agentStarts(ctx context.Context, s *stage) error {
	if err := s.install(ctx); err != nil {
		return err
	}
	if err := s.startAgent(); err != nil {
		return err
	}
	return until(ctx, "the agent publishes its keys", func(ctx context.Context) error {
		cm, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(ctx, "gitseal-keys", metav1.GetOptions{})
		if err != nil {
			return err
		}
		say("ConfigMap %s/gitseal-keys holds recipients.txt (%s…) and cert.pem", s.namespace, cm.Data["recipients.txt"][:20])
		return nil
	})
}

func makeRepository(ctx context.Context, s *stage) error {
	root, err := harness.Root()
	if err != nil {
		return err
	}
	from := os.DirFS(filepath.Join(root, "examples", "quickstart"))
	err = fs.WalkDir(from, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(from, p)
		if err != nil {
			return err
		}
		// On a cluster of the user's own the namespaces have names of their own.
		text := strings.ReplaceAll(string(b), "quickstart-tools", "\x00")
		text = strings.ReplaceAll(text, "quickstart", s.app)
		s.repo.Write(p, strings.ReplaceAll(text, "\x00", s.tools))
		return nil
	})
	if err != nil {
		return err
	}
	_, err = s.seal(ctx, "", "keys", "fetch", "--namespace", s.namespace)
	return err
}

func sealSecrets(ctx context.Context, s *stage) error {
	for _, k := range []string{"password", "dsn", "token"} {
		s.values[k] = "plain-" + k + "-" + random(12)
	}
	if _, err := s.seal(ctx, s.values["password"], "secret", "generic", "db", "-n", s.app, "--from-file", "password=-", "-w", "apps/db.yaml"); err != nil {
		return err
	}
	env := "DSN=" + s.values["dsn"] + "\nREGION=north\n"
	sealed, err := s.seal(ctx, env, "encrypt", "--for", s.app+"/app-env", "--filename", "apps/app.env", "-")
	if err != nil {
		return err
	}
	s.repo.Write("apps/app.env", sealed)
	if _, err := s.seal(ctx, s.values["token"], "secret", "generic", "api", "-n", s.tools, "--from-file", "token=-", "--format", "sealedsecret", "-w", "apps/api.yaml"); err != nil {
		return err
	}
	rendered, err := s.seal(ctx, "", "build", "apps")
	if err != nil {
		return err
	}
	say("rendered without any key, the Secret shows a placeholder: %s", lineWith(rendered, "password:"))
	return s.commit("add three secrets")
}

func lineWith(text, part string) string {
	for _, l := range strings.Split(text, "\n") {
		if strings.Contains(l, part) && !strings.Contains(l, "key:") {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// secretValue checks one value of a Secret, without printing it.
func (s *stage) secretValue(ctx context.Context, ns, name, key, want string) error {
	sec, err := s.client.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if string(sec.Data[key]) != want {
		return fmt.Errorf("secret %s/%s: the value of %s is not the one that was sealed", ns, name, key)
	}
	return nil
}

// generated finds the Secret that a secretGenerator named with a suffix.
func (s *stage) generated(ctx context.Context) (*corev1.Secret, error) {
	list, err := s.client.CoreV1().Secrets(s.app).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if strings.HasPrefix(list.Items[i].Name, "app-env-") {
			return &list.Items[i], nil
		}
	}
	return nil, errors.New("the generated Secret is not there")
}

func everythingAppears(ctx context.Context, s *stage) error {
	if err := s.makeSync(ctx); err != nil {
		return err
	}
	err := until(ctx, "everything appears", func(ctx context.Context) error {
		if err := s.secretValue(ctx, s.app, "db", "password", s.values["password"]); err != nil {
			return err
		}
		if err := s.secretValue(ctx, s.tools, "api", "token", s.values["token"]); err != nil {
			return err
		}
		env, err := s.generated(ctx)
		if err != nil {
			return err
		}
		if string(env.Data["DSN"]) != s.values["dsn"] {
			return errors.New("the generated Secret holds another value")
		}
		d, err := s.client.AppsV1().Deployments(s.app).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := d.Spec.Template.Spec.Containers[0].EnvFrom[0].SecretRef.Name; got != env.Name {
			return fmt.Errorf("the Deployment refers to %s, not to %s", got, env.Name)
		}
		_, err = s.client.CoreV1().ConfigMaps(s.app).Get(ctx, "feature-flags", metav1.GetOptions{})
		return err
	})
	if err != nil {
		return err
	}
	say("two namespaces, a Deployment, two ConfigMaps and three Secrets, with the right values")
	return s.showSync(ctx)
}

func secondCommit(ctx context.Context, s *stage) error {
	s.values["password2"] = "plain-password2-" + random(12)
	if _, err := s.seal(ctx, s.values["password2"], "secret", "generic", "db", "-n", s.app, "--from-file", "password=-", "-w", "apps/db.yaml"); err != nil {
		return err
	}
	s.repo.Remove("apps/feature.yaml")
	b, err := os.ReadFile(filepath.Join(s.repo.Work, "apps", "kustomization.yaml"))
	if err != nil {
		return err
	}
	s.repo.Write("apps/kustomization.yaml", strings.Replace(string(b), "  - feature.yaml\n", "", 1))
	if err := s.commit("change the password, remove the feature flags"); err != nil {
		return err
	}
	err = until(ctx, "the second commit is applied", func(ctx context.Context) error {
		if err := s.secretValue(ctx, s.app, "db", "password", s.values["password2"]); err != nil {
			return err
		}
		_, err := s.client.CoreV1().ConfigMaps(s.app).Get(ctx, "feature-flags", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.New("ConfigMap feature-flags is still there")
	})
	if err == nil {
		say("the value is the new one, and ConfigMap feature-flags is gone")
	}
	return err
}

func handEdit(ctx context.Context, s *stage) error {
	patch := `{"data":{"greeting":"edited by hand"}}`
	if s.kubectl != "" {
		if _, err := s.command(ctx, "", s.kubectl, "patch", "configmap", "settings", "-n", s.app, "--type", "merge", "-p", patch); err != nil {
			return err
		}
	} else {
		say("(kubectl is not installed: the edit goes through the API)")
		if _, err := s.client.CoreV1().ConfigMaps(s.app).Patch(ctx, "settings", types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "kubectl-patch"}); err != nil {
			return err
		}
	}
	err := until(ctx, "the edit is put back", func(ctx context.Context) error {
		cm, err := s.client.CoreV1().ConfigMaps(s.app).Get(ctx, "settings", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := cm.Data["greeting"]; got != "hello" {
			return fmt.Errorf("greeting is still %q", got)
		}
		return nil
	})
	if err == nil {
		say("greeting is hello again")
	}
	return err
}

func searchHistory(ctx context.Context, s *stage) error {
	revs := strings.Fields(s.repo.Git("rev-list", "--all"))
	if err := s.repo.Err(); err != nil {
		return err
	}
	say("%s", dim(fmt.Sprintf("$ git grep -e VALUE $(git rev-list --all)    # %d values, %d commits", len(s.values), len(revs))))
	for name, v := range s.values {
		// Exit code 1 and no output: not found.
		out, err := s.quietly(ctx, "", "git", append([]string{"grep", "-c", "-F", "-e", v}, revs...)...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || out != "" {
			return fmt.Errorf("the value %s is in the history in the clear, or the search failed: %v", name, err)
		}
	}
	say("none of the %d values is anywhere in it", len(s.values))
	return nil
}
