package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/config"
)

// Rule says to whom a file is sealed and which of its leaves. The selectors
// are those of .sops.yaml; at most one of them is set, and none means that
// every leaf is sealed whose key does not end in _unencrypted.
type Rule struct {
	Recipients                                     []Recipient
	EncryptedRegex, UnencryptedRegex               string
	EncryptedSuffix, UnencryptedSuffix             string
	EncryptedCommentRegex, UnencryptedCommentRegex string
	MACOnlyEncrypted                               bool
}

// ErrNoRule is returned by CreationRule where no creation rule fits the file.
var ErrNoRule = errors.New("no creation rule matches")

// CreationRule reads the rule for a file from the .sops.yaml at configPath, as
// stock sops does. It lets the sops library read that file, which offers no
// other way in. Keys other than native age recipients are refused by name.
func CreationRule(configPath, file string) (Rule, error) {
	c, err := loadRule(configPath, file)
	if err != nil {
		return Rule{}, err
	}
	if len(c.KeyGroups) != 1 {
		return Rule{}, fmt.Errorf("%d key groups; exactly one is supported for sealing", len(c.KeyGroups))
	}
	r := Rule{
		EncryptedRegex: c.EncryptedRegex, UnencryptedRegex: c.UnencryptedRegex,
		EncryptedSuffix: c.EncryptedSuffix, UnencryptedSuffix: c.UnencryptedSuffix,
		EncryptedCommentRegex: c.EncryptedCommentRegex, UnencryptedCommentRegex: c.UnencryptedCommentRegex,
		MACOnlyEncrypted: c.MACOnlyEncrypted,
	}
	for _, k := range c.KeyGroups[0] {
		a, ok := k.(*sopsage.MasterKey)
		if !ok {
			return Rule{}, fmt.Errorf("key type %s is not supported for sealing; use age recipients", k.TypeToIdentifier())
		}
		rec, err := ParseRecipient(a.Recipient)
		if err != nil {
			return Rule{}, err
		}
		r.Recipients = append(r.Recipients, rec)
	}
	return r, nil
}

// RuleRecipients names the keys of the rule for a file, of whatever kind: age
// recipients as they are, others by their kind and name.
func RuleRecipients(configPath, file string) ([]string, error) {
	c, err := loadRule(configPath, file)
	if err != nil {
		return nil, err
	}
	return listedKeys(c.KeyGroups), nil
}

func loadRule(configPath, file string) (*config.Config, error) {
	silenceSOPS()
	c, err := config.LoadCreationRuleForFile(configPath, file, nil)
	if err != nil {
		if strings.Contains(err.Error(), "no matching creation rules found") {
			return nil, ErrNoRule
		}
		return nil, err
	}
	if c == nil {
		return nil, ErrNoRule
	}
	return c, nil
}

// SealRequest is what SealSOPS works on.
type SealRequest struct {
	Plain   Secret
	Format  Format
	Rule    Rule
	Binding Binding   // added as a sealed leaf to yaml, json and dotenv; "" adds none
	Now     time.Time // goes into the file as lastmodified
}

// Errors of sealing.
var (
	ErrAlreadySealed = errors.New("already sealed")
	ErrNothingSealed = errors.New("the creation rule selects nothing in this file: it would be written in the clear")
)

// StructureSealedError says that the rule would seal a field that kustomize
// and the API server must be able to read.
type StructureSealedError struct{ Path string }

func (e *StructureSealedError) Error() string {
	return fmt.Sprintf("StructureSealed: the creation rule would seal %s, which must stay readable; use encrypted_regex: %s", e.Path, KubernetesSelector)
}

// LeftInClearError says that the rule would leave a Secret's value in the clear.
type LeftInClearError struct{ Path string }

func (e *LeftInClearError) Error() string {
	return fmt.Sprintf("the creation rule would leave %s in the clear; use encrypted_regex: %s", e.Path, KubernetesSelector)
}

// SealSOPS writes the file that stock sops would write, with a new data key.
// Errors: ErrAlreadySealed, ErrNothingSealed, ErrBindingNotSealed,
// ErrNoRecipient, *StructureSealedError, *LeftInClearError, *LimitError,
// *FormatError.
func SealSOPS(req SealRequest) (sealed []byte, err error) {
	silenceSOPS()
	defer func() {
		if recover() != nil { // library panics must not show the content
			sealed, err = nil, &FormatError{What: "not valid " + string(req.Format)}
		}
	}()
	if len(req.Rule.Recipients) == 0 {
		return nil, ErrNoRecipient
	}
	branches, err := loadPlain(req.Plain, req.Format)
	if err != nil {
		return nil, err
	}
	if err := checkBeforeSealing(branches); err != nil {
		return nil, err
	}
	if req.Binding != "" {
		for i := range branches {
			branches[i] = addBinding(branches[i], req.Format, req.Binding)
		}
	}
	tree := sops.Tree{Branches: branches, Metadata: req.Rule.metadata()}
	dataKey, errs := tree.GenerateDataKeyWithKeyServices(localKeys{}.clients())
	if len(errs) > 0 {
		return nil, errors.New("the data key could not be sealed to the recipients")
	}
	cipher := aes.NewCipher()
	mac, err := tree.Encrypt(dataKey, cipher)
	if err != nil {
		return nil, &FormatError{What: "holds a value that sops can not seal (keys must be text; binary and custom tags are not supported)"}
	}
	tree.Metadata.LastModified = req.Now.UTC().Truncate(time.Second)
	tree.Metadata.MessageAuthenticationCode, err = cipher.Encrypt(mac, dataKey, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil {
		return nil, errors.New("the MAC could not be sealed")
	}
	if err := checkSealed(tree.Branches, req.Format); err != nil {
		return nil, err
	}
	out, err := req.Format.store().EmitEncryptedFile(tree)
	if err != nil {
		return nil, &FormatError{What: "can not be written as " + string(req.Format)}
	}
	return out, nil
}

// ErrNoRecipient is returned where a file would be sealed to nobody.
var ErrNoRecipient = errors.New("no age recipient to seal to")

func (r Rule) metadata() sops.Metadata {
	var group sops.KeyGroup
	for _, rec := range r.Recipients {
		group = append(group, &sopsage.MasterKey{Recipient: rec.String()})
	}
	m := sops.Metadata{
		KeyGroups:      []sops.KeyGroup{group},
		EncryptedRegex: r.EncryptedRegex, UnencryptedRegex: r.UnencryptedRegex,
		EncryptedSuffix: r.EncryptedSuffix, UnencryptedSuffix: r.UnencryptedSuffix,
		EncryptedCommentRegex: r.EncryptedCommentRegex, UnencryptedCommentRegex: r.UnencryptedCommentRegex,
		MACOnlyEncrypted: r.MACOnlyEncrypted, Version: sopsVersion,
	}
	if m.EncryptedRegex+m.UnencryptedRegex+m.EncryptedSuffix+m.UnencryptedSuffix+m.EncryptedCommentRegex+m.UnencryptedCommentRegex == "" {
		m.UnencryptedSuffix = sops.DefaultUnencryptedSuffix
	}
	return m
}

func loadPlain(plain Secret, format Format) (sops.TreeBranches, error) {
	b := plain.Reveal()
	if len(b) > MaxSealedFile {
		return nil, tooLarge()
	}
	switch format {
	case YAML:
		if _, err := scanYAML(b); err != nil {
			return nil, err
		}
	case Dotenv:
		for i, line := range bytes.Split(b, []byte("\n")) {
			if len(line) > 0 && line[0] != '#' && !bytes.ContainsRune(line, '=') {
				return nil, &FormatError{Line: i + 1, What: "not KEY=value"}
			}
		}
	}
	store := format.store()
	branches, err := store.LoadPlainFile(b)
	if err != nil {
		return nil, formatError(format, err)
	}
	if len(branches) == 0 || len(branches[0]) == 0 {
		return nil, &FormatError{What: "empty"}
	}
	for _, br := range branches {
		if store.HasSopsTopLevelKey(br) {
			return nil, ErrAlreadySealed
		}
	}
	return branches, nil
}

func addBinding(b sops.TreeBranch, format Format, binding Binding) sops.TreeBranch {
	var path []any
	for _, k := range bindingPath(format) {
		path = append(path, k)
	}
	if path == nil || (format != Dotenv && !isObject(b)) {
		return b
	}
	nb, _ := b.Set(path, string(binding))
	return nb
}

// isObject reports whether the document is a Kubernetes object or patch.
func isObject(b sops.TreeBranch) bool {
	var kind, version bool
	for _, item := range b {
		kind = kind || item.Key == "kind"
		version = version || item.Key == "apiVersion"
	}
	return kind && version
}

func checkBeforeSealing(branches sops.TreeBranches) error {
	_, err := snapshot(branches)
	walkLeaves(branches, func(at place, v any) any {
		if s, ok := v.(string); ok && strings.HasPrefix(s, encPrefix) && err == nil {
			err = ErrAlreadySealed
		}
		if at.looksLikeBinding() && err == nil {
			err = fmt.Errorf("%s is set already; leave it out and say --for", at.path)
		}
		return v
	})
	return err
}

// checkSealed looks at the result: what the selector did, not what it says.
func checkSealed(branches sops.TreeBranches, format Format) error {
	var err error
	count := 0
	fail := func(e error) {
		if err == nil {
			err = e
		}
	}
	walkLeaves(branches, func(at place, v any) any {
		s, _ := v.(string)
		sealed := strings.HasPrefix(s, encPrefix)
		empty := v == nil || v == any("")
		object := (format == YAML || format == JSON) && isObject(branches[at.doc])
		switch {
		case at.looksLikeBinding():
			if !sealed {
				fail(ErrBindingNotSealed)
			}
			return v
		case sealed && object && structural(at.keys):
			fail(&StructureSealedError{Path: at.path})
		case !sealed && !empty && object && isSecretDocument(branches[at.doc]) && (at.keys[0] == "data" || at.keys[0] == "stringData"):
			fail(&LeftInClearError{Path: at.path})
		}
		if sealed {
			count++
		}
		return v
	})
	if err == nil && count == 0 {
		err = ErrNothingSealed
	}
	return err
}

func structural(keys []string) bool {
	switch strings.Join(keys, "\x00") {
	case "apiVersion", "kind", "metadata\x00name", "metadata\x00namespace":
		return true
	}
	return false
}

func isSecretDocument(b sops.TreeBranch) bool {
	for _, item := range b {
		if item.Key == "kind" {
			return item.Value == "Secret"
		}
	}
	return false
}
