package verify_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gitseal/gitseal/source"
	"github.com/gitseal/gitseal/test/harness"
	"github.com/gitseal/gitseal/verify"
)

// TestWhatSourceFetches follows a repository with the rules of two people, from git
// to the verdict.
func TestWhatSourceFetches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = dir, []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@x",
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	signers, trusted, keys := map[string]harness.Signer{}, map[string][]byte{}, map[string]verify.Keys{}
	for _, name := range []string{"ada", "bob"} {
		s := harness.NewSigner(t, name)
		signers[name], trusted[name+".pub"] = s, s.Public
		var err error
		if keys[name], err = verify.ParseKeys(map[string][]byte{name: s.Public}); err != nil {
			t.Fatal(err)
		}
	}
	both, err := verify.ParseKeys(trusted)
	if err != nil {
		t.Fatal(err)
	}
	policy := verify.Policy{Keys: both, Mode: verify.TagAndHead, Paths: []verify.PathRule{{Prefix: "prod", Keys: keys["ada"]}}}

	git("init", "-q", "-b", "main")
	git("config", "gpg.format", "ssh")
	src, err := source.New(source.Config{URL: dir, Ref: source.Ref{SemVer: "1.x"}})
	if err != nil {
		t.Fatal(err)
	}
	var last *source.Commit
	for _, step := range []struct {
		by, file, tag string
		path          string // of the PathError
	}{
		{"ada", "prod/a", "v1.0.0", ""},
		{"bob", "dev/a", "v1.0.1", ""},
		{"bob", "prod/b", "v1.0.2", "prod/b"},
		{"ada", "prod/b", "v1.0.3", ""},
	} {
		file := filepath.Join(dir, step.file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(step.tag), 0o600); err != nil {
			t.Fatal(err)
		}
		git("config", "user.signingKey", signers[step.by].File)
		git("add", "-A")
		git("commit", "-q", "-S", "-m", step.tag)
		git("tag", "-s", "-m", "release", step.tag)
		commit, _, err := src.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		in := verify.Signed{Commit: commit.Raw, Tag: commit.RawTag, Now: time.Now()}
		in.TagName = commit.Ref[:strings.LastIndex(commit.Ref, "@sha1:")]
		if last != nil {
			in.Changes = verify.Only(commit.Tree.ChangedSince(last.Tree))
			if forward, err := src.Descends(t.Context(), commit, last.Hash); !forward || err != nil {
				t.Errorf("%s: got %v, %v, want it to descend from the last", step.tag, forward, err)
			}
		}
		signers, err := policy.Check(in)
		var path *verify.PathError
		switch errors.As(err, &path); {
		case step.path == "" && (err != nil || len(signers) != 2 || signers[0].Identity != step.by+".pub"):
			t.Errorf("%s: got %v, %v, want %s", step.tag, signers, err, step.by)
		case step.path != "" && (path == nil || path.Path != step.path):
			t.Errorf("%s: got %v, want it refused because of %s", step.tag, err, step.path)
		}
		if err == nil {
			last = commit
		}
	}
}
