package verify

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

func TestSSHSignatures(t *testing.T) {
	t.Parallel()
	ada, eve := newSSH(t), newSSH(t)
	day := func(d time.Duration) string { return now.Add(d * 24 * time.Hour).Format("20060102") }
	signers := func(line string) Keys {
		return mustParse(t, map[string][]byte{"allowed_signers": []byte("# who may\n\n" + line + " " + ada.line() + "\n")})
	}
	tests := map[string]struct {
		keys     Keys
		by       sshPair
		identity string
		want     error
		text     string
	}{
		"a plain key":            {ada.keys(t), ada, "key.pub", nil, ""},
		"a plain key with words": {mustParse(t, map[string][]byte{"k": []byte(ada.line() + "  Ada of the\x07team ")}), ada, "Ada of the team", nil, ""},
		"a principal":            {signers("ada@example.com"), ada, "ada@example.com", nil, ""},
		"principals":             {signers("ada@example.com,*@corp"), ada, "ada@example.com,*@corp", nil, ""},
		"a quoted principal":     {signers(`"Ada L"`), ada, "Ada L", nil, ""},
		"for git":                {signers(`ada namespaces="git"`), ada, "ada", nil, ""},
		"for git among others":   {signers(`ada NAMESPACES="file,g?t"`), ada, "ada", nil, ""},
		"for all":                {signers(`ada namespaces="*"`), ada, "ada", nil, ""},
		"for files":              {signers(`ada namespaces="file"`), ada, "", &KeyError{Fault: Unfit}, "not fit to sign"},
		"for all but git":        {signers(`ada namespaces="*,!git"`), ada, "", &KeyError{Fault: Unfit}, ""},
		"while it is valid":      {signers(`ada valid-after="` + day(-90) + `",valid-before="` + day(90) + `Z"`), ada, "ada", nil, ""},
		"valid without quotes":   {signers(`ada valid-after=` + day(-90) + `0000,valid-before=` + day(90) + `000000`), ada, "ada", nil, ""},
		"expired since":          {signers(`ada valid-before="` + day(-10) + `"`), ada, "", &KeyError{Fault: Expired}, "expired at 2026-06-01"},
		"expired before":         {signers(`ada valid-before="` + day(-60) + `"`), ada, "", &KeyError{Fault: Expired}, ""},
		"not valid yet then":     {signers(`ada valid-after="` + day(-10) + `"`), ada, "", &KeyError{Fault: NotYetValid}, "not yet valid at 2026-05-02"},
		"not valid yet":          {signers(`ada valid-after="` + day(10) + `"`), ada, "", &KeyError{Fault: NotYetValid}, "not yet valid at 2026-06-01"},
		"two lines, one expired": {signers(`old valid-before="` + day(-10) + `" ` + ada.line() + "\nnew"), ada, "new", nil, ""},
		"by a stranger":          {signers("ada"), eve, "", &UnknownSignerError{}, eve.id()},
		"nobody is trusted":      {Keys{}, ada, "", &UnknownSignerError{}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			commit := signedCommit(tt.by.sign(t))
			for _, verify := range []func() (Signer, error){
				func() (Signer, error) { return tt.keys.Commit(commit, now) },
				func() (Signer, error) { return tt.keys.Tag(signedTag(commit, "v1", tt.by.sign(t)), now) },
			} {
				signer, err := verify()
				checkVerdict(t, err, tt.want, tt.text)
				want := Signer{}
				if tt.want == nil {
					want = Signer{Kind: SSH, Fingerprint: tt.by.id(), Identity: tt.identity}
				}
				if signer != want {
					t.Errorf("got %+v, want %+v", signer, want)
				}
			}
			altered := bytes.Replace(commit, []byte("a body"), []byte("a bodY"), 1)
			if _, err := tt.keys.Commit(altered, now); err == nil || tt.want == nil && !errors.Is(err, ErrBadSignature) {
				t.Errorf("altered: got %v, want ErrBadSignature", err)
			}
		})
	}
}

func TestSSHSignaturesOfAnotherForm(t *testing.T) {
	t.Parallel()
	ada := newSSH(t)
	keys := ada.keys(t)
	blob := func(change func(*sshsig.Signature)) func(string) string {
		return func(p string) string {
			sig, err := sshsig.ParseSignature(ada.blob(t, p, gitNamespace))
			if err != nil {
				t.Fatal(err)
			}
			change(sig)
			return sshArmored(sig.Marshal())
		}
	}
	tests := map[string]struct {
		sign func(payload string) string
		want error
		text string
	}{
		"another namespace": {func(p string) string { return sshArmored(ada.blob(t, p, "file")) }, ErrRefused, "another purpose than git"},
		"a namespace that was put in later": {func(p string) string {
			return sshArmored(bytes.Replace(ada.blob(t, p, "tig"), []byte("\x03tig"), []byte("\x03git"), 1))
		}, ErrBadSignature, ""},
		"version 2":            {blob(func(s *sshsig.Signature) { s.Version = 2 }), ErrRefused, "version"},
		"SHA-1":                {blob(func(s *sshsig.Signature) { s.HashAlgorithm = "sha1" }), ErrRefused, "hash"},
		"a hash for another":   {blob(func(s *sshsig.Signature) { s.HashAlgorithm = sshsig.HashSHA256 }), ErrBadSignature, ""},
		"bytes in the midst":   {blob(func(s *sshsig.Signature) { s.Signature.Rest = []byte{0} }), ErrRefused, "malformed"},
		"bytes behind":         {func(p string) string { return sshArmored(append(ada.blob(t, p, gitNamespace), 0)) }, ErrRefused, "malformed"},
		"cut short":            {func(p string) string { return sshArmored(ada.blob(t, p, gitNamespace)[:60]) }, ErrRefused, "malformed"},
		"text behind":          {func(p string) string { return ada.sign(t)(p) + "x\n" }, ErrRefused, "something follows it"},
		"two blocks":           {func(p string) string { return ada.sign(t)(p) + ada.sign(t)(p) }, ErrRefused, "several"},
		"headers in the armor": {func(p string) string { return strings.Replace(ada.sign(t)(p), "\n", "\nVersion: 1\n\n", 1) }, ErrRefused, "malformed"},
		"no end":               {func(p string) string { return strings.SplitN(ada.sign(t)(p), "-----END", 2)[0] }, ErrRefused, "does not end"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := keys.Commit(signedCommit(tt.sign), now)
			checkVerdict(t, err, tt.want, tt.text)
		})
	}
}

func TestNothingIsGoodWithoutATime(t *testing.T) {
	t.Parallel()
	k, pgp := newSSH(t), newPGP(t, "Ada", 0)
	commit := signedCommit(k.sign(t))
	for _, err := range []error{
		func() error { _, err := k.keys(t).Commit(commit, time.Time{}); return err }(),
		func() error { _, err := k.keys(t).Tag(signedTag(commit, "v1", k.sign(t)), time.Time{}); return err }(),
		func() error { _, err := pgp.keys(t).Commit(signedCommit(pgp.sign(t, nil)), time.Time{}); return err }(),
		func() error { _, err := Policy{Keys: k.keys(t)}.Check(Signed{Commit: commit}); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "no time was given") {
			t.Errorf("got %v, want it refused", err)
		}
	}
}

// An old tag has no tagger, so there is no date to judge an ssh key at.
func TestSSHSignatureOfATagWithoutADate(t *testing.T) {
	t.Parallel()
	ada := newSSH(t)
	payload := "object " + treeHash + "\ntype commit\ntag v1\n" + message
	_, err := ada.keys(t).Tag([]byte(payload+ada.sign(t)(payload)), now)
	checkVerdict(t, err, ErrRefused, "the tag has no date")
}

func TestSSHKindsOfKeys(t *testing.T) {
	t.Parallel()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	k := sshPair{Signer: signer}
	if _, err := k.keys(t).Commit(signedCommit(k.sign(t)), now); err != nil {
		t.Errorf("RSA: %v", err)
	}
	// The same key, signing with SHA-1 as ssh did once.
	old, err := signer.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, []byte("x"), ssh.KeyAlgoRSA)
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.keys(t).Commit(signedCommit(func(p string) string {
		sig, err := sshsig.ParseSignature(k.blob(t, p, gitNamespace))
		if err != nil {
			t.Fatal(err)
		}
		sig.Signature = old
		return sshArmored(sig.Marshal())
	}), now)
	checkVerdict(t, err, ErrRefused, "malformed, or of a version, key or hash")
}

// A key on a security token signs with a flag that says whether somebody touched it.
func TestSSHKeyOnAToken(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const application = "ssh:"
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Name, Key, Application string
	}{ssh.KeyAlgoSKED25519, string(public), application}))
	if err != nil {
		t.Fatal(err)
	}
	line := ssh.MarshalAuthorizedKey(key)
	keys := mustParse(t, map[string][]byte{"allowed_signers": append([]byte("ada "), line...), "key.pub": line})
	for flags, want := range map[byte]error{1: nil, 5: nil, 0: ErrBadSignature, 4: ErrBadSignature} {
		sign := func(payload string) string {
			sum := func(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }
			digest := sha512.Sum512([]byte(payload))
			data := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{gitNamespace, "", "sha512", string(digest[:])})...)
			state := []byte{flags, 0, 0, 0, 7}
			signed := slices.Concat(sum(application), state, sum(string(data)))
			return sshArmored((&sshsig.Signature{
				Version: 1, PublicKey: key, Namespace: gitNamespace, HashAlgorithm: sshsig.HashSHA512,
				Signature: &ssh.Signature{Format: ssh.KeyAlgoSKED25519, Blob: ed25519.Sign(private, signed), Rest: state},
			}).Marshal())
		}
		_, err := keys.Commit(signedCommit(sign), now)
		checkVerdict(t, err, want, "")
	}
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]bool{
		"git": true, "g*": true, "*t": true, "*": true, "g?t": true, "**i**": true, "file,git": true, "!file,git": true,
		"": false, "gi": false, "gitt": false, "git?": false, "*x*": false, "git,!git": false, "!file": false, "GIT": false, "g*x": false,
	} {
		if got := matchList("git", list); got != want {
			t.Errorf("%q: got %v, want %v", list, got, want)
		}
	}
}
