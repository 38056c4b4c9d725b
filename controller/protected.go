package controller

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/apply"
)

// Protection is a pattern of objects that no Sync changes unless it is allowed to:
// KIND[.GROUP]/[NAMESPACE/]NAME, where each part may hold *.
type Protection struct{ kind, namespace, name string }

// DefaultProtections keep a bad commit from locking the administrators out.
// NAMESPACE stands for that of the agent.
func DefaultProtections(namespace string) []string {
	return []string{
		"*/kube-system/*", "*/kube-node-lease/*", "*/kube-public/*", "*/" + namespace + "/*",
		"Namespace/kube-*", "Namespace/default", "Namespace/" + namespace,
		"ClusterRole.rbac.authorization.k8s.io/system:*", "ClusterRoleBinding.rbac.authorization.k8s.io/system:*",
		"ClusterRole.rbac.authorization.k8s.io/cluster-admin", "ClusterRole.rbac.authorization.k8s.io/gitseal*",
		"ClusterRoleBinding.rbac.authorization.k8s.io/cluster-admin", "ClusterRoleBinding.rbac.authorization.k8s.io/gitseal*",
		"CustomResourceDefinition.apiextensions.k8s.io/*.gitseal.io",
		"APIService.apiregistration.k8s.io/*", "Node/*",
	}
}

// ParseProtection reads a pattern.
func ParseProtection(s string) (Protection, error) {
	parts := strings.Split(s, "/")
	p := Protection{}
	switch len(parts) {
	case 2:
		p = Protection{kind: parts[0], name: parts[1]}
	case 3:
		p = Protection{kind: parts[0], namespace: parts[1], name: parts[2]}
	}
	if p.kind == "" || p.name == "" || len(parts) == 3 && p.namespace == "" {
		return Protection{}, fmt.Errorf("%q is not KIND[.GROUP]/[NAMESPACE/]NAME, as in Namespace/kube-* or */kube-system/*", s)
	}
	for _, part := range parts {
		if _, err := path.Match(part, ""); err != nil {
			return Protection{}, fmt.Errorf("%q: %q is not a pattern", s, part)
		}
	}
	return p, nil
}

func (p Protection) String() string {
	if p.namespace == "" {
		return p.kind + "/" + p.name
	}
	return p.kind + "/" + p.namespace + "/" + p.name
}

func (p Protection) covers(id apply.ID) bool {
	kind := id.Kind
	if id.Group != "" {
		kind += "." + id.Group
	}
	return matches(p.kind, kind) && matches(p.namespace, id.Namespace) && matches(p.name, id.Name)
}

func matches(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return err == nil && ok
}

// protectedFrom says what a Sync must not change. Objects of its own namespace are not
// protected from a tenant's Sync: it can write nowhere else.
func (c Config) protectedFrom(sync *v1alpha1.Sync) func(apply.ID) string {
	own := ""
	if c.tenant(sync) {
		own = sync.Namespace
	}
	return func(id apply.ID) string {
		if own != "" && id.Namespace == own {
			return ""
		}
		i := slices.IndexFunc(c.Protect, func(p Protection) bool { return p.covers(id) })
		if i < 0 {
			return ""
		}
		return fmt.Sprintf("the agent protects %s; spec.allowProtected of a Sync in namespace %s lets it be changed", c.Protect[i], c.Namespace)
	}
}
