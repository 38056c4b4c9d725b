package verify

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The objects in testdata/gpg were made by git 2.39 with gpg 2.2.40, so that what
// gpg writes is tested where there is none. make.sh there says how.
func TestVectorsOfGPG(t *testing.T) {
	t.Parallel()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "gpg", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	ada := Signer{
		Kind: OpenPGP, Identity: "Ada Vector <ada@example.com>",
		Fingerprint: strings.TrimSpace(string(read("ada.fingerprint"))), Primary: strings.TrimSpace(string(read("ada.fingerprint"))),
	}
	sub := ada
	sub.Fingerprint = strings.TrimSpace(string(read("subkey.fingerprint")))
	for name, tt := range map[string]struct {
		keys string
		want Signer
		err  error
		text string
	}{
		"good.commit":        {"ada.asc", ada, nil, ""},
		"good.tag":           {"ada.asc", ada, nil, ""},
		"subkey.commit":      {"ada.asc", sub, nil, ""},
		"sha1.commit":        {"ada.asc", Signer{}, ErrRefused, "its hash is SHA-1"},
		"two-signers.commit": {"ada.asc", Signer{}, ErrRefused, "there are several"},
		"expired.commit":     {"expired.asc", Signer{}, &KeyError{Fault: Expired}, ""},
		"revoked.commit":     {"revoked.asc", Signer{}, &KeyError{Fault: Revoked}, ""},
		"stranger.commit":    {"ada.asc", Signer{}, &UnknownSignerError{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := mustParse(t, map[string][]byte{"key.asc": read(tt.keys)})
			verify := keys.Commit
			if strings.HasSuffix(name, ".tag") {
				verify = keys.Tag
			}
			got, err := verify(read(name), at)
			checkVerdict(t, err, tt.err, tt.text)
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("signer (-got +want):\n%s", diff)
			}
		})
	}
}

// TestVerdictsAreThoseOfGPG has the gpg of this machine sign, if there is one.
func TestVerdictsAreThoseOfGPG(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip(err) // the vectors stand for it
	}
	r := newGitRepo(t)
	if err := os.Mkdir(filepath.Join(r.dir, "gpg"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.run(nil, "gpgconf", "--kill", "all") }) // ends with its folder in any case
	gpg := func(args ...string) string {
		return r.must("gpg", append([]string{"--batch", "--quiet", "--passphrase", ""}, args...)...)
	}
	gpg("--quick-gen-key", "Ada <ada@example.com>", "ed25519", "sign", "never")
	gpg("--quick-gen-key", "Eve <eve@example.com>", "rsa2048", "sign", "never")
	gpg("--faked-system-time", "20200101T000000", "--quick-gen-key", "Old <old@example.com>", "ed25519", "sign", "1y")
	commit := func(who string) string {
		r.must("git", "commit", "-q", "--allow-empty", "-S"+who, "-m", "by "+who+"\n\na body")
		return string(r.raw("commit", "HEAD"))
	}
	ada, eve := commit("ada@example.com"), commit("eve@example.com")
	r.must("git", "tag", "-u", "ada@example.com", "-m", "a tag", "v1")
	tag := string(r.raw("tag", "v1"))
	r.must("git", "config", "gpg.program", r.program("gpg --faked-system-time 20200601T000000"))
	old := commit("old@example.com")
	r.must("git", "config", "gpg.program", "gpg")

	keys := mustParse(t, map[string][]byte{"all.asc": []byte(gpg("--armor", "--export", "ada@example.com", "old@example.com"))})
	eves := mustParse(t, map[string][]byte{"eve.gpg": []byte(exported(t, r, "eve@example.com"))})
	gpg("--yes", "--delete-secret-and-public-key", strings.ReplaceAll(strings.Fields(fingerprintLine(gpg("--with-colons", "--fingerprint", "eve@example.com")))[0], ":", ""))
	for name, tt := range map[string]struct {
		object string
		keys   Keys
		git    bool
		want   error
	}{
		"good":                  {ada, keys, true, nil},
		"message altered":       {strings.Replace(ada, "a body", "a bodY", 1), keys, false, ErrBadSignature},
		"a tag":                 {tag, keys, true, nil},
		"a tag altered":         {strings.Replace(tag, "a tag", "A tag", 1), keys, false, ErrBadSignature},
		"a stranger":            {eve, keys, false, &UnknownSignerError{}},
		"RSA, in a binary file": {eve, eves, false, nil}, // git has no such key any more
		"a key that expired":    {old, keys, false, &KeyError{Fault: Expired}},
	} {
		t.Run(name, func(t *testing.T) {
			kind, verify := "commit", tt.keys.Commit
			if strings.HasPrefix(tt.object, "object ") {
				kind, verify = "tag", tt.keys.Tag
			}
			if err := r.judge(kind, []byte(tt.object)); (err == nil) != tt.git {
				t.Errorf("git says %v, want good: %v", err, tt.git)
			}
			_, err := verify([]byte(tt.object), time.Now())
			checkVerdict(t, err, tt.want, "")
		})
	}
}

// program is a file that runs a command with arguments of its own.
func (r *gitRepo) program(command string) string {
	r.t.Helper()
	p := r.write("program", "#!/bin/sh\nexec "+command+` "$@"`+"\n")
	if err := os.Chmod(p, 0o700); err != nil {
		r.t.Fatal(err)
	}
	return p
}

func exported(t *testing.T, r *gitRepo, who string) []byte {
	t.Helper()
	cmd := exec.Command("gpg", "--export", who)
	cmd.Env = r.env
	out, err := cmd.Output()
	if err != nil || len(out) == 0 {
		t.Fatalf("export %s: %d bytes, %v", who, len(out), err)
	}
	return out
}

// fingerprintLine is what --with-colons says of the first key.
func fingerprintLine(text string) string {
	for line := range strings.SplitSeq(text, "\n") {
		if rest, ok := strings.CutPrefix(line, "fpr:"); ok {
			return strings.Trim(rest, ":")
		}
	}
	return ""
}
