package verify

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestSplitCommit(t *testing.T) {
	t.Parallel()
	headers := headersAt(made)
	sig := withHeader("", "gpgsig", "one\n\ntwo\n")
	other := withHeader("", "gpgsig-sha256", "three\nfour\n")
	mergetag := withHeader("", "mergetag", "object x\ngpgsig y\n\n-----BEGIN PGP SIGNATURE-----\n")
	for name, tt := range map[string]struct{ raw, payload string }{
		"a signature":                  {headers + sig + message, headers + message},
		"an empty message":             {headers + sig + "\n", headers + "\n"},
		"no message at all":            {headers + sig, headers},
		"headers around it":            {headers + "encoding x\n" + sig + "x y\n" + message, headers + "encoding x\nx y\n" + message},
		"a mergetag before it":         {headers + mergetag + sig + message, headers + mergetag + message},
		"a mergetag behind it":         {headers + sig + mergetag + message, headers + mergetag + message},
		"a second form of it":          {headers + sig + other + message, headers + message},
		"the second form first":        {headers + other + sig + message, headers + message},
		"another in the message":       {headers + sig + message + sig + other, headers + message + sig + other},
		"a space where a line is none": {headers + "x y\n \n" + sig + message, headers + "x y\n \n" + message},
		"three parents":                {strings.Replace(headers, "author", "parent "+treeHash+"\nparent "+treeHash+"\nauthor", 1) + sig + message, strings.Replace(headers, "author", "parent "+treeHash+"\nparent "+treeHash+"\nauthor", 1) + message},
		"NUL in the message":           {headers + sig + "\n\x00", headers + "\n\x00"},
	} {
		raw := []byte(tt.raw)
		got, err := splitCommit(raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(string(got.payload), tt.payload); diff != "" {
			t.Errorf("%s: payload (-got +want):\n%s", name, diff)
		}
		if string(got.signature) != "one\n\ntwo\n" || !got.when.Equal(made) {
			t.Errorf("%s: got signature %q of %s", name, got.signature, got.when)
		}
		if string(raw) != tt.raw {
			t.Errorf("%s: the object was changed", name)
		}
	}
}

func TestSplitCommitRefuses(t *testing.T) {
	t.Parallel()
	headers := headersAt(made)
	sig := withHeader("", "gpgsig", "one\n")
	cut := func(prefix string) string {
		var out []string
		for line := range strings.SplitAfterSeq(headers, "\n") {
			if !strings.HasPrefix(line, prefix) {
				out = append(out, line)
			}
		}
		return strings.Join(out, "")
	}
	lines := strings.SplitAfter(headers, "\n")
	for name, tt := range map[string]struct {
		raw  string
		want error
		text string
	}{
		"unsigned":                       {headers + message, ErrUnsigned, "not signed"},
		"signed in the message":          {headers + "\n" + sig + message, ErrUnsigned, ""},
		"signed in the second form only": {headers + withHeader("", "gpgsig-sha256", "one\n") + message, ErrUnsigned, ""},
		"two signatures":                 {headers + sig + sig + message, ErrRefused, "two gpgsig headers"},
		"two apart":                      {headers + sig + "x y\n" + sig + message, ErrRefused, "two gpgsig headers"},
		"two of the second form":         {headers + sig + withHeader("", "gpgsig-sha256", "x\n") + withHeader("", "gpgsig-sha256", "x\n") + message, ErrRefused, "two gpgsig-sha256 headers"},
		"a header like it":               {headers + sig + "gpgsigs x\n" + message, ErrRefused, "begins with gpgsig"},
		"nothing":                        {"", ErrRefused, "no tree"},
		"an empty line":                  {"\n", ErrRefused, "no tree"},
		"no tree":                        {cut("tree") + sig + message, ErrRefused, "no tree where it belongs"},
		"no author":                      {cut("author") + sig + message, ErrRefused, "no author where it belongs"},
		"no committer":                   {cut("committer") + sig + message, ErrRefused, "no committer where it belongs"},
		"headers end too early":          {lines[0], ErrRefused, "no author where it belongs"},
		"the tree is not the first":      {lines[1] + lines[0] + lines[2] + lines[3] + sig + message, ErrRefused, "no tree where it belongs"},
		"a second tree":                  {lines[0] + headers + sig + message, ErrRefused, "no author where it belongs"},
		"a tree that is none":            {strings.Replace(headers, "tree 4", "tree x", 1) + sig + message, ErrRefused, "malformed tree"},
		"a parent that is none":          {strings.Replace(headers, "parent 1", "parent ", 1) + sig + message, ErrRefused, "malformed parent"},
		"a signature of the tree":        {lines[0] + " x\n" + lines[1] + lines[2] + lines[3] + sig + message, ErrRefused, "malformed commit header"},
		"a committer without a date":     {strings.Replace(headers, " +0200", "", 1) + sig + message, ErrRefused, "malformed committer"},
		"a committer before all time":    {strings.Replace(headers, "> 17", "> -17", 2) + sig + message, ErrRefused, "malformed committer"},
		"a committer after all time":     {strings.Replace(headers, itoa(int(made.Unix())), "99999999999999", 1) + sig + message, ErrRefused, "malformed committer"},
		"no name of the committer":       {strings.Replace(headers, "Bob <bob@example.com> ", "", 1) + sig + message, ErrRefused, "malformed committer"},
		"NUL in a header":                {headers + sig + "x \x00\n" + message, ErrRefused, "malformed commit header"},
		"a header without an end":        {headers + sig + "x y", ErrRefused, "malformed commit header"},
		"a tag":                          {tagHeadersOf([]byte(headers), "v1") + message, ErrRefused, "no tree where it belongs"},
		"too large":                      {headers + sig + "\n" + strings.Repeat("x", maxObjectBytes), ErrRefused, "larger than 10485760 bytes"},
	} {
		got, err := splitCommit([]byte(tt.raw))
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v, want %v with %q", name, err, tt.want, tt.text)
		}
		if got.payload != nil || got.signature != nil {
			t.Errorf("%s: something beside an error", name)
		}
	}
}

func TestSplitTag(t *testing.T) {
	t.Parallel()
	const sig = "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"
	headers := tagHeadersOf([]byte("x"), "v1")
	old := strings.SplitAfter(headers, "tagger")[0]
	old = strings.TrimSuffix(old, "tagger")
	for name, tt := range map[string]struct {
		raw  string
		want error
		text string
	}{
		"signed":                      {headers + message + sig, nil, ""},
		"without a message":           {headers + "\n" + sig, nil, ""},
		"without a tagger":            {old + message + sig, nil, ""},
		"a marker within a line":      {headers + message + " " + sig + sig, nil, ""},
		"unsigned":                    {headers + message, ErrUnsigned, ""},
		"no message":                  {headers, ErrUnsigned, ""},
		"a marker within a line only": {headers + message + "x" + sig, ErrUnsigned, ""},
		"two signatures":              {headers + message + sig + sig, ErrRefused, "several signatures"},
		"one of S/MIME before":        {headers + message + "-----BEGIN SIGNED MESSAGE-----\n" + sig, ErrRefused, "several signatures"},
		"signed in the header":        {headers + sig + message, ErrRefused, "malformed tag header"},
		"a header beside the others":  {headers + "gpgsig x\n" + message + sig, ErrRefused, "malformed tag header"},
		"an author":                   {old + "author x\n" + message + sig, ErrRefused, "no tagger where it belongs"},
		"no name":                     {strings.Replace(headers, "tag v1", "tag ", 1) + message + sig, ErrRefused, "no name"},
		"nothing":                     {"", ErrRefused, "no object"},
		"a commit":                    {headersAt(made) + message + sig, ErrRefused, "no object"},
		"an object that is none":      {"object x\n" + message + sig, ErrRefused, "malformed object"},
		"a tagger without a date":     {strings.Replace(headers, " +0200", "", 1) + message + sig, ErrRefused, "malformed tagger"},
		"NUL in a header":             {strings.Replace(headers, "v1", "v\x001", 1) + message + sig, ErrRefused, "malformed tag header"},
		"too large":                   {headers + "\n" + strings.Repeat("x", maxObjectBytes), ErrRefused, "larger than 10485760 bytes"},
	} {
		raw := []byte(tt.raw)
		got, err := splitTag(raw)
		if tt.want != nil {
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || got.payload != nil {
				t.Errorf("%s: got %v, want %v with %q", name, err, tt.want, tt.text)
			}
			continue
		}
		if err != nil || string(got.signature) != sig || string(got.payload)+sig != tt.raw || got.name != "v1" || got.kind != "commit" || got.object != commitHash([]byte("x")) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if name != "without a tagger" && !got.when.Equal(made) {
			t.Errorf("%s: got the date %s, want %s", name, got.when, made)
		}
	}
}

func TestParseDate(t *testing.T) {
	t.Parallel()
	for ident, want := range map[string]int64{
		"A <a@x> 1 +0000": 1, "<> 0 -0700": 0, "A > B <b> x> 12 +0530": 12,
		"A <a@x> 1": -1, "A <a@x> +0000": -1, "A <a@x> 1 UTC": -1, "A <a@x>1 +0000": -1, "A <a@x> 1  +0000": -1, "1 +0000": -1, "": -1, ">": -1,
	} {
		var when time.Time
		if ok := parseDate([]byte(ident), &when); ok != (want >= 0) || ok && when.Unix() != want {
			t.Errorf("%q: got %v, %v, want %d", ident, ok, when, want)
		}
	}
}

func TestSignaturesOfOneKeyDoNotFitAnotherObject(t *testing.T) {
	t.Parallel()
	k := newSSH(t)
	// A commit whose message is a tag, and the other way round: what was signed as
	// the one must not pass as the other.
	commit := signedCommit(k.sign(t))
	tag := signedTag(commit, "v1", k.sign(t))
	if _, err := k.keys(t).Tag(commit, now); !errors.Is(err, ErrRefused) {
		t.Errorf("a commit as a tag: %v", err)
	}
	if _, err := k.keys(t).Commit(tag, now); !errors.Is(err, ErrRefused) {
		t.Errorf("a tag as a commit: %v", err)
	}
	if bytes.Equal(commit, tag) {
		t.Fatal("they are the same")
	}
}
