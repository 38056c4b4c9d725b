package verify

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// gitRepo is a repository of the real git, with a home of its own.
type gitRepo struct {
	t   *testing.T
	dir string
	env []string
}

func newGitRepo(t *testing.T) *gitRepo {
	t.Helper()
	dir, err := os.MkdirTemp("", "v") // short: gpg's sockets have at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // an agent of gpg may still write
	r := &gitRepo{t: t, dir: dir, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GNUPGHOME=" + filepath.Join(dir, "gpg"), "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Bob", "GIT_COMMITTER_EMAIL=bob@example.com",
	}}
	r.must("git", "init", "-q", "-b", "main", "work")
	r.env = append(r.env, "GIT_DIR="+filepath.Join(dir, "work", ".git"), "GIT_WORK_TREE="+filepath.Join(dir, "work"))
	return r
}

func (r *gitRepo) run(stdin []byte, name string, args ...string) (string, error) {
	r.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = r.dir, r.env, bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (r *gitRepo) must(name string, args ...string) string {
	r.t.Helper()
	out, err := r.run(nil, name, args...)
	if err != nil {
		r.t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return strings.TrimSpace(out)
}

func (r *gitRepo) write(name, content string) string {
	r.t.Helper()
	p := filepath.Join(r.dir, name)
	if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// raw is the object as git stores it.
func (r *gitRepo) raw(kind, name string) []byte {
	r.t.Helper()
	cmd := exec.Command("git", "cat-file", kind, name)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// judge is what git itself says of an object.
func (r *gitRepo) judge(kind string, raw []byte) error {
	r.t.Helper()
	hash, err := r.run(raw, "git", "hash-object", "-w", "-t", kind, "--stdin", "--literally")
	if err != nil {
		r.t.Fatal(hash)
	}
	out, err := r.run(nil, "git", "verify-"+kind, strings.TrimSpace(hash))
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// need skips without the program, where nothing demands that all tests run.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("GITSEAL_REQUIRE_APISERVER") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// TestSSHVerdictsAreThoseOfGit has git sign, alters what it made, and asks git
// and this package of each object.
func TestSSHVerdictsAreThoseOfGit(t *testing.T) {
	t.Parallel()
	need(t, "ssh-keygen")
	r := newGitRepo(t)
	ada, eve := newSSH(t), newSSH(t)
	block, err := ssh.MarshalPrivateKey(ada.raw, "")
	if err != nil {
		t.Fatal(err)
	}
	private := r.write("id", string(pem.EncodeToMemory(block)))
	r.write("id.pub", ada.line()+"\n")
	for key, value := range map[string]string{"gpg.format": "ssh", "user.signingKey": private, "gpg.ssh.allowedSignersFile": filepath.Join(r.dir, "allowed")} {
		r.must("git", "config", key, value)
	}
	r.must("git", "commit", "-q", "--allow-empty", "-m", "unsigned")
	unsigned := string(r.raw("commit", "HEAD"))
	r.must("git", "checkout", "-q", "-b", "side")
	r.must("git", "commit", "-q", "--allow-empty", "-m", "side")
	r.must("git", "tag", "-s", "-m", "a signed tag\n\nof a branch", "v1")
	r.must("git", "checkout", "-q", "main")
	r.must("git", "commit", "-q", "--allow-empty", "-S", "-m", "subject\n\na body")
	good := string(r.raw("commit", "HEAD"))
	r.must("git", "merge", "-q", "-S", "--no-ff", "-m", "merge of a tag", "v1")
	merge := string(r.raw("commit", "HEAD"))
	if !strings.Contains(merge, "\nmergetag object ") {
		t.Fatalf("no mergetag in %s", merge)
	}
	tag := string(r.raw("tag", "v1"))
	headers, body, _ := strings.Cut(unsigned, "\n\n")
	other, err := r.run([]byte(unsigned), "ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", private)
	if err != nil {
		t.Fatal(other)
	}
	signature := good[strings.Index(good, "gpgsig ") : strings.Index(good, "-----END SSH SIGNATURE-----\n")+len("-----END SSH SIGNATURE-----\n")]
	date := func(d time.Duration) string { return time.Now().Add(d * 24 * time.Hour).UTC().Format("20060102") }
	old := r.dated(t, "2020-01-01T00:00:00Z")

	trusted := "ada@example.com " + ada.line()
	tests := map[string]struct {
		object  string
		trusted string
		git     bool // whether git says good
		want    error
	}{
		"good":                       {good, trusted, true, nil},
		"a merge with a mergetag":    {merge, trusted, true, nil},
		"the mergetag altered":       {strings.Replace(merge, " of a branch", " of a brunch", 1), trusted, false, ErrBadSignature},
		"message altered":            {strings.Replace(good, "a body", "a bodY", 1), trusted, false, ErrBadSignature},
		"message cut":                {strings.TrimSuffix(good, "\n"), trusted, false, ErrBadSignature},
		"tree altered":               {strings.Replace(good, "tree 4b825dc6", "tree 4b825dc7", 1), trusted, false, ErrBadSignature},
		"parent taken out":           {good[:46] + good[46+48:], trusted, false, ErrBadSignature},
		"unsigned":                   {unsigned, trusted, false, ErrUnsigned},
		"a stranger":                 {good, "eve@example.com " + eve.line(), false, &UnknownSignerError{}},
		"another namespace":          {withHeader(headers+"\n", "gpgsig", other) + "\n" + body, trusted, false, ErrRefused},
		"a key for git":              {good, `ada namespaces="git,file" ` + ada.line(), true, nil},
		"a key for files":            {good, `ada namespaces="file" ` + ada.line(), false, &KeyError{Fault: Unfit}},
		"a key from tomorrow on":     {good, `ada valid-after="` + date(2) + `" ` + ada.line(), false, &KeyError{Fault: NotYetValid}},
		"a key until yesterday":      {good, `ada valid-before="` + date(-2) + `" ` + ada.line(), false, &KeyError{Fault: Expired}},
		"a key for today":            {good, `ada valid-after="` + date(-2) + `",valid-before="` + date(2) + `" ` + ada.line(), true, nil},
		"signed while it was valid":  {old, `ada valid-before="20210101" ` + ada.line(), true, &KeyError{Fault: Expired}}, // stricter: see doc.go
		"signed before it was valid": {old, `ada valid-after="20210101" ` + ada.line(), false, &KeyError{Fault: NotYetValid}},
		"two signatures":             {strings.Replace(good, signature, signature+signature, 1), trusted, true, ErrRefused},
		"gpgsig-sha256 beside it":    {strings.Replace(good, signature, signature+"gpgsig-sha256 x\n y\n", 1), trusted, true, nil},
		"gpgsig-sha256 alone":        {strings.Replace(good, "gpgsig ", "gpgsig-sha256 ", 1), trusted, false, ErrUnsigned},
		"a header put beside it":     {strings.Replace(good, signature, signature+"encoding x\n", 1), trusted, false, ErrBadSignature},
		"a header that git drops":    {strings.Replace(good, signature, signature+"gpgsigx y\n tree 1111\n", 1), trusted, true, ErrRefused},
		"a signature in the message": {strings.Replace(unsigned, "\n\n", "\n\n"+signature, 1), trusted, false, ErrUnsigned},
		"a tag":                      {tag, trusted, true, nil},
		"a tag altered":              {strings.Replace(tag, "a signed tag", "A signed tag", 1), trusted, false, ErrBadSignature},
		"a tag of another":           {strings.Replace(tag, "tag v1", "tag v2", 1), trusted, false, ErrBadSignature},
		"a tag of a stranger":        {tag, "eve@example.com " + eve.line(), false, &UnknownSignerError{}},
		"an unsigned tag":            {tag[:strings.Index(tag, "-----BEGIN")], trusted, false, ErrUnsigned},
		"a tag with two signatures":  {tag + tag[strings.Index(tag, "-----BEGIN"):], trusted, false, ErrRefused},
		"a tag with text behind":     {tag + "text\n", trusted, true, ErrRefused},
		"a tag with such a header":   {strings.Replace(tag, "\n\n", "\ngpgsig x\n\n", 1), trusted, true, ErrRefused},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			keys, kind := mustParse(t, map[string][]byte{"allowed_signers": []byte(tt.trusted + "\n")}), "commit"
			verify := keys.Commit
			if strings.HasPrefix(tt.object, "object ") {
				kind, verify = "tag", keys.Tag
			}
			r.write("allowed", tt.trusted+"\n")
			if err := r.judge(kind, []byte(tt.object)); (err == nil) != tt.git {
				t.Errorf("git says %v, want good: %v", err, tt.git)
			}
			_, err := verify([]byte(tt.object), time.Now())
			checkVerdict(t, err, tt.want, "")
			if err == nil && !tt.git {
				t.Error("git refuses it")
			}
		})
	}
}

// dated makes a signed commit of another date.
func (r *gitRepo) dated(t *testing.T, date string) string {
	t.Helper()
	cmd := exec.Command("git", "commit", "-q", "--allow-empty", "-S", "-m", "old")
	cmd.Dir, cmd.Env = r.dir, append(r.env, "GIT_COMMITTER_DATE="+date)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(r.raw("commit", "HEAD"))
}
