package controller

import (
	"errors"
	"fmt"
	"time"
)

// Config is how an agent runs its Syncs.
type Config struct {
	Namespace         string // the agent's own
	Floor             Floor
	Protect           []Protection
	Addresses         Addresses       // where tenants' repositories may lie
	SealedSecretsFrom []string        // namespaces whose sealed-secrets keys open too, for Syncs of the agent's namespace
	Concurrent        int             // passes at once that do something
	Ready             <-chan struct{} // closed when the agent's keys are there; nil where they are
	Audit             time.Duration
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
	errs = append(errs, c.Floor.Validate())
	return errors.Join(errs...)
}
