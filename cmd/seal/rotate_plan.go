package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gitseal/gitseal/api/v1alpha1"
	"github.com/gitseal/gitseal/crypto"
)

// plannedFile is a sealed file and what becomes of it.
type plannedFile struct {
	sealedFile
	names      []string // keys of the creation rule, for --check
	recipients []crypto.Recipient
	cert       crypto.Certificate
	namespace  string
	keep       bool // the data key

	done        bool // by a run before this one
	changed     bool
	reformatted bool
	err         error // why it is not sealed anew
}

// plan says to whom each file is to be sealed.
func (o rotateOptions) plan(tree []sealedFile, root string) []plannedFile {
	cert, certErr := o.cert.load(root)
	out := make([]plannedFile, len(tree))
	for i, f := range tree {
		p := plannedFile{sealedFile: f, namespace: o.namespace, err: f.err}
		switch {
		case p.err != nil || len(f.units) == 0:
		case o.check: // whatever kind of key the rule names
			p.names, p.err = o.rule.recipients(f.path)
		default:
			rule, err := o.rule.rule(f.path, false)
			p.recipients, p.err = rule.Recipients, err
		}
		if len(f.sealedSecrets) > 0 {
			// Without a private key --check can tell nothing of a certificate.
			if p.cert = cert; p.err == nil && (!o.check || len(o.sealKeys) > 0) {
				p.err = certErr
			}
		}
		out[i] = p
	}
	return out
}

// A finding is something of a file that is not as it should be.
type finding struct {
	Path   string `json:"path"`
	Line   int    `json:"line,omitempty"`
	Object string `json:"object,omitempty"`
	Field  string `json:"field,omitempty"`
	Key    string `json:"key,omitempty"` // a recipient or a certificate
	Reason string `json:"reason"`
	// Message is for people.
	Message string `json:"message"`
}

// Reasons of findings, which do not change.
const (
	reasonUnlisted = "RecipientNotListed" // sealed to a key that .sops.yaml does not name
	reasonLacking  = "RecipientLacking"   // .sops.yaml names a key that the file is not sealed to
	reasonRetired  = "RetiredCertificate" // a SealedSecret value of an older key
	reasonUnknown  = "UnknownCertificate" // nobody can say without its private key
	reasonNoRule   = "NoRule"             // .sops.yaml or the certificate says nothing of the file
	reasonBroken   = "Unreadable"
)

// findings compares a file with what is asked for. Unknown are those of which nobody
// can say it without a private key.
func (p plannedFile) findings() (found, unknown []finding) {
	if p.sealedFile.err != nil {
		return []finding{{Path: p.path, Reason: reasonBroken, Message: p.sealedFile.err.Error()}}, nil
	}
	if p.err != nil {
		return []finding{{Path: p.path, Reason: reasonNoRule, Message: p.err.Error()}}, nil
	}
	for _, u := range p.units {
		for _, k := range u.Recipients {
			if !slices.ContainsFunc(p.names, sameKey(k)) {
				found = append(found, finding{Path: p.path, Line: u.Line, Key: k, Reason: reasonUnlisted, Message: "sealed to " + shortKey(k) + ", which the creation rule does not name"})
			}
		}
		for _, k := range p.names {
			if !slices.ContainsFunc(u.Recipients, sameKey(k)) {
				found = append(found, finding{Path: p.path, Line: u.Line, Key: k, Reason: reasonLacking, Message: "not sealed to " + shortKey(k) + ", which the creation rule names"})
			}
		}
	}
	for _, s := range p.sealedSecrets {
		for i, field := range s.Fields {
			f := finding{Path: p.path, Line: s.Line, Object: objectOf(s), Field: field, Key: s.OpenedBy[i]}
			switch f.Key {
			case "": // also where there is no certificate to compare with
				f.Reason, f.Message = reasonUnknown, "to which certificate it is sealed can not be told without its private key (--seal-key)"
				unknown = append(unknown, f)
			case p.cert.Fingerprint():
			default:
				f.Reason, f.Message = reasonRetired, "sealed to certificate "+f.Key+", not to "+p.cert.Fingerprint()
				found = append(found, f)
			}
		}
	}
	return found, unknown
}

func sameKey(a string) func(string) bool {
	return func(b string) bool { return strings.EqualFold(a, b) }
}

func shortKey(k string) string {
	if strings.HasPrefix(k, "age1") {
		return crypto.RecipientFingerprint(k)
	}
	return k
}

func objectOf(s crypto.ListedSealedSecret) string {
	return strings.TrimSpace("SealedSecret " + strings.TrimPrefix(s.Target.Namespace+"/"+s.Target.Name, "/"))
}

// place is a value that must be replaced where it comes from.
type place struct {
	Path   string `json:"path"`
	Object string `json:"object,omitempty"`
	Field  string `json:"field"`
}

func (p plannedFile) places() []place {
	var out []place
	for _, u := range p.units {
		for _, v := range u.Values {
			out = append(out, place{p.path, v.Object, v.Path})
		}
	}
	for _, s := range p.sealedSecrets {
		for _, field := range s.Fields {
			out = append(out, place{p.path, objectOf(s), field})
		}
	}
	return out
}

// lacksKey reports whether more keys would help.
func lacksKey(err error) bool {
	var noKey *crypto.NoKeyError
	var value *crypto.SealedValueError
	var refused *refusedError
	if errors.As(err, &refused) {
		return refused.reason == v1alpha1.ResealCanNotBeOpened
	}
	return errors.As(err, &noKey) || errors.As(err, &value) && value.Cause == crypto.ValueNoKey
}

// kinds is what the file holds, for people and programs.
func (p plannedFile) kinds() string {
	var out []string
	if len(p.units) > 0 {
		out = append(out, "SOPS")
	}
	if len(p.sealedSecrets) > 0 {
		out = append(out, "SealedSecret")
	}
	return strings.Join(out, "+")
}

func (p plannedFile) sealedTo() string {
	var out []string
	for _, r := range p.recipients {
		out = append(out, r.Fingerprint())
	}
	if !p.cert.IsZero() {
		out = append(out, fmt.Sprintf("certificate %s", p.cert.Fingerprint()))
	}
	return strings.Join(out, ", ")
}
