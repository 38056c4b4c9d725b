package crypto

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/getsops/sops/v3"

	"github.com/gitseal/gitseal/test/corpus"
)

// FuzzOpenSOPS: whatever lies in git, opening it gives an error or a file, and on
// an error nothing else. Neither an error nor a masked file shows a sealed value.
func FuzzOpenSOPS(f *testing.F) {
	c := corpus.Of(f)
	ring := fixedRing(f)
	for name, file := range corpus.Files(f, "testdata/sealed") {
		f.Add(file, string(FormatOf(name)), false)
	}
	f.Fuzz(func(t *testing.T, file []byte, format string, warn bool) {
		if _, ok := sopsFormats[Format(format)]; !ok || bytes.Contains(file, []byte(sealedCanary)) {
			return
		}
		req := OpenRequest{File: file, Format: Format(format), Keys: ring}
		if warn {
			req.MAC = MACWarn
		}
		masked, err := MaskUnopened(file, req.Format, func(string) string { return "t" }, "m")
		if err != nil && (masked != nil || !documented(err)) {
			t.Errorf("masking without keys: %d bytes and %v", len(masked), err)
		}
		got, err := OpenSOPS(req)
		if err != nil {
			c.Saw("an error")
			if got != nil || !documented(err) {
				t.Errorf("a file %v and %v", got != nil, err)
			}
			hides(t, err, sealedCanary)
			return
		}
		c.Saw("opened " + format)
		if got.Unverified != nil {
			c.Saw("opened without a MAC")
			hides(t, got.Unverified, sealedCanary)
		}
		if len(got.units) > 1 {
			c.Saw("opened several units")
		}
		for _, b := range got.Bindings() {
			if _, err := ParseBinding(string(b)); err != nil {
				t.Errorf("binding %q: %v", b, err)
			}
		}
		masked, err = got.Masked(func(Leaf) string { return "t" })
		if err != nil {
			hides(t, err, sealedCanary)
		} else if bytes.Contains(masked, []byte(sealedCanary)) {
			t.Errorf("the masked file shows a value:\n%s", masked)
		}
		if _, err := got.Plain(); err != nil {
			hides(t, err, sealedCanary)
		}
	})
	c.Reached("an error", "opened yaml", "opened json", "opened dotenv", "opened ini", "opened binary", "opened several units", "opened without a MAC")
}

// FuzzChangedSOPS: a sealed file in which something was changed by somebody
// without a key opens only to values that were sealed in the same place, and to
// no other binding.
func FuzzChangedSOPS(f *testing.F) {
	c := corpus.Of(f)
	ring := fixedRing(f)
	files := corpus.Files(f, "testdata/sealed")
	names := slices.Sorted(maps.Keys(files))
	before := map[string]*SOPSFile{}
	for _, name := range names {
		file, err := OpenSOPS(OpenRequest{File: files[name], Format: FormatOf(name), Keys: ring})
		if err != nil {
			f.Fatal(err)
		}
		before[name] = file
	}
	f.Fuzz(func(t *testing.T, which uint8, at, end uint16, insert []byte, from, to []byte, warn bool) {
		name := names[int(which)%len(names)]
		file := files[name]
		start := min(int(at), len(file))
		changed := slices.Concat(file[:start], insert, file[min(max(start, int(end)), len(file)):])
		if len(from) > 0 {
			changed = bytes.Replace(changed, from, to, 1)
		}
		req := OpenRequest{File: changed, Format: FormatOf(name), Keys: ring}
		if warn {
			req.MAC = MACWarn
		}
		got, err := OpenSOPS(req)
		if err != nil {
			c.Saw("refused")
			return
		}
		if got.Unverified != nil {
			c.Saw("let in")
		}
		if !bytes.Equal(changed, file) {
			c.Saw("changed and opened")
		}
		masked, err := got.Masked(func(Leaf) string { return "t" })
		if err == nil && bytes.Contains(masked, []byte(sealedCanary)) && !bytes.Contains(changed, []byte(sealedCanary)) {
			t.Errorf("%s was changed, and the masked file shows a value:\n%s", name, masked)
		}
		want := map[string][]string{}
		for _, l := range before[name].Leaves {
			want[authenticated(l)] = append(want[authenticated(l)], string(l.Text.Reveal()))
		}
		for _, l := range got.Leaves {
			if !slices.Contains(want[authenticated(l)], string(l.Text.Reveal())) {
				t.Errorf("%s was changed, and %s opens to something that was not sealed there", name, l.Path)
			}
		}
		for _, b := range got.Bindings() {
			if !slices.Contains(before[name].Bindings(), b) {
				t.Errorf("%s was changed, and is bound to %s", name, b)
			}
		}
	})
	c.Reached("refused", "let in", "changed and opened")
}

var listIndex = regexp.MustCompile(`\[\d+\]`)

// authenticated is about what sops authenticates of a value's place: the keys
// above it, joined.
func authenticated(l Leaf) string {
	return strings.NewReplacer(`["`, ":", `"]`, "", ".", ":").Replace(listIndex.ReplaceAllString(":"+l.Path, ""))
}

// FuzzSealSOPS: a file is sealed and opens to what it was, or it is not sealed;
// neither the sealed file nor an error shows what is sealed.
func FuzzSealSOPS(f *testing.F) {
	c := corpus.Of(f)
	id := fixedIdentity(f)
	rec := []Recipient{id.Recipient()}
	f.Fuzz(func(t *testing.T, plain []byte, format, selector string, kind uint8, bind bool) {
		if _, ok := sopsFormats[Format(format)]; !ok {
			return
		}
		rule := Rule{Recipients: rec}
		rule.MACOnlyEncrypted = corpus.Pick(kind, selector, &rule.EncryptedRegex, &rule.UnencryptedRegex, &rule.EncryptedSuffix,
			&rule.UnencryptedSuffix, &rule.EncryptedCommentRegex, &rule.UnencryptedCommentRegex)
		req := SealRequest{Plain: NewSecret(bytes.Clone(plain)), Format: Format(format), Rule: rule, Now: testTime}
		if bind {
			req.Binding = "prod/db"
		}
		sealed, err := SealSOPS(req)
		branches, loadErr := loadPlain(NewSecret(bytes.Clone(plain)), req.Format)
		if err != nil {
			c.Saw("an error")
			if sealed != nil {
				t.Errorf("%d bytes and %v", len(sealed), err)
			}
			if loadErr != nil || !keysHold(branches, sealedCanary) { // a path may be named
				hides(t, err, sealedCanary)
			}
			return
		}
		c.Saw("sealed " + format)
		if kind%8 == 0 && loadErr == nil && !keysHold(branches, sealedCanary) && bytes.Contains(sealed, []byte(sealedCanary)) {
			t.Errorf("the sealed file shows what was to be sealed:\n%s", sealed)
		}
		got, err := OpenSOPS(OpenRequest{File: sealed, Format: req.Format, Keys: Keyring{Identities: []Identity{id}}})
		if err != nil {
			t.Fatalf("it does not open again: %v\n%s\n%q", err, sealed, plain)
		}
		if _, err := got.Plain(); err != nil {
			t.Fatalf("it can not be written again: %v", err)
		}
		// Comments move when sops writes them.
		same := func(_ place, v any) any { return v }
		want, wantErr := emit(req.Format, walkLeaves(branches, same))
		opened, err := emit(req.Format, walkLeaves(withoutBinding(got.units[0].full, req.Format), same))
		if (err == nil) != (wantErr == nil) || !bytes.Equal(want, opened) {
			t.Errorf("it opens to another file:\n%q\nsealed was\n%q\nof\n%q", opened, want, plain)
		}
	})
	c.Reached("an error", "sealed yaml", "sealed json", "sealed dotenv", "sealed ini", "sealed binary")
}

// keysHold reports whether the text stands in a key, or there is a key whose
// values are not sealed.
func keysHold(branches sops.TreeBranches, text string) bool {
	found := false
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case sops.TreeBranch:
			for _, item := range v {
				key, ok := item.Key.(string)
				found = found || ok && (strings.Contains(key, text) || strings.HasSuffix(key, sops.DefaultUnencryptedSuffix))
				walk(item.Value)
			}
		case []any:
			for _, item := range v {
				walk(item)
			}
		}
	}
	for _, b := range branches {
		walk(b)
	}
	return found
}

// FuzzCreationRule: a .sops.yaml gives a rule or an error.
func FuzzCreationRule(f *testing.F) {
	c := corpus.Of(f)
	config := filepath.Join(f.TempDir(), ".sops.yaml")
	f.Fuzz(func(t *testing.T, text []byte, file string) {
		if err := os.WriteFile(config, text, 0o600); err != nil {
			t.Fatal(err)
		}
		rule, err := CreationRule(config, filepath.Join(filepath.Dir(config), file))
		if err != nil {
			c.Saw("an error")
			if len(rule.Recipients) > 0 {
				t.Errorf("a rule and %v", err)
			}
			return
		}
		c.Saw("a rule")
		for _, r := range rule.Recipients {
			if _, err := ParseRecipient(r.String()); err != nil {
				t.Errorf("%q: %v", r, err)
			}
		}
	})
	c.Reached("an error", "a rule")
}
