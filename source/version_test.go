package source

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestHighestVersion(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		tags string
		want string // the tag and its version
		err  string
	}{
		"the highest of all":               {"*", "v1.0.0 v1.10.0 v1.9.0", "v1.10.0 1.10.0", ""},
		"a range":                          {">=1.2 <2", "v1.1.9 v1.2.0 v1.3.1 v2.0.0", "v1.3.1 1.3.1", ""},
		"a range with a comma":             {">=1.2, <2", "v1.2.0 v2.0.0", "v1.2.0 1.2.0", ""},
		"a wildcard":                       {"1.x", "v1.2.0 v1.9.9 v2.0.0", "v1.9.9 1.9.9", ""},
		"a tilde":                          {"~1.2", "v1.2.0 v1.2.7 v1.3.0", "v1.2.7 1.2.7", ""},
		"one or the other":                 {"1.0.x || 3.x", "v1.0.3 v2.0.0", "v1.0.3 1.0.3", ""},
		"without a v":                      {"1.x", "1.2.0 1.1.0", "1.2.0 1.2.0", ""},
		"what is no version is skipped":    {"*", "release v1 v1.2 1.2.3.4 latest v01.2.3 release/v9.0.0 vv9.0.0 V9.0.0 v1.2.3 v9.0.0x v9.0", "v1.2.3 1.2.3", ""},
		"no pre-release by itself":         {">=1.0.0", "v1.0.0 v1.1.0-rc.1", "v1.0.0 1.0.0", ""},
		"a pre-release where one is named": {">=1.0.0-0", "v1.0.0 v1.1.0-rc.1 v1.1.0-alpha", "v1.1.0-rc.1 1.1.0-rc.1", ""},
		"the release after its candidate":  {">=1.0.0-0", "v1.1.0-rc.1 v1.1.0", "v1.1.0 1.1.0", ""},
		"the same with and without a v":    {"*", "1.0.0 v1.0.0", "v1.0.0 1.0.0", ""},
		"the same but for the build":       {"*", "v1.0.0+a v1.0.0+b v1.0.0", "v1.0.0+b 1.0.0+b", ""},
		"no tags":                          {"1.x", "", "", "semver 1.x not found: the repository has no tags"},
		"no versions":                      {"1.x", "a b", "", "semver 1.x not found: none of its 2 tags is a version such as v1.2.3"},
		"none in the range":                {">=3 <4", "v1.0.0 v2.0.0 latest", "", "semver >=3 <4 not found: none of the 2 versions among its 3 tags is in that range"},
	}
	for name, tt := range tests {
		r, err := parseRange(tt.text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		tags := strings.Fields(tt.tags)
		for range 2 {
			tag, version, err := highest(r, slices.Values(tags), Ref{SemVer: tt.text})
			if got := strings.TrimSpace(tag + " " + version); got != tt.want {
				t.Errorf("%s: got %q of %v, want %q", name, got, tags, tt.want)
			}
			var missing *RefNotFoundError
			if tt.err != "" && (!errors.As(err, &missing) || err.Error() != tt.err) || tt.err == "" && err != nil {
				t.Errorf("%s: got %v, want %q", name, err, tt.err)
			}
			slices.Reverse(tags)
		}
	}
}

func TestRangesThatAreNone(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"latest":      `ref: semver latest: want a range of versions, such as ">=1.2 <2" or "1.x"`,
		"1.2\x1b[31m": `ref: semver "1.2\x1b[31m": want`,
		strings.Repeat("1.x || ", maxRangeBytes) + "1": "ref: semver: longer than 256 bytes",
	} {
		err := Config{URL: "/r", Ref: Ref{SemVer: text}}.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if err := (Config{URL: "/r", Ref: Ref{SemVer: "1.x", Tag: "v1"}}).Validate(); err == nil || !strings.Contains(err.Error(), "only one of branch, tag, semver and commit") {
		t.Errorf("got %v, want both refused", err)
	}
}

func TestFetchFollowsARangeOfVersions(t *testing.T) {
	t.Parallel()
	server, sshd := newGitServer(t, plain), newSSHServer(t)
	sshd.root = server.root
	for transport, config := range map[string]Config{
		"http":   {URL: server.url("http")},
		"ssh":    {URL: sshd.url("ssh"), Credentials: sshd.credentials()},
		"a path": {URL: server.root + "/path"},
	} {
		name := transport
		if transport == "a path" {
			name = "path"
		}
		r := newRepo(t, server.root, name)
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			r.t = t
			config.Ref.SemVer = ">=1.0 <2"
			s := mustNew(t, config)
			_, _, err := s.Fetch(t.Context())
			var missing *RefNotFoundError
			if !errors.As(err, &missing) || !strings.Contains(err.Error(), "semver >=1.0 <2 not found: the repository has no tags") {
				t.Fatalf("got %v, want RefNotFoundError", err)
			}
			check := func(what, tag, version, hash, content string, changes bool) {
				t.Helper()
				c, changed, err := s.Fetch(t.Context())
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if c.Ref != tag+"@sha1:"+hash || c.Version != version || c.Hash != hash || changed != changes || contentOf(t, c, "apps/a.yaml") != content {
					t.Errorf("%s: got %s, %s, changed %v, want %s, %s", what, c.Ref, c.Version, changed, tag, version)
				}
				if s.Last() != c {
					t.Errorf("%s: Last is another", what)
				}
			}
			first := r.git("rev-parse", "HEAD")
			r.git("tag", "v1.0.0")
			r.git("tag", "nightly")
			check("the first", "v1.0.0", "1.0.0", first, "a: 1\n", true)
			check("again", "v1.0.0", "1.0.0", first, "a: 1\n", false)
			second := r.commit("second", map[string]string{"apps/a.yaml": "a: 2\n"})
			check("a commit without a tag", "v1.0.0", "1.0.0", first, "a: 1\n", false)
			r.git("tag", "-a", "-m", "annotated", "1.2.0")
			check("a higher one", "1.2.0", "1.2.0", second, "a: 2\n", true)
			if s.Last().RawTag == nil {
				t.Error("the annotated tag is missing")
			}
			r.git("tag", "v2.0.0", "HEAD")
			check("one out of the range", "1.2.0", "1.2.0", second, "a: 2\n", false)
			before := s.Last()
			r.git("update-ref", "refs/tags/1.3.0", "refs/tags/1.2.0")
			check("a higher one of the same", "1.3.0", "1.3.0", second, "a: 2\n", true)
			if before.Version != "1.2.0" || s.Last().Tree != before.Tree {
				t.Error("the commit that was returned first was changed, or the tree loaded anew")
			}
			check("again", "1.3.0", "1.3.0", second, "a: 2\n", false)
			r.git("tag", "-d", "1.3.0")
			r.git("tag", "-d", "1.2.0")
			check("down again", "v1.0.0", "1.0.0", first, "a: 1\n", true)
		})
	}
}

func TestFetchOfARangeCostsOneRequest(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	r.git("tag", "v1.0.0")
	s := mustNew(t, Config{URL: server.url("r"), Ref: Ref{SemVer: "1.x"}})
	first := mustFetch(t, s)
	before := server.requests.Load()
	if again := mustFetch(t, s); again != first {
		t.Error("got another commit although nothing changed")
	}
	r.git("tag", "v1.0.1")
	if c := mustFetch(t, s); c.Version != "1.0.1" || c.Hash != first.Hash {
		t.Errorf("got %s of %s, want 1.0.1 of the same", c.Version, c.Hash)
	}
	if got := server.requests.Load() - before; got != 2 {
		t.Errorf("got %d requests for two fetches, want 2", got)
	}
}
