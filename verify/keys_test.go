package verify

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func TestParseKeys(t *testing.T) {
	t.Parallel()
	pgp, other, pair, second := newPGP(t, "Ada", 0), newPGP(t, "Bob", 0), newSSH(t), newSSH(t)
	crlf := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
	for name, tt := range map[string]struct {
		data map[string][]byte
		want int
	}{
		"an armored OpenPGP key":      {map[string][]byte{"author1.asc": pgp.public(t)}, 1},
		"a binary one":                {map[string][]byte{"author1.asc": pgp.binary(t)}, 1},
		"two in one file":             {map[string][]byte{"a": append(pgp.binary(t), other.binary(t)...)}, 2},
		"two blocks in one file":      {map[string][]byte{"a": append(pgp.public(t), other.public(t)...)}, 2},
		"with comments and headers":   {map[string][]byte{"a": []byte("# Ada\n\n" + strings.Replace(string(pgp.public(t)), "\n\n", "\nComment: x\nVersion:\n\n", 1))}, 1},
		"from Windows":                {map[string][]byte{"a": crlf(pgp.public(t)), "b": crlf([]byte(pair.line() + "\n"))}, 2},
		"a public key of ssh":         {map[string][]byte{"id_ed25519.pub": []byte(pair.line())}, 1},
		"several, with comments":      {map[string][]byte{"team": []byte("# us\n" + pair.line() + " ada\n\n\t" + second.line() + "\n")}, 2},
		"allowed_signers":             {map[string][]byte{"allowed_signers": []byte("a@x " + pair.line() + "\nb@x,c@x namespaces=\"git\" " + second.line() + " a comment\n")}, 2},
		"both kinds mixed":            {map[string][]byte{"all": append([]byte("a@x "+pair.line()+"\n"), pgp.public(t)...)}, 2},
		"several entries of any kind": {map[string][]byte{"a": pgp.public(t), "b": []byte(pair.line()), "c": other.binary(t)}, 3},
	} {
		keys, err := ParseKeys(tt.data)
		if err != nil || keys.Len() != tt.want {
			t.Errorf("%s: got %d keys and %v, want %d", name, keys.Len(), err, tt.want)
		}
	}
}

// canary is in what is refused, and in no message.
const canary = "CANARY"

func TestParseKeysRefuses(t *testing.T) {
	t.Parallel()
	pgp, pair := newPGP(t, "Ada", 0), newSSH(t)
	public, line := string(pgp.public(t)), pair.line()
	blob := strings.Fields(line)[1]
	block, err := ssh.MarshalPrivateKey(pair.raw, canary)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(block))
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := ssh.NewPublicKey(&small.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	dss := base64.StdEncoding.EncodeToString(ssh.Marshal(struct{ Type string }{"ssh-dss"}))
	for name, tt := range map[string]struct{ data, want string }{
		"an OpenPGP private key":        {string(armored(t, "PGP PRIVATE KEY BLOCK", pgp.private(t))), "entry: line 1: this is a private key"},
		"one under another name":        {string(armored(t, "PGP PUBLIC KEY BLOCK", pgp.private(t))), "entry: line 1: this is a private key"},
		"a binary one":                  {string(pgp.private(t)), "entry: this is a private key"},
		"a public and a private one":    {string(pgp.binary(t)) + string(pgp.private(t)), "entry: this is a private key"},
		"a private key of ssh":          {private, "entry: line 1: this is a private key"},
		"one behind a public one":       {line + "\n# x\n" + private, "entry: line 3: this is a private key"},
		"one of Putty":                  {"PuTTY-User-Key-File-3: ssh-ed25519\n", "entry: line 1: this is a private key"},
		"one of age":                    {"AGE-SECRET-KEY-1" + canary, "entry: line 1: this is a private key"},
		"nothing":                       {"", "entry: holds no key"},
		"comments only":                 {"# nobody\n\n", "entry: holds no key"},
		"text":                          {"# x\n" + canary + " is text\n", "entry: line 2: neither a"},
		"one word":                      {canary, "entry: line 1: neither a public key nor a line of allowed_signers"},
		"a signature":                   {pgp.sign(t, nil)("x"), "entry: line 1: neither"},
		"a certificate of x509":         {"-----BEGIN CERTIFICATE-----\n", "entry: line 1: neither"},
		"text behind a key":             {public + canary + "\n", "entry: line " + itoa(strings.Count(public, "\n")+1) + ": neither"},
		"armor without an end":          {strings.SplitN(public, "-----END", 2)[0], "entry: line 1: the armored OpenPGP key has no end"},
		"armor with other letters":      {strings.Replace(public, "\n\n", "\n\n!", 1), "entry: line 1: the armor of the OpenPGP key is malformed"},
		"armor of other packets":        {string(armored(t, "PGP PUBLIC KEY BLOCK", pgp.packetOf(t, "x", nil))), "entry: line 1: this is OpenPGP, but no public key"},
		"armor of a cut key":            {string(armored(t, "PGP PUBLIC KEY BLOCK", pgp.binary(t)[:70])), "entry: line 1: an OpenPGP key can not be read"},
		"a key without a user id":       {string(armored(t, "PGP PUBLIC KEY BLOCK", pgp.binary(t)[:53])), "entry: line 1: an OpenPGP key can not be read"},
		"binary rubbish":                {"\xff\xfe\xfd\xfc", "entry: "},
		"cert-authority":                {"ada@x cert-authority " + line, "entry: line 1: cert-authority is not supported"},
		"cert-authority among others":   {`ada@x namespaces="git",CERT-AUTHORITY ` + line, "entry: line 1: cert-authority is not supported"},
		"cert-authority as in sshd":     {"cert-authority " + line, "entry: line 1: cert-authority is not supported"},
		"another option":                {`ada@x from="` + canary + `" ` + line, "entry: line 1: neither a key nor the options namespaces"},
		"an option twice":               {`ada@x namespaces="git",namespaces="x" ` + line, "entry: line 1: an option is there twice"},
		"an option without a value":     {`ada@x namespaces ` + line, "entry: line 1: option namespaces is malformed"},
		"an option with an empty value": {`ada@x namespaces="" ` + line, "entry: line 1: option namespaces is malformed"},
		"an option with half a quote":   {`ada@x namespaces="` + line, "entry: line 1: "},
		"a date that is none":           {`ada@x valid-after="` + canary + `" ` + line, "entry: line 1: option valid-after: want a time as YYYYMMDD"},
		"a date of another form":        {`ada@x valid-before="20260230" ` + line, "entry: line 1: option valid-before: want"},
		"valid from the end on":         {`ada@x valid-after="20260301",valid-before="20260201" ` + line, "entry: line 1: valid-before is not after valid-after"},
		"no key behind the options":     {`ada@x namespaces="git"`, "entry: line 1: "},
		"a key that is not base64":      {"ssh-ed25519 !" + canary, "entry: line 1: the ssh key is malformed"},
		"a key cut short":               {"ssh-ed25519 " + blob[:40], "entry: line 1: the ssh key is malformed"},
		"a key with bytes behind":       {"ssh-ed25519 " + base64.StdEncoding.EncodeToString(append(pair.PublicKey().Marshal(), 0)), "entry: line 1: the ssh key is malformed"},
		"a key of another type":         {"ssh-rsa " + blob, "entry: line 1: the ssh key is malformed"},
		"RSA of 1024 bits":              {string(ssh.MarshalAuthorizedKey(weak)), "entry: line 1: an ssh key of RSA must have 2048 bits"},
		"DSA":                           {"ada@x ssh-dss " + dss, "entry: line 1: keys of type ssh-dss are not accepted"},
		"a certificate of ssh":          {"ada@x ssh-ed25519-cert-v01@openssh.com " + blob, "entry: line 1: certificates of ssh are not supported"},
		"larger than any key":           {strings.Repeat("#", maxEntryBytes+1), "entry: larger than 1048576 bytes"},
		"more than anybody trusts":      {strings.Repeat(line+"\n", maxKeys+1), "entry: more than 1000 keys"},
	} {
		keys, err := ParseKeys(map[string][]byte{"entry": []byte(tt.data), "other.pub": []byte(line)})
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
			continue
		}
		if keys.Len() != 0 {
			t.Errorf("%s: %d keys beside an error", name, keys.Len())
		}
		if strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), blob[:30]) {
			t.Errorf("%s: %v repeats its input", name, err)
		}
	}
	for _, data := range []map[string][]byte{nil, {}} {
		if _, err := ParseKeys(data); !errors.Is(err, ErrNoKeys) {
			t.Errorf("got %v, want ErrNoKeys", err)
		}
	}
	if _, err := ParseKeys(map[string][]byte{"a\nb": nil}); err == nil || err.Error() != `"a\nb": holds no key` {
		t.Errorf("got %v, want the name quoted", err)
	}
}
