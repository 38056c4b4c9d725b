package verify

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gitseal/gitseal/test/corpus"
)

// vector is a file that gpg made.
func vector(tb testing.TB, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "gpg", name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// vectorTime is when the vectors of gpg are good, and fuzzed things judged.
var vectorTime = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

// FuzzSplitCommit: what was signed and the signature make up the commit again, and
// a signature fits what it was made for only.
func FuzzSplitCommit(f *testing.F) {
	c := corpus.Of(f)
	keys := mustParse(f, map[string][]byte{"ada.asc": vector(f, "ada.asc")})
	good := map[string]bool{}
	for _, name := range []string{"good.commit", "subkey.commit"} {
		raw := vector(f, name)
		f.Add(raw)
		o, err := splitCommit(raw)
		if err != nil {
			f.Fatal(err)
		}
		good[string(o.payload)] = true
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		o, err := splitCommit(raw)
		if !bytes.Equal(raw, before) {
			t.Error("the object was changed")
		}
		signer, verifyErr := keys.Commit(raw, vectorTime)
		if verifyErr == nil {
			c.Saw("good")
			if !good[string(o.payload)] {
				t.Errorf("a good signature of %q", o.payload)
			}
		} else if signer != (Signer{}) {
			t.Errorf("%v beside %v", signer, verifyErr)
		}
		if err != nil {
			c.Saw("an error")
			if o.payload != nil || o.signature != nil {
				t.Error("a result beside an error")
			}
			return
		}
		c.Saw("split")
		headers, _, _ := strings.Cut("\n"+string(o.payload), "\n\n")
		if strings.Contains(headers, "\ngpgsig") {
			t.Error("a signature header is part of what was signed")
		}
		// Put together anew, with the signature behind the committer.
		at := strings.Index(headers, "\ncommitter ") + 1
		at += strings.IndexByte(string(o.payload[at-1:])+"\n", '\n')
		again, err := splitCommit([]byte(string(o.payload[:at]) + withHeader("", "gpgsig", string(o.signature)) + string(o.payload[at:])))
		if err != nil || !bytes.Equal(again.payload, o.payload) || !bytes.Equal(again.signature, o.signature) {
			t.Errorf("put together anew: %q and %q, %v", again.payload, again.signature, err)
		}
	})
	c.Reached("an error", "split", "good")
}

// FuzzSplitTag: as above; a tag is what was signed and then the signature.
func FuzzSplitTag(f *testing.F) {
	c := corpus.Of(f)
	keys := mustParse(f, map[string][]byte{"ada.asc": vector(f, "ada.asc")})
	raw := vector(f, "good.tag")
	f.Add(raw)
	good, err := splitTag(raw)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := splitTag(raw)
		signer, verifyErr := keys.Tag(raw, vectorTime)
		if verifyErr == nil {
			c.Saw("good")
			if !bytes.Equal(o.payload, good.payload) {
				t.Errorf("a good signature of %q", o.payload)
			}
		} else if signer != (Signer{}) {
			t.Errorf("%v beside %v", signer, verifyErr)
		}
		if err != nil {
			c.Saw("an error")
			if o.payload != nil || o.signature != nil {
				t.Error("a result beside an error")
			}
			return
		}
		c.Saw("split")
		if got := append(bytes.Clone(o.payload), o.signature...); !bytes.Equal(got, raw) {
			t.Errorf("put together: %q", got)
		}
		if !strings.Contains(string(o.payload), "\n\n") || beginsSignature(o.payload) || !beginsSignature(o.signature) || o.name == "" {
			t.Errorf("split into %q and %q", o.payload, o.signature)
		}
	})
	c.Reached("an error", "split", "good")
}

// FuzzSignature: no signature, however broken, does more than to be refused, and
// none fits another text.
func FuzzSignature(f *testing.F) {
	c := corpus.Of(f)
	keys := mustParse(f, map[string][]byte{"ada.asc": vector(f, "ada.asc"), "fuzz.pub": vector(f, "../ssh/fuzz.pub")})
	pgp, err := splitCommit(vector(f, "good.commit"))
	if err != nil {
		f.Fatal(err)
	}
	payload := pgp.payload // the seeds sign this: with gpg's vector, and with the key of fuzz.pub
	f.Add(pgp.signature)
	f.Fuzz(func(t *testing.T, signature []byte) {
		for _, text := range [][]byte{payload, append(bytes.Clone(payload), '.')} {
			signer, err := keys.signer("commit", signedObject{payload: text, signature: signature, when: vectorTime}, nil, vectorTime)
			switch {
			case err == nil && len(text) != len(payload):
				t.Errorf("it fits another text")
			case err == nil:
				c.Saw("good " + string(signer.Kind))
				if signer.Fingerprint == "" {
					t.Error("a signer without a key")
				}
			default:
				c.Saw("an error")
				if signer != (Signer{}) {
					t.Errorf("%v beside %v", signer, err)
				}
			}
		}
	})
	c.Reached("an error", "good OpenPGP", "good SSH")
}

// FuzzParseKeys: keys or an error, of one kind for one input, and no error repeats
// a word of it.
func FuzzParseKeys(f *testing.F) {
	c := corpus.Of(f)
	f.Add(vector(f, "ada.asc"))
	commit := vector(f, "good.commit")
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := ParseKeys(map[string][]byte{"entry": bytes.Clone(data)})
		if (err == nil) != (keys.Len() > 0) {
			t.Errorf("%d keys and %v", keys.Len(), err)
		}
		if err != nil {
			c.Saw("an error")
			for word := range strings.FieldsSeq(string(data)) {
				if len(word) > 24 && strings.Contains(err.Error(), word) {
					t.Errorf("%v repeats its input", err)
				}
			}
			return
		}
		for _, k := range keys.ssh {
			c.Saw("ssh")
			line := strings.TrimSpace(lineOf(k))
			if again, err := parseSSHLine(line, ""); err != nil || !bytes.Equal(again.key.Marshal(), k.key.Marshal()) {
				t.Errorf("%s reads as %v, %v", line, again, err)
			}
		}
		if len(keys.certificates) > 0 {
			c.Saw("OpenPGP")
		}
		_, _ = keys.Commit(commit, vectorTime) // must not panic on a key that could be read
	})
	c.Reached("an error", "ssh", "OpenPGP")
}
