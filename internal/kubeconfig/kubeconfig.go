// Package kubeconfig finds the cluster that both programs talk to, by the rules
// of kubectl.
package kubeconfig

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Load reads the configuration from file or, where that is "", from KUBECONFIG,
// the user's own kubeconfig, or the cluster that this runs in. context "" is the
// current one.
func Load(file, context string) (*rest.Config, error) {
	cfg, _, err := LoadNamespace(file, context)
	return cfg, err
}

// LoadNamespace is Load, with the namespace that the context names, or "default".
func LoadNamespace(file, context string) (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	cfg, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("find the cluster: %w", err)
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("find the namespace: %w", err)
	}
	return cfg, namespace, nil
}
