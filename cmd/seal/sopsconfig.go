package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gitseal/gitseal/crypto"
)

const ownRules = `    # The cluster's own rules, written by ` + "`seal keys fetch`" + `. The first rule whose
    # path_regex matches counts, so rules of your own go before them.
    - path_regex: \.(env|ini)$
      age: %[1]s
    - path_regex: \.(ya?ml|json)$
      encrypted_regex: %[2]s
      age: %[1]s
`

// updateConfig puts the cluster's recipients into a .sops.yaml: in the place of
// the old ones where these stand, else as rules of their own at the end. All
// other text stays as it is.
func updateConfig(config []byte, old, recipients []string) ([]byte, error) {
	text := string(config)
	if strings.TrimSpace(text) == "" {
		return []byte("creation_rules:\n" + rulesFor(recipients)), nil
	}
	rules, err := readRules(config)
	if err != nil {
		return nil, err
	}
	if len(old) > 0 && !slices.Equal(old, recipients) && len(old) == len(recipients) {
		// Recipients are unique, fixed texts: replacing them as text keeps
		// comments and layout.
		for i := range old {
			text = strings.ReplaceAll(text, old[i], recipients[i])
		}
	}
	if containsAll(text, recipients) {
		return []byte(text), nil
	}
	return appendRules(text, rules, recipients)
}

func rulesFor(recipients []string) string {
	return fmt.Sprintf(ownRules, strings.Join(recipients, ","), crypto.KubernetesSelector)
}

func containsAll(text string, recipients []string) bool {
	for _, r := range recipients {
		if !strings.Contains(text, r) {
			return false
		}
	}
	return true
}

// readRules finds the list of creation rules; nil if there is none.
func readRules(config []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(config)).Decode(&doc); err != nil {
		return nil, fmt.Errorf("not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errNotAConfig
	}
	top := doc.Content[0]
	for i := 0; i+1 < len(top.Content); i += 2 {
		if top.Content[i].Value != "creation_rules" {
			continue
		}
		rules := top.Content[i+1]
		if rules.Kind != yaml.SequenceNode || rules.Style&yaml.FlowStyle != 0 {
			return nil, errNotAConfig
		}
		return rules, nil
	}
	return nil, nil
}

// appendRules adds the rules after the last line of the list, with its indent.
func appendRules(text string, rules *yaml.Node, recipients []string) ([]byte, error) {
	own := rulesFor(recipients)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if rules == nil {
		return []byte(text + "creation_rules:\n" + own), nil
	}
	lines := strings.SplitAfter(text, "\n")
	end := lastLine(rules)
	if end > len(lines) {
		end = len(lines)
	}
	indent := 4
	if len(rules.Content) > 0 {
		// A rule's column is that of its first key; the dash stands two before.
		indent = max(rules.Content[0].Column-3, 0)
	}
	own = reindent(own, indent)
	out := strings.Join(lines[:end], "") + own + strings.Join(lines[end:], "")
	if _, err := readRules([]byte(out)); err != nil {
		return nil, fmt.Errorf("rules could not be added; add these by hand:\n%s", own)
	}
	return []byte(out), nil
}

func lastLine(n *yaml.Node) int {
	last := n.Line
	for _, c := range n.Content {
		last = max(last, lastLine(c))
	}
	if n.Kind == yaml.ScalarNode {
		last += strings.Count(strings.TrimRight(n.Value, "\n"), "\n")
		if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
			last++
		}
	}
	return last
}

func reindent(rules string, indent int) string {
	lines := strings.SplitAfter(rules, "\n")
	for i, l := range lines {
		if l != "" {
			lines[i] = strings.Repeat(" ", indent) + strings.TrimPrefix(l, "    ")
		}
	}
	return strings.Join(lines, "")
}
