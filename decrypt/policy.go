package decrypt

import (
	"fmt"
	"strings"
)

// PlaintextPolicy is what happens to a Secret that lies in git in the clear.
type PlaintextPolicy string

// BindingPolicy is what happens to a value whose file carries no binding. A
// binding that is there is always enforced.
type BindingPolicy string

// The policies; the first of each is the default.
const (
	PlaintextDeny  PlaintextPolicy = "Deny"
	PlaintextWarn  PlaintextPolicy = "Warn"
	PlaintextAllow PlaintextPolicy = "Allow"

	BindingIfPresent BindingPolicy = "IfPresent"
	BindingRequired  BindingPolicy = "Required"
)

// Policy is what the gate enforces. The zero Policy is the default one.
type Policy struct {
	Plaintext PlaintextPolicy
	Binding   BindingPolicy
	// Namespace is where objects go that name none.
	Namespace string
}

// Validate reports an unknown value by name.
func (p Policy) Validate() error {
	switch p.Plaintext {
	case "", PlaintextDeny, PlaintextWarn, PlaintextAllow:
	default:
		return fmt.Errorf("plaintextSecrets: %q is not Deny, Warn or Allow", p.Plaintext)
	}
	switch p.Binding {
	case "", BindingIfPresent, BindingRequired:
	default:
		return fmt.Errorf("binding: %q is not Required or IfPresent", p.Binding)
	}
	return nil
}

// Reason is a stable word for a refusal.
type Reason string

// The reasons of the gate.
const (
	ReasonPlaceholderOutsideSecret Reason = "PlaceholderOutsideSecret"
	ReasonStructureSealed          Reason = "StructureSealed"
	ReasonStillSealed              Reason = "StillSealed"
	ReasonNotOpened                Reason = "NotOpened"
	ReasonPlaintextSecret          Reason = "PlaintextSecret"
	ReasonBindingMismatch          Reason = "BindingMismatch"
	ReasonBindingMissing           Reason = "BindingMissing"
	ReasonPlaceholderBroken        Reason = "PlaceholderBroken"
	ReasonInvalidSecret            Reason = "InvalidSecret"
	ReasonInvalidSealedSecret      Reason = "InvalidSealedSecret"
	ReasonReserved                 Reason = "Reserved"
)

// Refusal is an object that must not be applied. Message holds placeholders,
// names and paths, never a value.
type Refusal struct {
	Object  string // Kind/namespace/name
	Target  Target // what would have been applied
	Field   string
	Reason  Reason
	Message string
}

// Target names an object of the cluster; for a SealedSecret it is its Secret.
type Target struct{ Group, Kind, Namespace, Name string }

func (r Refusal) Error() string {
	var b strings.Builder
	b.WriteString(r.Object)
	if r.Field != "" {
		b.WriteString(" " + r.Field)
	}
	fmt.Fprintf(&b, ": %s: %s", r.Reason, r.Message)
	return b.String()
}
