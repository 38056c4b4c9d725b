package main

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestWhatOthersWroteHasNoPowerOverATerminal(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain text: ä €":    "plain text: ä €",
		" a\nb\tc\r\n":       "a b c",
		"\x1b[31mred\x1b[0m": `\x1b[31mred\x1b[0m`,
		"\u202egnp.exe":      `\u202egnp.exe`,
		"\u009b2J":           `\u009b2J`,
		"bad \xff byte":      `bad \ufffd byte`,
		"it's \"quoted\"":    `it's "quoted"`,
	} {
		if got := printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestRevisionsAreShortInAnyText(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0123456789", 4)
	for in, want := range map[string]string{
		"main@sha1:" + hash:                      "main@sha1:01234567",
		"applied v1.2.3@sha1:" + hash + ", fine": "applied v1.2.3@sha1:01234567, fine",
		"sha1:" + hash + "0":                     "sha1:" + hash + "0",
		hash:                                     hash,
	} {
		if got := short(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestATableKeepsItsWidths(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	var tab table
	tab.print(&b, "  ", []string{"NAME", "STATUS", ""}, []string{"äöüß", "", ""}, []string{"longer", "x", "y"})
	tab.print(&b, "", []string{"a", "b"})
	want := "  NAME     STATUS\n  äöüß\n  longer   x        y\na        b\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestNearNames(t *testing.T) {
	t.Parallel()
	names := []string{"shop", "shop-db", "blog", "a"}
	for in, want := range map[string]string{"shpo": "shop", "shop-bd": "shop-db", "sho": "shop", "shops": "shop", "blogg": "blog", "frontend": "", "b": "blog", "infrastructure": ""} {
		if got := nearest(in, names); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestDurationsWithoutZeros(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"1h": "1h", "90m": "1h30m", "1m30s": "1m30s", "10m": "10m", "20s": "20s", "10h": "10h"} {
		d, err := time.ParseDuration(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := every(metav1.Duration{Duration: d}); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}
