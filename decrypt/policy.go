package decrypt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gitseal/gitseal/crypto"
)

// PlaintextPolicy is what happens to a Secret that lies in git in the clear.
type PlaintextPolicy string

// BindingPolicy is what happens to a value whose file carries no binding. A
// binding that is there is always enforced.
type BindingPolicy string

// OutsidePolicy is what happens to a sealed value that would be put anywhere
// but into a Secret's data.
type OutsidePolicy string

// SealedSecretPolicy is what happens to SealedSecret objects.
type SealedSecretPolicy string

// The policies; the first of each is the default.
const (
	PlaintextDeny  PlaintextPolicy = "Deny"
	PlaintextWarn  PlaintextPolicy = "Warn"
	PlaintextAllow PlaintextPolicy = "Allow"

	BindingIfPresent BindingPolicy = "IfPresent"
	BindingRequired  BindingPolicy = "Required"

	OutsideDeny  OutsidePolicy = "Deny"
	OutsideAllow OutsidePolicy = "Allow" // into the very field that was sealed, of an object of the same kind

	Unseal      SealedSecretPolicy = "Unseal"
	PassThrough SealedSecretPolicy = "PassThrough" // the controller of sealed-secrets opens them
)

// Policy is what masking and the gate enforce. The zero Policy is the default.
type Policy struct {
	Plaintext     PlaintextPolicy
	Binding       BindingPolicy
	MAC           crypto.MACPolicy
	Outside       OutsidePolicy
	SealedSecrets SealedSecretPolicy
	// DeprecatedData lets SealedSecrets be opened that hold one blob for the
	// whole Secret, in spec.data.
	DeprecatedData bool
	// Namespace is where objects go that name none.
	Namespace string
}

// Validate reports an unknown value by name.
func (p Policy) Validate() error {
	var errs []error
	check := func(name, value string, allowed ...string) {
		if value != "" && !slices.Contains(allowed, value) {
			errs = append(errs, fmt.Errorf("%s: %q is not %s", name, value, strings.Join(allowed, " or ")))
		}
	}
	check("plaintextSecrets", string(p.Plaintext), "Deny", "Warn", "Allow")
	check("binding", string(p.Binding), "Required", "IfPresent")
	check("mac", string(p.MAC), "Required", "Warn")
	check("outsideSecrets", string(p.Outside), "Deny", "Allow")
	check("sealedSecrets", string(p.SealedSecrets), "Unseal", "PassThrough")
	return errors.Join(errs...)
}
