package v1alpha1

import "strings"

// Prunes reports whether objects that left git are deleted.
func (s SyncSpec) Prunes() bool { return s.Prune == nil || *s.Prune }

// IgnoreRules are the fields to ignore in the form of the flag --ignore-fields:
// KIND[.GROUP][/NAME]:/JSON/POINTER[,…].
func (s SyncSpec) IgnoreRules() []string {
	var rules []string
	for _, f := range s.IgnoreFields {
		rule := f.Kind
		if f.Group != "" {
			rule += "." + f.Group
		}
		if f.Name != "" {
			rule += "/" + f.Name
		}
		rules = append(rules, rule+":"+strings.Join(f.JSONPointers, ","))
	}
	return rules
}
