package source

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

type scheme string

const (
	schemeHTTP  scheme = "http"
	schemeHTTPS scheme = "https"
	schemeSSH   scheme = "ssh"
	schemeFile  scheme = "file"
)

func (s scheme) overHTTP() bool { return s == schemeHTTP || s == schemeHTTPS }

// location is a parsed Config.URL.
type location struct {
	scheme scheme
	user   string // ssh only
	host   string // host or host:port, as in the URL
	path   string
	shown  string // for messages, without anything secret
}

// defaultSSHUser is who nearly every git server calls everyone.
const defaultSSHUser = "git"

// scpLike is git@host:path, with an optional user and an IPv6 host in brackets.
var scpLike = regexp.MustCompile(`^(?:([^@/:\s]+)@)?(\[[0-9a-fA-F:.]+\]|[^@/:\s\[\]]+):([^\s].*)$`)

var errSecretInURL = errors.New("url holds a user name or password: put it in a Secret")

// parseURL never puts its input into an error: it may hold a password.
func parseURL(raw string) (location, error) {
	switch {
	case raw == "":
		return location{}, errors.New("url is empty")
	case strings.ContainsFunc(raw, unicode.IsControl):
		return location{}, errors.New("url holds a control character")
	case filepath.IsAbs(raw):
		return location{scheme: schemeFile, path: filepath.Clean(raw), shown: filepath.Clean(raw)}, nil
	case strings.Contains(raw, "://"):
		return parseFullURL(raw)
	}
	m := scpLike.FindStringSubmatch(raw)
	if m == nil || strings.HasPrefix(m[3], ":") { // helper::address of git
		return location{}, errors.New("url is not valid: want https://host/path, ssh://git@host/path, git@host:path or an absolute path")
	}
	user := m[1]
	if user == "" && strings.Contains(m[3], "@") { // user:password@host:path
		return location{}, errSecretInURL
	}
	if user == "" {
		user = defaultSSHUser
	}
	return location{scheme: schemeSSH, user: user, host: m[2], path: m[3], shown: raw}, nil
}

func parseFullURL(raw string) (location, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return location{}, errors.New("url is not valid") // err holds the url
	}
	l := location{scheme: scheme(strings.ToLower(u.Scheme)), host: u.Host, path: u.Path}
	if u.User != nil {
		_, hasPassword := u.User.Password()
		if hasPassword || l.scheme != schemeSSH {
			return location{}, errSecretInURL
		}
		l.user = u.User.Username()
	}
	if u.RawQuery != "" || u.Fragment != "" || u.ForceQuery {
		return location{}, errors.New("url must not have a query or a fragment")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return location{}, errors.New("url has no valid port")
		}
	}
	switch l.scheme {
	case schemeHTTP, schemeHTTPS:
		l.path = strings.TrimRight(u.EscapedPath(), "/")
		if u.Hostname() == "" || l.path == "" {
			return location{}, errors.New("url needs a host and a path")
		}
		l.shown = string(l.scheme) + "://" + l.host + l.path
	case schemeSSH:
		if u.Hostname() == "" || strings.Trim(l.path, "/") == "" {
			return location{}, errors.New("url needs a host and a path")
		}
		if l.user == "" {
			l.user = defaultSSHUser
		}
		l.shown = "ssh://" + l.user + "@" + l.host + u.EscapedPath()
		if strings.HasPrefix(l.path, "/~") { // as git does: ssh://host/~user/path
			l.path = l.path[1:]
		}
	case schemeFile:
		if l.host != "" && l.host != "localhost" || !path.IsAbs(l.path) {
			return location{}, errors.New("file url needs an absolute path and no host")
		}
		l.host, l.path = "", filepath.Clean(l.path)
		l.shown = l.path
	default:
		return location{}, fmt.Errorf("url has the unknown scheme %s: want https, http, ssh or file", printable(string(l.scheme)))
	}
	return l, nil
}

// address is what to dial for ssh.
func (l location) address() string {
	host, port, err := net.SplitHostPort(l.host)
	if err != nil {
		host, port = strings.Trim(l.host, "[]"), "22"
	}
	return net.JoinHostPort(host, port)
}

// printable keeps foreign text from playing with terminals and log lines.
func printable(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == unicode.ReplacementChar {
			return strconv.Quote(s)
		}
	}
	return s
}
