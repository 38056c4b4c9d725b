package harness

import (
	"encoding/hex"
	"strings"
)

// Undump joins the hexdumps in a log of client-go, which prints protobuf bodies
// so at high verbosity: sixteen bytes a line, which no plain search finds.
func Undump(log string) string {
	var out []byte
	for line := range strings.Lines(log) {
		offset, rest, ok := strings.Cut(strings.TrimSpace(line), "  ")
		columns, _, isDump := strings.Cut(rest, "  |")
		if !ok || !isDump || len(offset) != 8 {
			continue
		}
		if b, err := hex.DecodeString(strings.ReplaceAll(columns, " ", "")); err == nil {
			out = append(out, b...)
		}
	}
	return string(out)
}
