package main

import (
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// printable takes the power over a terminal from what others have written: commits,
// and the messages of servers. Lines stay apart by a space.
func printable(s string) string {
	var b strings.Builder
	for _, r := range strings.TrimSpace(s) {
		switch {
		case unicode.IsSpace(r):
			b.WriteByte(' ')
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

var longHash = regexp.MustCompile(`\bsha1:([0-9a-f]{8})[0-9a-f]{32}\b`)

// short cuts the hashes of revisions, in any text.
func short(s string) string { return longHash.ReplaceAllString(s, "sha1:$1") }

// ago is how long ago something was, as kubectl writes it.
func ago(now time.Time, t metav1.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t.Time))
}

// every is a duration without zeros at its end.
func every(d metav1.Duration) string {
	s := d.Duration.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// cut shortens what is longer than a column should be.
func cut(s string, most int) string {
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// table is columns side by side. Rows that come later keep to the widths.
type table struct{ widths []int }

// column gaps are those of kubectl.
const gap = "   "

// print writes rows, each with the indent before it.
func (t *table) print(w io.Writer, indent string, rows ...[]string) {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(cell)) + gap)
		}
		fmt.Fprintln(w, strings.TrimRight(indent+b.String(), " "))
	}
}
