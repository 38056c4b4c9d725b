package decrypt

import (
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

var (
	tokenPattern = regexp.MustCompile(`gitseal[01][a-z2-7]{28}`)
	headPattern  = regexp.MustCompile(`gitseal[01]`)
	base64Text   = regexp.MustCompile(`^[A-Za-z0-9+/_-]+`)
	whiteSpace   = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "")
	standard     = strings.NewReplacer("-", "+", "_", "/")
)

// needle is what the head of every token looks like inside base64, at one of
// three alignments, and how many characters of its group stand before it.
type needle struct {
	text   string
	before int
}

var (
	encodedHeads = []needle{{"Z2l0c2VhbD", 0}, {"dpdHNlYWw", 2}, {"naXRzZWFsM", 3}} // "gitseal" + a digit
	nestedHeads  = encodeNeedles(encodedHeads)                                      // the same, encoded twice
)

// A token spans at most encodedLength characters of base64, and those again at
// most nestedLength. The latter may begin nestedBefore groups before the needle.
const (
	encodedLength = (2 + tokenLength + 2) / 3 * 4
	nestedLength  = (2 + encodedLength + 3 + 2) / 3 * 4
	nestedBefore  = 2
)

func encodeNeedles(heads []needle) []needle {
	var out []needle
	for _, h := range heads {
		for shift := range 3 {
			encoded := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), h.text...))
			first := (8*shift + 5) / 6 // characters before it hold other bits too
			out = append(out, needle{encoded[first : 8*(shift+len(h.text))/6], first})
		}
	}
	return out
}

// findToken returns the first token in text, as it is or inside base64 (also
// in the middle of an encoded file, over line breaks, and encoded twice), or "".
func findToken(text string) string {
	if t := tokenPattern.FindString(text); t != "" {
		return t
	}
	return findEncodedToken(text)
}

func findEncodedToken(text string) string {
	if len(text) < tokenLength/3*4 {
		return ""
	}
	if strings.ContainsAny(text, " \t\r\n") {
		text = whiteSpace.Replace(text)
	}
	if t := findDecoded(text, encodedHeads, 0, encodedLength, func(s string) string { return tokenPattern.FindString(s) }); t != "" {
		return t
	}
	return findDecoded(text, nestedHeads, nestedBefore, nestedLength, func(s string) string {
		return findDecoded(s, encodedHeads, 0, encodedLength, func(s string) string { return tokenPattern.FindString(s) })
	})
}

// findDecoded decodes a window of text around each needle, so that its cost is
// linear whatever text holds.
func findDecoded(text string, needles []needle, groups, length int, find func(string) string) string {
	for _, n := range needles {
		for from := 0; ; {
			at := strings.Index(text[from:], n.text)
			if at < 0 {
				break
			}
			start := from + at - n.before
			from += at + 1
			if start < 0 {
				continue
			}
			end := min(start+length, len(text))
			for range groups {
				if start < 4 || len(base64Text.FindString(text[start-4:start])) < 4 {
					break
				}
				start -= 4
			}
			run := standard.Replace(base64Text.FindString(text[start:end]))
			if len(run)%4 == 1 { // one character alone encodes nothing
				run = run[:len(run)-1]
			}
			plain, err := base64.RawStdEncoding.DecodeString(run)
			if err != nil {
				continue
			}
			if t := find(string(plain)); t != "" {
				return t
			}
		}
	}
	return ""
}

// holdsForgery reports whether content from git, or an opened value, holds
// anything that could be taken for a token.
func holdsForgery(content []byte) bool {
	text := strings.ReplaceAll(string(content), "\x00", "") // YAML may be UTF-16
	for range maxEscaping {
		if findToken(text) != "" {
			return true
		}
		plain := unescape(text)
		if plain == text {
			return false
		}
		text = plain
	}
	return findToken(text) != ""
}

const maxEscaping = 3 // a JSON patch inside a YAML string is two

var escape = regexp.MustCompile(`\\+(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[/nrt \t]|\r?\n[ \t]*)`)

// unescape undoes the escapes of YAML and JSON with which a token could be
// spelled, or broken over two lines.
func unescape(text string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	return escape.ReplaceAllStringFunc(text, func(s string) string {
		switch s = strings.TrimLeft(s, `\`); s[0] {
		case 'x':
			b, _ := hex.DecodeString(s[1:]) // the pattern matched hex digits only
			return string(rune(b[0]))
		case 'u', 'U':
			n, _ := strconv.ParseUint(s[1:], 16, 32)
			return string(rune(n))
		case '/':
			return "/"
		case 'n', 'r', 't', ' ', '\t': // base64 goes on behind white space
			return " "
		default:
			return ""
		}
	})
}
