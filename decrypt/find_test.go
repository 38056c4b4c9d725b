package decrypt

import (
	"encoding/base64"
	"math/rand/v2"
	"strings"
	"testing"
)

const shapedToken = openedHead + "abcdefghijklmnopqrstuvwxyz23"

func TestForgeriesAreFoundHoweverTheyAreWritten(t *testing.T) {
	t.Parallel()
	std := base64.StdEncoding.EncodeToString
	b64 := std([]byte(shapedToken))
	for name, text := range map[string]string{
		"as it is":                    "a: " + shapedToken,
		"without keys":                strings.Replace(shapedToken, "gitseal0", "gitseal1", 1),
		"within a word":               "x" + shapedToken + "y",
		"base64":                      b64,
		"base64, one byte in":         std([]byte("x" + shapedToken)),
		"base64, two bytes in":        std([]byte("xy" + shapedToken + "z")),
		"base64 with text around":     "postgres://" + b64 + "/x",
		"URL-safe base64":             base64.URLEncoding.EncodeToString([]byte("\xff\xfe\xff" + shapedToken + "\xff\xfe")),
		"wrapped base64":              "k: |\n  " + b64[:20] + "\n  " + b64[20:],
		"base64 of base64":            std([]byte(b64)),
		"base64 of base64, one in":    std([]byte("x" + b64)),
		"base64 of a base64 one in":   std([]byte("xyz" + std([]byte("x"+shapedToken+"tail")))),
		"base64 of a base64 two in":   std([]byte("x" + std([]byte("xy"+shapedToken+"tail")))),
		"an escaped letter of YAML":   `k: "\x67` + shapedToken[1:] + `"`,
		"an escaped letter of JSON":   `{"k": "gitsea\u006c` + shapedToken[7:] + `"}`,
		"a long escape of YAML":       `k: "gitsea\U0000006c` + shapedToken[7:] + `"`,
		"JSON in a string of YAML":    `patch: "[{\"value\": \"gitsea\\u006c` + shapedToken[7:] + `\"}]"`,
		"broken over lines in quotes": "k: \"" + shapedToken[:12] + "\\\n    " + shapedToken[12:] + "\"",
		"escaped base64":              `k: "\x5a` + b64[1:] + `"`,
		"an escaped escape":           `k: "\x5cx67` + shapedToken[1:] + `"`,
	} {
		if !holdsForgery([]byte(text)) {
			t.Errorf("%s: not found in %s", name, text)
		}
	}
}

func TestWhatIsNoTokenIsNotTakenForOne(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"one character short": shapedToken[:tokenLength-1],
		"another alphabet":    openedHead + strings.Repeat("A", tokenTail),
		"our documentation":   "placeholders look like gitseal0… or gitseal1…",
		"its base64":          base64.StdEncoding.EncodeToString([]byte("gitseal0…")),
		"another generation":  "gitseal2" + shapedToken[8:],
		"nothing":             "",
		"a backslash":         `\`,
		"a cut escape":        `\u00`,
		"the head alone":      "Z2l0c2VhbD",
	} {
		if holdsForgery([]byte(text)) {
			t.Errorf("%s: taken for a token: %s", name, text)
		}
	}
}

func TestSearchIsLinearForHostileText(t *testing.T) {
	t.Parallel()
	if holdsForgery([]byte(strings.Repeat("Z2l0c2VhbD", 1<<18))) || holdsForgery([]byte(strings.Repeat(nestedHeads[0].text, 1<<18))) {
		t.Error("taken for a token")
	}
}

func TestRandomBase64HoldsNoToken(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	if holdsForgery(b) || findEncodedToken(base64.StdEncoding.EncodeToString(b)) != "" {
		t.Error("taken for a token")
	}
}
