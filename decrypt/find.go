package decrypt

import (
	"encoding/base64"
	"regexp"
	"strings"
)

var (
	tokenPattern  = regexp.MustCompile(`gitseal[01][a-z2-7]{28}`)
	headPattern   = regexp.MustCompile(`gitseal[01]`)
	base64Run     = regexp.MustCompile(`[A-Za-z0-9+/_-]+`)
	whiteSpace    = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "")
	encodedHeads  = []string{"Z2l0c2VhbD", "dpdHNlYWw", "naXRzZWFsM"} // "gitseal" + a digit, at the three alignments
	encodedOffset = []int{0, 2, 3}                                    // characters of the group before the head
)

// findToken returns the first token in text, as it is or inside base64 (also
// in the middle of an encoded file, and over line breaks), or "".
func findToken(text string) string {
	if t := tokenPattern.FindString(text); t != "" {
		return t
	}
	return findEncodedToken(text)
}

func findEncodedToken(text string) string {
	if strings.ContainsAny(text, " \t\r\n") {
		text = whiteSpace.Replace(text)
	}
	for i, head := range encodedHeads {
		for from := 0; ; {
			at := strings.Index(text[from:], head)
			if at < 0 {
				break
			}
			start := from + at - encodedOffset[i]
			from += at + 1
			if start < 0 {
				continue
			}
			run := base64Run.FindString(text[start:])
			run = strings.NewReplacer("-", "+", "_", "/").Replace(run)
			run = run[:len(run)/4*4+tailLength(len(run)%4)]
			plain, err := base64.RawStdEncoding.DecodeString(run)
			if err != nil {
				continue
			}
			if t := tokenPattern.FindString(string(plain)); t != "" {
				return t
			}
		}
	}
	return ""
}

// tailLength is how many characters of an incomplete group decode.
func tailLength(rest int) int {
	if rest == 1 {
		return 0
	}
	return rest
}

// holdsForgery reports whether content from git, or an opened value, holds
// anything that could be taken for a token.
func holdsForgery(content []byte) bool {
	text := string(content)
	return tokenPattern.MatchString(text) || findEncodedToken(text) != ""
}
