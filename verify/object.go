package verify

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

const (
	maxObjectBytes    = 10 << 20 // a commit or tag, with its message
	maxSignatureBytes = 64 << 10 // the armored text
)

// maxUnixTime is the end of the year 9999.
const maxUnixTime = 253402300799

// signedObject is a commit or tag, taken apart.
type signedObject struct {
	payload   []byte    // what was signed
	signature []byte    // armored, as it was put in
	when      time.Time // the committer's or tagger's date; zero for a tag without one

	// Of a tag.
	name   string
	object string // what it stands for, in hex
	kind   string // and what that is: "commit"
}

// splitCommit does what git's parse_buffer_signed_by_header does: the payload is
// the commit without its signature headers, gpgsig and gpgsig-sha256. What git
// would leave out beside these, it refuses. A mergetag, which holds the signature
// of another tag, is part of the payload.
func splitCommit(raw []byte) (signedObject, error) {
	if len(raw) > maxObjectBytes {
		return signedObject{}, refuse("the commit is larger than %d bytes", maxObjectBytes)
	}
	var (
		o       signedObject
		payload = make([]byte, 0, len(raw))
		place   = 0     // in commitHeaders
		into    *[]byte // where continuation lines go; nil after a header that can have none
		stray   []byte  // of gpgsig-sha256
		seen    = map[string]bool{}
	)
	for rest := raw; ; {
		line, after, ok := bytes.Cut(rest, []byte("\n"))
		if len(rest) == 0 || ok && len(line) == 0 {
			payload = append(payload, rest...)
			break
		}
		if !ok || bytes.IndexByte(line, 0) >= 0 {
			return signedObject{}, refuse("malformed commit header")
		}
		whole := rest[:len(line)+1]
		rest = after
		if line[0] == ' ' {
			if into == nil {
				return signedObject{}, refuse("malformed commit header")
			}
			if into != &payload {
				whole = whole[1:]
			}
			*into = append(*into, whole...)
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(" "))
		key := string(name)
		if place < len(commitHeaders) {
			if key != "parent" || place != 1 {
				if key != commitHeaders[place] {
					return signedObject{}, refuse("the commit has no %s where it belongs", commitHeaders[place])
				}
				place++
			}
			if (key == "tree" || key == "parent") && !isHash(value) {
				return signedObject{}, refuse("malformed %s in the commit", key)
			}
			if key == "committer" && !parseDate(value, &o.when) {
				return signedObject{}, refuse("malformed committer in the commit")
			}
			payload = append(payload, whole...)
			continue
		}
		into = &payload
		if strings.HasPrefix(key, "gpgsig") {
			if seen[key] {
				return signedObject{}, refuse("the commit has two %s headers", key)
			}
			seen[key] = true
			switch key {
			case "gpgsig":
				into = &o.signature
			case "gpgsig-sha256":
				into = &stray
			default:
				return signedObject{}, refuse("the commit has a header that begins with gpgsig and is none that git writes")
			}
			whole = append(bytes.Clone(value), '\n')
		}
		*into = append(*into, whole...)
	}
	if place < len(commitHeaders) {
		return signedObject{}, refuse("the commit has no %s where it belongs", commitHeaders[place])
	}
	if !seen["gpgsig"] {
		return signedObject{}, ErrUnsigned
	}
	o.payload = payload
	return o, nil
}

// commitHeaders begin each commit, with any number of parents after the tree.
var commitHeaders = []string{"tree", "author", "committer"}

// splitTag does what git's parse_signature does: what was signed ends where the
// signature begins, at the end of the message.
func splitTag(raw []byte) (signedObject, error) {
	if len(raw) > maxObjectBytes {
		return signedObject{}, refuse("the tag is larger than %d bytes", maxObjectBytes)
	}
	var o signedObject
	header, message, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		header, message = bytes.TrimSuffix(raw, []byte("\n")), nil
	}
	for i, line := range strings.Split(string(header), "\n") {
		key, value, _ := strings.Cut(line, " ")
		switch {
		case strings.ContainsRune(line, 0) || i >= len(tagHeaders):
			return signedObject{}, refuse("malformed tag header")
		case key != tagHeaders[i]:
			return signedObject{}, refuse("the tag has no %s where it belongs", tagHeaders[i])
		case key == "object" && !isHash([]byte(value)):
			return signedObject{}, refuse("malformed object in the tag")
		case key == "tagger" && !parseDate([]byte(value), &o.when):
			return signedObject{}, refuse("malformed tagger in the tag")
		}
		switch key {
		case "object":
			o.object = strings.ToLower(value)
		case "type":
			o.kind = value
		case "tag":
			o.name = value
		}
	}
	if o.name == "" {
		return signedObject{}, refuse("the tag has no name")
	}
	at, found := 0, 0
	for start := len(raw) - len(message); start < len(raw); {
		end := len(raw)
		if i := bytes.IndexByte(raw[start:], '\n'); i >= 0 {
			end = start + i + 1
		}
		if beginsSignature(raw[start:end]) {
			at = start
			found++
		}
		start = end
	}
	switch found {
	case 0:
		return signedObject{}, ErrUnsigned
	case 1:
		o.payload, o.signature = raw[:at:at], raw[at:]
		return o, nil
	}
	return signedObject{}, refuse("the tag has several signatures")
}

// tagHeaders are all that a tag may have. Old ones have no tagger.
var tagHeaders = []string{"object", "type", "tag", "tagger"}

// beginsSignature knows what git takes for the beginning of a signature.
func beginsSignature(line []byte) bool {
	for _, s := range []string{pgpArmor, sshArmor, "PGP MESSAGE", "SIGNED MESSAGE"} {
		if bytes.HasPrefix(line, []byte(armorBegin+s+armorDashes)) {
			return true
		}
	}
	return false
}

// isHash also lets the hashes of SHA-256 repositories pass.
func isHash(text []byte) bool {
	if len(text) != 40 && len(text) != 64 {
		return false
	}
	_, err := hex.Decode(make([]byte, hex.DecodedLen(len(text))), text)
	return err == nil
}

// parseDate reads the date of "Ada <ada@example.com> 1714979289 +0000".
func parseDate(ident []byte, when *time.Time) bool {
	_, date, ok := strings.Cut(string(ident[max(0, bytes.LastIndexByte(ident, '>')):]), "> ")
	if !ok {
		return false
	}
	seconds, zone, ok := strings.Cut(date, " ")
	if !ok || len(zone) != 5 || zone[0] != '+' && zone[0] != '-' {
		return false
	}
	n, err := strconv.ParseUint(seconds, 10, 63)
	if err != nil || n > maxUnixTime {
		return false
	}
	*when = time.Unix(int64(n), 0)
	return true
}

const (
	armorBegin  = "-----BEGIN "
	armorEnd    = "-----END "
	armorDashes = "-----"
	pgpArmor    = "PGP SIGNATURE"
	sshArmor    = "SSH SIGNATURE"
)

// dearmor takes one armored block and nothing beside it. go-crypto's and Go's own
// readers look for the first block and leave the rest unread.
func dearmor(text []byte) (Kind, []byte, error) {
	if len(text) > maxSignatureBytes {
		return "", nil, refuse("it is larger than %d bytes", maxSignatureBytes)
	}
	var lines []string
	blocks := 0
	for line := range strings.SplitSeq(strings.TrimRight(string(text), "\n\r\t "), "\n") {
		line = strings.TrimRight(line, "\r\t ")
		if strings.HasPrefix(line, armorBegin) {
			blocks++
		}
		lines = append(lines, line)
	}
	kind, name := OpenPGP, pgpArmor
	switch lines[0] {
	case armorBegin + pgpArmor + armorDashes:
	case armorBegin + sshArmor + armorDashes:
		kind, name = SSH, sshArmor
	default:
		return "", nil, refuse("it is neither an OpenPGP nor an SSH signature")
	}
	if blocks > 1 {
		return "", nil, refuse("there are several signatures")
	}
	if len(lines) < 2 || lines[len(lines)-1] != armorEnd+name+armorDashes {
		return "", nil, refuse("its armor does not end, or something follows it")
	}
	lines = lines[1 : len(lines)-1]
	if kind == OpenPGP {
		var err error
		if lines, err = pgpArmorBody(lines); err != nil {
			return "", nil, err
		}
	}
	body, err := base64.StdEncoding.Strict().DecodeString(strings.Join(lines, ""))
	if err != nil || len(body) == 0 {
		return "", nil, refuse("its armor is malformed")
	}
	return kind, body, nil
}

// pgpArmorBody takes off the headers and the checksum, which RFC 9580 says not to
// look at.
func pgpArmorBody(lines []string) ([]string, error) {
	for i, line := range lines {
		if line == "" {
			lines = lines[i+1:]
			if n := len(lines); n > 0 && len(lines[n-1]) == 5 && lines[n-1][0] == '=' {
				lines = lines[:n-1]
			}
			return lines, nil
		}
		if !strings.Contains(line, ": ") && !strings.HasSuffix(line, ":") {
			break
		}
	}
	return nil, refuse("its armor is malformed")
}
