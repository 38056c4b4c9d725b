package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/gitseal/gitseal/test/harness"
)

const syncName = "shop"

// install makes what the agent needs to begin: its namespace, and the CRD of Syncs.
func (s *stage) install(ctx context.Context) error {
	_, err := s.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	_, err = s.dynamic.Resource(harness.CRDResource()).Get(ctx, "syncs.gitseal.io", metav1.GetOptions{})
	s.ownCRD = apierrors.IsNotFound(err)
	cfg, err := s.restConfig()
	if err != nil {
		return err
	}
	return harness.InstallSyncs(ctx, cfg)
}

// makeSync applies a Sync, and the Secret with the repository's credentials.
func (s *stage) makeSync(ctx context.Context) error {
	credentials := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "shop-git", Namespace: s.namespace}, StringData: map[string]string{"username": gitUser, "password": gitPassword}}
	if _, err := s.client.CoreV1().Secrets(s.namespace).Create(ctx, credentials, metav1.CreateOptions{}); err != nil {
		return err
	}
	text := fmt.Sprintf(`apiVersion: gitseal.io/v1alpha1
kind: Sync
metadata:
  name: %s
  namespace: %s
spec:
  source:
    url: %s
    ref: {branch: %s}
    secretRef: {name: shop-git}
  path: apps
  interval: 1s
`, syncName, s.namespace, s.git.RepoURL("shop"), harness.MainBranch)
	say("%s", dim("$ kubectl apply -f sync.yaml"))
	for line := range strings.Lines(text) {
		say("%s", dim("  "+strings.TrimSuffix(line, "\n")))
	}
	sync := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &sync.Object); err != nil {
		return err
	}
	_, err := s.dynamic.Resource(harness.SyncsResource()).Namespace(s.namespace).Create(ctx, sync, metav1.CreateOptions{})
	return err
}

// showSync waits until the Sync says that it is ready, and shows it.
func (s *stage) showSync(ctx context.Context) error {
	err := until(ctx, "the Sync is ready", func(ctx context.Context) error {
		now, err := s.dynamic.Resource(harness.SyncsResource()).Namespace(s.namespace).Get(ctx, syncName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if hash, _, _ := unstructured.NestedString(now.Object, "status", "applied", "hash"); hash != s.repo.Head() {
			return fmt.Errorf("it has applied %q", hash)
		}
		return nil
	})
	if err != nil || s.kubectl == "" {
		return err
	}
	out, err := s.command(ctx, "", s.kubectl, "get", "syncs", "-n", s.namespace)
	for line := range strings.Lines(out) {
		say("%s", strings.TrimSuffix(line, "\n"))
	}
	return err
}

// removeSync deletes the Sync while the agent runs, which prunes what it applied.
func (s *stage) removeSync() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := s.dynamic.Resource(harness.SyncsResource()).Namespace(s.namespace)
	err := client.Delete(ctx, syncName, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return
	}
	say("removing Sync %s/%s, and with it what it applied", s.namespace, syncName)
	if err == nil {
		err = harness.Until(ctx, 45*time.Second, 100*time.Millisecond, "the Sync is gone", func(ctx context.Context) error {
			_, err := client.Get(ctx, syncName, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("it is still there"))
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: clean up:", err)
	}
}
