package crypto

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// textChange puts other bytes into the place of some.
type textChange struct {
	begin, end int
	text       string
}

// applyChanges makes changes that do not overlap.
func applyChanges(file []byte, changes []textChange) ([]byte, bool) {
	slices.SortFunc(changes, func(a, b textChange) int { return a.begin - b.begin })
	var out bytes.Buffer
	at := 0
	for _, c := range changes {
		if c.begin < at || c.end < c.begin || c.end > len(file) {
			return nil, false
		}
		out.Write(file[at:c.begin])
		out.WriteString(c.text)
		at = c.end
	}
	out.Write(file[at:])
	return out.Bytes(), true
}

// changeScalar finds the text of a scalar and puts another one there, which needs no
// quotes, in the same style. A text in block style becomes one line.
func changeScalar(file []byte, n *yaml.Node, text string) (textChange, bool) {
	begin, ok := offset(file, n.Line, n.Column)
	if !ok {
		return textChange{}, false
	}
	rest := string(file[begin:])
	switch {
	case n.Style&yaml.TaggedStyle != 0 || n.Anchor != "":
		return textChange{}, false // the place is that of the tag or anchor
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return changeBlock(file, begin, text)
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		quote := rest[0]
		if quote != '"' && quote != '\'' {
			return textChange{}, false
		}
		for i := 1; i < len(rest); i++ {
			switch {
			case quote == '"' && rest[i] == '\\':
				i++
			case rest[i] == quote && quote == '\'' && strings.HasPrefix(rest[i+1:], "'"):
				i++
			case rest[i] == quote:
				return textChange{begin + 1, begin + i, text}, true
			}
		}
		return textChange{}, false
	default:
		if !strings.HasPrefix(rest, n.Value) { // over several lines
			return textChange{}, false
		}
		return textChange{begin, begin + len(n.Value), text}, true
	}
}

// changeBlock replaces the lines below an indicator, which stands at begin.
func changeBlock(file []byte, begin int, text string) (textChange, bool) {
	eol := bytes.IndexByte(file[begin:], '\n')
	if eol < 0 {
		return textChange{}, false
	}
	start := begin + eol + 1
	first := file[start:]
	indent := len(first) - len(bytes.TrimLeft(first, " "))
	if indent == 0 {
		return textChange{}, false
	}
	end := start
	for end < len(file) {
		line := file[end:]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			line = line[:i+1]
		}
		if len(bytes.TrimSpace(line)) == 0 || len(line)-len(bytes.TrimLeft(line, " ")) < indent {
			break
		}
		end += len(line)
	}
	last := len(bytes.TrimRight(file[start:end], "\r\n"))
	return textChange{start + indent, start + last, text}, true
}

// offset is where a line and column of the parser are; it counts columns in letters.
func offset(file []byte, line, column int) (int, bool) {
	at := 0
	for range line - 1 {
		i := bytes.IndexByte(file[at:], '\n')
		if i < 0 {
			return 0, false
		}
		at += i + 1
	}
	letters := 0
	for i := range string(file[at:]) {
		if letters++; letters == column {
			return at + i, true
		}
	}
	return 0, false
}
