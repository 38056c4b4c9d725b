package source

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/gitseal/gitseal/crypto"
)

func TestCredentialsFromSecret(t *testing.T) {
	t.Parallel()
	signer, private := newKey(t)
	_, locked, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	lockedPEM, err := ssh.MarshalPrivateKeyWithPassphrase(locked, "", []byte("CANARY-passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	identity := string(private.Reveal())
	encrypted := string(pem.EncodeToMemory(lockedPEM))
	hosts := knownhosts.Line([]string{"git.example.com"}, signer.PublicKey())
	server := newGitServer(t, withTLS)
	ca := string(server.ca())

	tests := map[string]struct {
		data map[string]string
		want string // how the result would be sent
		err  string
	}{
		"nothing":                         {nil, noCredentials, ""},
		"other entries":                   {map[string]string{"tls.crt": "x", "foo": "bar"}, noCredentials, ""},
		"user name and password":          {map[string]string{"username": "me\n", "password": canaryPassword + "\n"}, "a user name and password", ""},
		"bearer token":                    {map[string]string{"bearerToken": canaryToken + "\n"}, "a bearer token", ""},
		"a certificate":                   {map[string]string{"ca.crt": "# ours\n" + ca + "\n" + ca}, noCredentials, ""},
		"a certificate by the older name": {map[string]string{"caFile": ca}, noCredentials, ""},
		"an ssh key":                      {map[string]string{"identity": identity, "known_hosts": hosts, "identity.pub": "x"}, "an ssh key", ""},
		"an encrypted ssh key":            {map[string]string{"identity": encrypted, "password": "CANARY-passphrase\n", "known_hosts": hosts}, "an ssh key", ""},
		"a passphrase for a key without":  {map[string]string{"identity": identity, "password": "CANARY", "known_hosts": hosts}, "an ssh key", ""},
		"a user name alone":               {map[string]string{"username": "me"}, "", "password is missing"},
		"a password alone":                {map[string]string{"password": canaryPassword}, "", "username is missing"},
		"a token beside a password":       {map[string]string{"username": "me", "password": canaryPassword, "bearerToken": canaryToken}, "", "bearerToken can not be used together"},
		"a token in two lines":            {map[string]string{"bearerToken": canaryToken + "\nX: y"}, "", "bearerToken holds a character"},
		"an ssh key beside a user name":   {map[string]string{"identity": identity, "username": "me", "password": "CANARY"}, "", "identity can not be used together"},
		"an encrypted key, no passphrase": {map[string]string{"identity": encrypted}, "", "identity: is encrypted, and password"},
		"an encrypted key, wrong one":     {map[string]string{"identity": encrypted, "password": "CANARY-wrong"}, "", "identity: password is not its passphrase"},
		"a public key":                    {map[string]string{"identity": string(ssh.MarshalAuthorizedKey(signer.PublicKey()))}, "", "identity: is a public key"},
		"an ssh key that is garbage":      {map[string]string{"identity": "CANARY"}, "", "identity: not a private key"},
		"known_hosts that is garbage":     {map[string]string{"known_hosts": "CANARY"}, "", "known_hosts: holds no host key"},
		"known_hosts with a bad line":     {map[string]string{"known_hosts": hosts + "\nhost ssh-rsa CANARY\n"}, "", "known_hosts: no valid entry at or after line 2"},
		"known_hosts with an authority":   {map[string]string{"known_hosts": "@cert-authority " + hosts}, "", "known_hosts: markers other than @revoked are not supported, at or after line 1"},
		"a certificate that is garbage":   {map[string]string{"ca.crt": "CANARY"}, "", "ca.crt: not PEM certificates"},
		"a certificate with a broken one": {map[string]string{"ca.crt": ca + "-----BEGIN CERTIFICATE-----\nCANARY!\n-----END CERTIFICATE-----\n"}, "", "ca.crt: not PEM certificates"},
		"a certificate of garbage":        {map[string]string{"ca.crt": "-----BEGIN CERTIFICATE-----\nQ0FOQVJZ\n-----END CERTIFICATE-----\n"}, "", "ca.crt: certificate 1 can not be parsed"},
		"a private key for a certificate": {map[string]string{"ca.crt": identity}, "", "ca.crt: holds something else"},
		"credentials of a GitHub app":     {map[string]string{"githubAppID": "1"}, "", "githubAppID: GitHub app credentials are not supported"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := map[string][]byte{}
			for k, v := range tt.data {
				data[k] = []byte(v)
			}
			c, err := CredentialsFromSecret(data)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, "CANARY") || strings.Contains(text, "Q0FOQVJZ") {
					t.Errorf("the error holds the value: %s", text)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := c.sent(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if c.Username == "me\n" || strings.HasSuffix(string(c.Password.Reveal()), "\n") {
				t.Error("a line end was kept")
			}
			if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, "CANARY") {
				t.Errorf("the credentials print their values: %s", text)
			}
		})
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	_, key := newKey(t)
	host, _ := newKey(t)
	basic := Credentials{Username: "me", Password: crypto.NewSecretString("CANARY")}
	ssh := Credentials{SSHKey: key, KnownHosts: knownHostsFor("h:22", host)}
	sha := strings.Repeat("ab", 20)
	tests := map[string]struct {
		config Config
		want   string
	}{
		"https":                      {Config{URL: "https://h/r"}, ""},
		"https with a password":      {Config{URL: "https://h:8443/r.git", Credentials: basic}, ""},
		"http with a password":       {Config{URL: "http://h/r", Credentials: basic}, ""},
		"ssh":                        {Config{URL: "ssh://git@h:2222/r", Credentials: ssh}, ""},
		"ssh, scp-like":              {Config{URL: "git@h:team/r.git", Credentials: ssh}, ""},
		"ssh, scp-like without user": {Config{URL: "h:team/r.git", Credentials: ssh}, ""},
		"ssh, scp-like, IPv6":        {Config{URL: "git@[::1]:r", Credentials: ssh}, ""},
		"a path":                     {Config{URL: "/srv/r"}, ""},
		"a file url":                 {Config{URL: "file:///srv/r"}, ""},
		"a commit":                   {Config{URL: "/srv/r", Ref: Ref{Commit: sha}}, ""},
		"a tag":                      {Config{URL: "/srv/r", Ref: Ref{Tag: "v1.0"}}, ""},

		"no url":                        {Config{}, "url is empty"},
		"a relative path":               {Config{URL: "srv/r"}, "url is not valid"},
		"git protocol":                  {Config{URL: "git://h/r"}, "unknown scheme git"},
		"ext protocol":                  {Config{URL: "ext::sh -c whoami"}, "not valid"},
		"a password in the url":         {Config{URL: "https://me:CANARY@h/r"}, "put it in a Secret"},
		"a token in the url":            {Config{URL: "https://CANARY@h/r"}, "put it in a Secret"},
		"a password in an ssh url":      {Config{URL: "ssh://me:CANARY@h/r"}, "put it in a Secret"},
		"a password in a scp-like url":  {Config{URL: "me:CANARY@h:r"}, "put it in a Secret"},
		"a password in a broken url":    {Config{URL: "https://me:CANARY@h:port/r"}, "url is not valid"},
		"a password in a worse url":     {Config{URL: "https://me:CANARY%zz@h/r"}, "url is not valid"},
		"a token in the query":          {Config{URL: "https://h/r?token=CANARY"}, "must not have a query"},
		"a fragment":                    {Config{URL: "https://h/r#CANARY"}, "must not have a query or a fragment"},
		"a control character":           {Config{URL: "https://h/r\n"}, "control character"},
		"no host":                       {Config{URL: "https:///r"}, "needs a host and a path"},
		"no path":                       {Config{URL: "https://h/"}, "needs a host and a path"},
		"no path for ssh":               {Config{URL: "ssh://h", Credentials: ssh}, "needs a host and a path"},
		"port 0":                        {Config{URL: "https://h:0/r"}, "no valid port"},
		"a file url with a host":        {Config{URL: "file://h/r"}, "absolute path and no host"},
		"two refs":                      {Config{URL: "/r", Ref: Ref{Branch: "a", Tag: "b"}}, "only one of"},
		"a short commit":                {Config{URL: "/r", Ref: Ref{Commit: "abcdef1"}}, "commit abcdef1: want all 40 digits"},
		"a commit that is none":         {Config{URL: "/r", Ref: Ref{Commit: strings.Repeat("zz", 20)}}, "want all 40 digits"},
		"a commit of sha256":            {Config{URL: "/r", Ref: Ref{Commit: sha + sha[:24]}}, "sha256 repositories are not supported"},
		"a full branch name":            {Config{URL: "/r", Ref: Ref{Branch: "refs/heads/main"}}, "want the short name"},
		"a branch with a bad name":      {Config{URL: "/r", Ref: Ref{Branch: "a..b"}}, "not a valid name"},
		"a branch with a line end":      {Config{URL: "/r", Ref: Ref{Branch: "a\nb"}}, "not a valid name"},
		"a negative timeout":            {Config{URL: "/r", Timeout: -1}, "timeout must not be negative"},
		"a negative limit":              {Config{URL: "/r", Limits: Limits{PackBytes: -1}}, "limits must not be negative"},
		"an ssh key for https":          {Config{URL: "https://h/r", Credentials: ssh}, "identity goes with an ssh url, the url is https"},
		"an ssh key for http":           {Config{URL: "http://h/r", Credentials: ssh}, "identity goes with an ssh url, the url is http"},
		"a password for ssh":            {Config{URL: "ssh://h/r", Credentials: basic}, "go with an http url, the url is ssh"},
		"no ssh key for ssh":            {Config{URL: "ssh://h/r"}, "identity is missing"},
		"no known_hosts for ssh":        {Config{URL: "ssh://h/r", Credentials: Credentials{SSHKey: key}}, "known_hosts is missing"},
		"credentials for a path":        {Config{URL: "/r", Credentials: basic}, "a path on this machine takes none"},
		"credentials that are nonsense": {Config{URL: "https://h/r", Credentials: Credentials{CA: []byte("CANARY")}}, "credentials: ca.crt"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tt.config.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(fmt.Sprintf("%v %#v", err, err), "CANARY") {
				t.Errorf("the error holds a secret: %v", err)
			}
			s, newErr := New(tt.config)
			if (newErr == nil) != (err == nil) || (s == nil) != (newErr != nil) {
				t.Errorf("New gives %v, Validate %v", newErr, err)
			}
		})
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	tests := map[string]location{
		"git@h:team/r.git":         {schemeSSH, "git", "h", "team/r.git", "git@h:team/r.git"},
		"h:/abs":                   {schemeSSH, "git", "h", "/abs", "h:/abs"},
		"ssh://u@h:22/a%20b":       {schemeSSH, "u", "h:22", "/a b", "ssh://u@h:22/a%20b"},
		"ssh://h/~u/r":             {schemeSSH, "git", "h", "~u/r", "ssh://git@h/~u/r"},
		"https://h:1/a%20b/c.git/": {schemeHTTPS, "", "h:1", "/a%20b/c.git", "https://h:1/a%20b/c.git"},
		"HTTP://h/r":               {schemeHTTP, "", "h", "/r", "http://h/r"},
		"/a/../b/":                 {schemeFile, "", "", "/b", "/b"},
		"file:///a/b":              {schemeFile, "", "", "/a/b", "/a/b"},
	}
	for url, want := range tests {
		got, err := parseURL(url)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", url, got, err, want)
		}
	}
	for host, want := range map[string]string{"h": "h:22", "h:2222": "h:2222", "[::1]": "[::1]:22", "[::1]:2222": "[::1]:2222"} {
		if got := (location{host: host}).address(); got != want {
			t.Errorf("%s: got address %s, want %s", host, got, want)
		}
	}
}
