package decrypt

import (
	"encoding/base64"

	"github.com/gitseal/gitseal/crypto"
)

// pasted opens the text of a Secret's value that is itself a sealed file, as Flux
// does, and returns a placeholder for the whole of it. ok is false for any other
// value.
func (g *gate) pasted(field, key, text string) (placeholder string, ok bool) {
	raw := []byte(text)
	if g.masked.keys == nil || !crypto.MayBeSOPS(raw) {
		return "", false
	}
	f := g.masked.open(raw, crypto.FormatOfFile(key, raw))
	switch {
	case f.notSealed(), f.forged != nil && !f.forged.Opened: // a text with a placeholder in it
		return "", false
	case f.err != nil:
		g.refuse(reasonOf(f.err), field, "it is a sealed file, which does not open: %v", f.err)
		return "", true
	case f.forged != nil:
		g.refuse(ReasonPlaceholderBroken, field, "it is a sealed file, and one of its values looks like a gitseal placeholder")
		return "", true
	}
	if f.unverified != nil {
		g.warnings = append(g.warnings, Refusal{Object: g.object, Target: g.target, Field: field, Reason: reasonOf(f.unverified), Message: "it is a sealed file: " + f.unverified.Error()})
	}
	content, err := f.whole()
	if err != nil {
		g.refuse(ReasonNotReadable, field, "it is a sealed file, which can not be written out: %v", err)
		return "", true
	}
	leaf := crypto.Leaf{Kind: "str", Place: "pasted\x00" + field, Text: content.plain}
	own := g.masked.own(f.openedBy)
	for _, b := range f.bindings() { // each of its units has one of its own
		if from := []origin{{file: g.object, path: field, binding: b, own: own}}; !g.allowed(g.rendered, from) {
			g.refuseBinding(g.rendered, field, from)
			return "", true
		}
		leaf.Binding = b
	}
	token := g.masked.digester.opened(leaf)
	g.masked.values.add(token, leaf.Kind, leaf.Text, origin{file: g.object, path: field, binding: leaf.Binding, own: own})
	return base64.StdEncoding.EncodeToString([]byte(token)), true
}
