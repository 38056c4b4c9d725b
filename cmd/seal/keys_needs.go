package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
	"github.com/gitseal/gitseal/crypto"
	"github.com/gitseal/gitseal/keys"
)

// need is how much a Sync opens with a key.
type need struct {
	Sync  string `json:"sync"` // namespace/name
	Files int    `json:"files"`
}

// needs is what the Syncs of a cluster say that they open with which key.
type needs struct {
	by      map[string][]need // by public fingerprint
	unknown []string          // what nothing, or nothing recent, is known of, and why
}

// of a generation: what its identity or its certificate opens.
func (n needs) of(g keys.PublicGeneration) []need {
	files := map[string]int{}
	for _, f := range []string{crypto.RecipientFingerprint(g.Recipient), g.Certificate} {
		for _, one := range n.by[f] {
			files[one.Sync] += one.Files
		}
	}
	out := []need{}
	for sync, n := range files {
		out = append(out, need{sync, n})
	}
	slices.SortFunc(out, func(a, b need) int { return strings.Compare(a.Sync, b.Sync) })
	return out
}

// needsOf reads the status of every Sync.
func needsOf(ctx context.Context, cfg *rest.Config) (needs, map[string]bool, error) {
	out := needs{by: map[string][]need{}}
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return out, nil, fmt.Errorf("connect to the API server: %w", err)
	}
	s := &syncs{client: client.Resource(v1alpha1.GroupVersion.WithResource("syncs")), config: cfg}
	all, _, err := s.list(ctx, metav1.ListOptions{})
	if err != nil && !errors.Is(err, errNoCRD) {
		return out, nil, err
	}
	owners := map[string]bool{}
	for _, one := range all {
		name := one.Namespace + "/" + one.Name
		owners[apply.Owner{Namespace: one.Namespace, Name: one.Name}.Label()] = true
		for _, k := range one.Status.Keys {
			out.by[k.Fingerprint] = append(out.by[k.Fingerprint], need{name, int(k.Files)})
		}
		if !isReady(one) {
			out.unknown = append(out.unknown, fmt.Sprintf("sync %s is not ready: %s", name, cut(short(printable(readyOf(one).Message)), maxStatus)))
		}
	}
	return out, owners, nil
}

// strangers names what keeps an inventory, and is no Sync: an `agent sync`, whose needs
// nobody reports.
func strangers(ctx context.Context, cfg *rest.Config, namespace string, owners map[string]bool) ([]string, error) {
	client, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	l, err := client.Resource(corev1.SchemeGroupVersion.WithResource("secrets")).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: apply.InventoryLabel})
	if err != nil {
		return nil, fmt.Errorf("look for inventories in namespace %s: %w", namespace, err)
	}
	var out []string
	for _, s := range l.Items {
		if owner := s.Labels[apply.InventoryLabel]; !owners[owner] && !slices.Contains(out, owner) {
			out = append(out, owner)
		}
	}
	slices.Sort(out)
	return out, nil
}
