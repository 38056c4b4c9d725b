package decrypt

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf16"

	"go.yaml.in/yaml/v3"

	"github.com/gitseal/gitseal/test/corpus"
)

// The ways in which a token can be written.
const (
	asItIs = iota
	inBase64
	inBase64Twice
	waysToWrite // how many there are
)

// FuzzFindToken: a token is found wherever it stands in a text, as it is or as
// base64, with whatever before and after it, over whatever lines, however the
// text is then escaped; and what holds none is not taken for one.
func FuzzFindToken(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, before, after []byte, way, width uint8, end, around string, urlSafe, padded bool) {
		way %= waysToWrite
		if strings.Trim(end, " \t\r\n") != "" || len(before)+len(after)+len(end)+len(around) > 1<<14 {
			return
		}
		encoding := base64.StdEncoding
		if urlSafe {
			encoding = base64.URLEncoding
		}
		if !padded {
			encoding = encoding.WithPadding(base64.NoPadding)
		}
		wrap := func(text string) string {
			if width == 0 || end == "" {
				return text
			}
			var out strings.Builder
			for len(text) > int(width) {
				out.WriteString(text[:width] + end)
				text = text[width:]
			}
			return out.String() + text
		}
		write := func(content string) string {
			for range way {
				content = encoding.EncodeToString([]byte(content))
			}
			if way != asItIs {
				content = wrap(content)
			}
			return around + content + around
		}
		without := write(string(before) + string(after))
		text := write(string(before) + shapedToken + string(after))
		if findToken(text) == "" {
			t.Errorf("not found in %q", text)
		}
		if tokenPattern.FindString(text) == shapedToken {
			c.Saw("found as it is")
		} else {
			c.Saw("found as base64")
		}
		for name, file := range written(t, text) {
			if !holdsForgery(file) {
				t.Errorf("not found as %s in %q", name, file)
			}
		}
		if !strings.Contains(string(before)+string(after)+around, "gitseal") && findToken(string(before)+string(after)) == "" && findToken(around+around) == "" && findToken(without) != "" {
			if decoded, err := encoding.DecodeString(whiteSpace.Replace(strings.ReplaceAll(without, around, ""))); err != nil || findToken(string(decoded)) == "" {
				t.Errorf("taken for a token: %q", without)
			}
		}
	})
	c.Reached("found as it is", "found as base64")
}

// written is a text as the value of a field in the files that a build reads.
func written(t *testing.T, text string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	value := map[string]string{"k": text}
	j := must(json.Marshal(value))(t)
	var read map[string]string
	if err := json.Unmarshal(j, &read); err != nil || read["k"] != text {
		return out // not UTF-8
	}
	out["JSON"] = j
	wide := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(string(j))) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	out["JSON in UTF-16"] = wide
	out["JSON in a string of JSON"] = must(json.Marshal(string(j)))(t)
	if y, err := yaml.Marshal(value); err == nil {
		out["YAML"] = y
	}
	return out
}
