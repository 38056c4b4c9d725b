package controller

import (
	"errors"
	"fmt"
	"time"

	"github.com/gitseal/gitseal/source"
)

// Config is how an agent runs its Syncs.
type Config struct {
	Namespace         string // the agent's own
	Floor             Floor
	Protect           []Protection
	Addresses         Addresses       // where tenants' repositories may lie
	RepositoryBytes   int64           // of all files of a tenant's repository; 0 for the limit of package source
	SealedSecretsFrom []string        // namespaces whose sealed-secrets keys open too, for Syncs of the agent's namespace
	Concurrent        int             // passes at once that do something
	Ready             <-chan struct{} // closed when the agent's keys are there; nil where they are
	Audit             time.Duration
	Kubeseal          Kubeseal
}

// Kubeseal is what is served to kubeseal.
type Kubeseal struct {
	Address   string   // "" for nothing
	Endpoints []string // besides the certificate: VerifyEndpoint, RotateEndpoint
}

func (k Kubeseal) validate() error {
	for _, e := range k.Endpoints {
		if e != VerifyEndpoint && e != RotateEndpoint {
			return fmt.Errorf("endpoint %q for kubeseal is not %s or %s", e, VerifyEndpoint, RotateEndpoint)
		}
	}
	return nil
}

// tenantLimits bound what a tenant's git server can make the agent keep, which it shares
// with others. What is sent for a new tree is little more than the tree.
func (c Config) tenantLimits() source.Limits {
	if c.RepositoryBytes == 0 {
		return source.Limits{}
	}
	n := c.RepositoryBytes
	return source.Limits{TreeBytes: n, ObjectBytes: n, PackBytes: 2 * n, UnpackedBytes: 2 * n}
}

// Validate reports what is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.Namespace == "" {
		errs = append(errs, errors.New("no namespace"))
	}
	if c.Concurrent < 1 {
		errs = append(errs, fmt.Errorf("%d passes at once are too few", c.Concurrent))
	}
	if c.RepositoryBytes < 0 {
		errs = append(errs, errors.New("the limit of a repository is negative"))
	}
	errs = append(errs, c.Floor.Validate(), c.Kubeseal.validate())
	return errors.Join(errs...)
}
