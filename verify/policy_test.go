package verify

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// signers are two who are trusted and one who is not.
type signers struct{ ada, bob, eve sshPair }

func newSigners(t *testing.T) signers { return signers{newSSH(t), newSSH(t), newSSH(t)} }

func (s signers) both(t *testing.T) Keys {
	return mustParse(t, map[string][]byte{"ada": []byte(s.ada.line()), "bob": []byte(s.bob.line())})
}

func TestPolicyModes(t *testing.T) {
	t.Parallel()
	s := newSigners(t)
	unsigned := []byte(headersAt(made) + message)
	byAda := signedCommit(s.ada.sign(t))
	tagBy := func(k sshPair, commit []byte) []byte { return signedTag(commit, "v1", k.sign(t)) }
	light := []byte(nil)
	nested := bytes.Replace(tagBy(s.bob, unsigned), []byte("type commit"), []byte("type tag"), 1)
	tests := map[string]struct {
		mode Mode
		in   Signed
		want string // who
		err  error
		text string
	}{
		"HEAD":                               {Head, Signed{Commit: byAda}, "ada", nil, ""},
		"nothing stands for HEAD":            {"", Signed{Commit: byAda}, "ada", nil, ""},
		"HEAD does not look at the tag":      {Head, Signed{Commit: byAda, Tag: tagBy(s.eve, byAda)}, "ada", nil, ""},
		"HEAD, unsigned":                     {Head, Signed{Commit: unsigned, Tag: tagBy(s.bob, unsigned)}, "", ErrUnsigned, "commit: not signed"},
		"HEAD, a stranger":                   {Head, Signed{Commit: signedCommit(s.eve.sign(t))}, "", &UnknownSignerError{}, ""},
		"Tag":                                {Tag, Signed{Commit: unsigned, Tag: tagBy(s.bob, unsigned), TagName: "v1"}, "bob", nil, ""},
		"Tag, without a name":                {Tag, Signed{Commit: unsigned, Tag: tagBy(s.bob, unsigned)}, "bob", nil, ""},
		"Tag, but there is none":             {Tag, Signed{Commit: byAda, Tag: light}, "", ErrUnsigned, "tag: not signed: there is no annotated tag"},
		"Tag, unsigned":                      {Tag, Signed{Commit: byAda, Tag: []byte(tagHeadersOf(byAda, "v1") + message)}, "", ErrUnsigned, "tag: not signed"},
		"Tag, a stranger":                    {Tag, Signed{Commit: byAda, Tag: tagBy(s.eve, byAda)}, "", &UnknownSignerError{}, ""},
		"Tag, of another commit":             {Tag, Signed{Commit: byAda, Tag: tagBy(s.bob, unsigned)}, "", ErrRefused, "it stands for another commit"},
		"Tag, that was signed as another":    {Tag, Signed{Commit: unsigned, Tag: tagBy(s.bob, unsigned), TagName: "v2"}, "", ErrRefused, "it was signed as v1"},
		"Tag, of a tag":                      {Tag, Signed{Commit: unsigned, Tag: nested}, "", ErrRefused, "it stands for a tag, not for a commit"},
		"TagAndHEAD":                         {TagAndHead, Signed{Commit: byAda, Tag: tagBy(s.bob, byAda)}, "ada bob", nil, ""},
		"TagAndHEAD, the commit is unsigned": {TagAndHead, Signed{Commit: unsigned, Tag: tagBy(s.bob, unsigned)}, "", ErrUnsigned, "commit: "},
		"TagAndHEAD, there is no tag":        {TagAndHead, Signed{Commit: byAda}, "", ErrUnsigned, "tag: "},
		"TagAndHEAD, a stranger's tag":       {TagAndHead, Signed{Commit: byAda, Tag: tagBy(s.eve, byAda)}, "", &UnknownSignerError{}, "tag: "},
		"no such mode":                       {"head", Signed{Commit: byAda}, "", nil, "mode head: want HEAD, Tag or TagAndHEAD"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.in.Now = now
			got, err := Policy{Keys: s.both(t), Mode: tt.mode}.Check(tt.in)
			if tt.err != nil || tt.text == "" {
				checkVerdict(t, err, tt.err, tt.text)
			} else if err == nil || err.Error() != tt.text {
				t.Errorf("got %v, want %s", err, tt.text)
			}
			var who []string
			for _, g := range got {
				who = append(who, g.Identity)
			}
			if diff := cmp.Diff(strings.Join(who, " "), tt.want); diff != "" {
				t.Errorf("signers (-got +want): %s", diff)
			}
		})
	}
}

func TestPolicyPaths(t *testing.T) {
	t.Parallel()
	s := newSigners(t)
	ada, bob := s.ada.keys(t), s.bob.keys(t)
	rules := []PathRule{{"clusters/prod/", ada}, {"clusters/prod/team-b", bob}, {"clusters", s.both(t)}}
	tests := map[string]struct {
		rules   []PathRule
		changes Changes
		ada     string // the rule that refuses her, and the path
		bob     string
	}{
		"nothing differs":             {rules, Only(nil), "", ""},
		"a path under no rule":        {rules, Only([]string{"README", "clusters-old/prod/x"}), "", ""},
		"a path under a rule":         {rules, Only([]string{"clusters/prod/a", "x"}), "", "clusters/prod/: clusters/prod/a"},
		"a path with the same start":  {rules, Only([]string{"clusters/production/a"}), "", ""},
		"a path of the longer rule":   {rules, Only([]string{"clusters/prod/team-b/x"}), "clusters/prod/team-b: clusters/prod/team-b/x", ""},
		"a path that is the prefix":   {rules, Only([]string{"clusters/prod/team-b"}), "clusters/prod/team-b: clusters/prod/team-b", ""},
		"paths of both":               {rules, Only([]string{"clusters/prod/a", "clusters/prod/team-b/x"}), "clusters/prod/team-b: clusters/prod/team-b/x", "clusters/prod/: clusters/prod/a"},
		"a link above the rules":      {rules, Only([]string{"clusters"}), "clusters/prod/team-b: clusters", "clusters/prod/: clusters"},
		"a link above the longer one": {rules, Only([]string{"clusters/prod"}), "clusters/prod/team-b: clusters/prod", "clusters/prod/: clusters/prod"},
		"everything":                  {rules, Changes{}, "clusters/prod/team-b: ", "clusters/prod/: "},
		"a rule for all":              {[]PathRule{{"", ada}, {"b", bob}}, Only([]string{"x"}), "", ": x"},
		"and one within":              {[]PathRule{{".", ada}, {"b", bob}}, Only([]string{"b/x"}), "b: b/x", ""},
		"no rules":                    {nil, Changes{}, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, who := range []struct {
				pair sshPair
				want string
			}{{s.ada, tt.ada}, {s.bob, tt.bob}} {
				commit := signedCommit(who.pair.sign(t))
				for mode, in := range map[Mode]Signed{
					Head: {Commit: commit},
					Tag:  {Commit: []byte(headersAt(made)), Tag: signedTag([]byte(headersAt(made)), "v1", who.pair.sign(t))},
				} {
					in.Changes, in.Now = tt.changes, now
					got, err := Policy{Keys: s.both(t), Mode: mode, Paths: tt.rules}.Check(in)
					if who.want == "" {
						if err != nil || len(got) != 1 {
							t.Errorf("%s: got %v, %v, want one signer", mode, got, err)
						}
						continue
					}
					var path *PathError
					var unknown *UnknownSignerError
					if !errors.As(err, &path) || !errors.As(err, &unknown) || path.Prefix+": "+path.Path != who.want || got != nil {
						t.Errorf("%s: got %v beside %v, want %s", mode, got, err, who.want)
					}
				}
			}
		})
	}
	// A rule gives nobody the right to sign who has none for the whole.
	commit := signedCommit(s.eve.sign(t))
	_, err := Policy{Keys: ada, Paths: []PathRule{{"a", s.eve.keys(t)}}}.Check(Signed{Commit: commit, Changes: Only([]string{"a/x"}), Now: now})
	checkVerdict(t, err, &UnknownSignerError{}, "commit: signed by")
	if errors.As(err, new(*PathError)) {
		t.Errorf("got %v, want the error of the policy's own keys", err)
	}
}

func TestPolicyMessages(t *testing.T) {
	t.Parallel()
	s := newSigners(t)
	p := Policy{Keys: s.both(t), Paths: []PathRule{{"clusters/prod", s.ada.keys(t)}}}
	for changed, want := range map[string]string{
		"clusters/prod/x": "path clusters/prod (changed: clusters/prod/x): commit: signed by SSH key " + s.bob.id() + ", which is not trusted",
		"":                "path clusters/prod (changed: all files): commit: signed by SSH key " + s.bob.id() + ", which is not trusted",
	} {
		in := Signed{Commit: signedCommit(s.bob.sign(t)), Now: now}
		if changed != "" {
			in.Changes = Only([]string{changed})
		}
		if _, err := p.Check(in); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestPolicyValidate(t *testing.T) {
	t.Parallel()
	k := newSSH(t).keys(t)
	for want, p := range map[string]Policy{
		"":                                                  {Keys: k, Mode: TagAndHead, Paths: []PathRule{{"a", k}, {"a/b", k}, {"..a", k}}},
		"no keys of trusted signers":                        {},
		"path a: no keys of trusted signers":                {Keys: k, Paths: []PathRule{{Prefix: "a"}}},
		"path a/: there are two rules":                      {Keys: k, Paths: []PathRule{{"a", k}, {"a/", k}}},
		"path .: there are two rules":                       {Keys: k, Paths: []PathRule{{"", k}, {".", k}}},
		"path /a: want a path within the repository":        {Keys: k, Paths: []PathRule{{"/a", k}}},
		"path a/../../b: want a path within the repository": {Keys: k, Paths: []PathRule{{"a/../../b", k}}},
		"path ..: want a path within the repository":        {Keys: k, Paths: []PathRule{{"..", k}}},
		"mode TAG: want HEAD, Tag or TagAndHEAD":            {Keys: k, Mode: "TAG"},
	} {
		got := ""
		if err := p.Validate(); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if _, err := p.Check(Signed{}); err == nil || want != "" && err.Error() != want {
			t.Errorf("Check: got %v, want %q", err, want)
		}
	}
}
