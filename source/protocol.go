package source

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
)

// The git protocol, version 0, as upload-pack speaks it over http and ssh
// (gitprotocol-pack(5)). go-git's own sessions are not used: they put the
// server's words into errors, keep a global table of clients, can not be
// cancelled while an ssh server is mute, and filter thin-pack out.

const (
	uploadPack    = "git-upload-pack"
	userAgent     = "git/2.0 (gitseal)" // some servers answer only to git/...
	agentName     = "gitseal"
	headRef       = "HEAD"
	branchPrefix  = "refs/heads/"
	tagPrefix     = "refs/tags/"
	peeledSuffix  = "^{}"
	servicePrefix = "# service="
)

// remote opens sessions with one git server.
type remote interface {
	// open connects and reads the refs.
	open(ctx context.Context) (session, error)
}

// session is one conversation. Its advertisement is read; it may ask for packs.
type session interface {
	refs() *advertisement
	// pack sends a request. The reader fails with a *LimitError beyond
	// Limits.PackBytes.
	pack(ctx context.Context, request []byte) (*limitedReader, io.Closer, error)
	io.Closer
}

// advertisement is what a server says it has.
type advertisement struct {
	refs         map[string]plumbing.Hash // with HEAD
	peeled       map[string]plumbing.Hash // what an annotated tag stands for
	ends         map[plumbing.Hash]bool   // whose parents the server itself lacks
	head         string                   // the ref that HEAD points to, if the server tells
	capabilities map[capability.Capability]bool
}

var errSHA256 = errors.New("sha256 repositories are not supported")

// readAdvertisement reads up to the flush. Over http a service line and a flush
// come first.
func readAdvertisement(r io.Reader) (*advertisement, error) {
	a := &advertisement{
		refs:         map[string]plumbing.Hash{},
		peeled:       map[string]plumbing.Hash{},
		ends:         map[plumbing.Hash]bool{},
		capabilities: map[capability.Capability]bool{},
	}
	lines := pktline.NewScanner(r)
	service := false
	for n := 0; lines.Scan(); n++ {
		line := string(bytes.TrimSuffix(lines.Bytes(), []byte("\n")))
		switch {
		case n == 0 && strings.HasPrefix(line, servicePrefix):
			if line != servicePrefix+uploadPack {
				return nil, ErrProtocol
			}
			service = true
			continue
		case line == "" && service && n == 1:
			continue
		case line == "":
			return a, nil
		}
		if ref, caps, ok := strings.Cut(line, "\x00"); ok {
			a.readCapabilities(caps)
			line = ref
		}
		if id, ok := strings.CutPrefix(line, "shallow "); ok {
			hash, err := parseHash(id)
			if err != nil {
				return nil, err
			}
			a.ends[hash] = true
			continue
		}
		if err := a.readRef(line); err != nil {
			return nil, err
		}
	}
	return nil, scanError(lines.Err())
}

func (a *advertisement) readCapabilities(caps string) {
	for _, c := range strings.Fields(caps) {
		name, value, _ := strings.Cut(c, "=")
		a.capabilities[capability.Capability(name)] = true
		if from, to, ok := strings.Cut(value, ":"); ok && name == capability.SymRef.String() && from == headRef {
			a.head = to
		}
	}
}

func (a *advertisement) readRef(line string) error {
	text, name, ok := strings.Cut(line, " ")
	if !ok || name == "" {
		return ErrProtocol
	}
	if len(text) == 64 {
		return errSHA256
	}
	hash, err := parseHash(text)
	if err != nil {
		return err
	}
	if hash.IsZero() { // an empty repository: zero-id capabilities^{}
		return nil
	}
	if base, ok := strings.CutSuffix(name, peeledSuffix); ok {
		a.peeled[base] = hash
		return nil
	}
	a.refs[name] = hash
	return nil
}

// tip finds the ref that advertises hash, itself or as what its tag stands for,
// and says what to ask the server for to get it.
func (a *advertisement) tip(hash plumbing.Hash) (plumbing.Hash, bool) {
	for _, h := range a.refs {
		if h == hash {
			return h, true
		}
	}
	for _, name := range sortedKeys(a.peeled) {
		if h, ok := a.refs[name]; ok && a.peeled[name] == hash {
			return h, true
		}
	}
	return plumbing.ZeroHash, false
}

// tips are all branches and tags.
func (a *advertisement) tips() []plumbing.Hash {
	var hashes []plumbing.Hash
	for name, h := range a.refs {
		if strings.HasPrefix(name, branchPrefix) || strings.HasPrefix(name, tagPrefix) {
			hashes = append(hashes, h)
		}
	}
	plumbing.HashesSort(hashes)
	return slices.Compact(hashes)
}

// want is one question to upload-pack.
type want struct {
	hashes []plumbing.Hash
	have   plumbing.Hash // a commit that we have, or zero
	depth  int           // so many generations of commits; zero for all
	// less leaves out what is to be reached from have, its parents too. Then
	// nothing in the pack may build on it. Without, only have and its tree are
	// there.
	less   bool
	filter string // what to leave out, in git's words; empty for nothing
}

func (w want) encode(a *advertisement) []byte {
	caps := []string{capability.Agent.String() + "=" + agentName}
	for _, c := range []capability.Capability{
		capability.Sideband64k, capability.OFSDelta, capability.NoProgress,
		capability.MultiACKDetailed, // Azure DevOps answers to nothing less
	} {
		if a.capabilities[c] {
			caps = append(caps, c.String())
		}
	}
	if !w.have.IsZero() && !w.less && a.capabilities[capability.ThinPack] {
		caps = append(caps, capability.ThinPack.String())
	}
	if w.filter != "" {
		caps = append(caps, capability.Filter.String())
	}
	var buf bytes.Buffer
	line := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		fmt.Fprintf(&buf, "%04x%s", len(text)+4, text)
	}
	line("want %s %s\n", w.hashes[0], strings.Join(caps, " "))
	for _, h := range w.hashes[1:] {
		line("want %s\n", h)
	}
	if w.deepens(a) {
		if !w.have.IsZero() && !w.less {
			line("shallow %s\n", w.have)
		}
		line("deepen %d\n", w.depth)
	}
	if w.filter != "" {
		line("filter %s\n", w.filter)
	}
	buf.WriteString("0000")
	if !w.have.IsZero() {
		line("have %s\n", w.have)
	}
	line("done\n")
	return buf.Bytes()
}

// deepens says whether the depth is asked for. A server that knows none sends the
// whole history.
func (w want) deepens(a *advertisement) bool {
	return w.depth > 0 && a.capabilities[capability.Shallow]
}

// answer is what comes before a pack, and the pack.
type answer struct {
	body *limitedReader // what both come through
	io.Closer
	pack   io.Reader
	common bool                   // the server has the commit want.have
	ends   map[plumbing.Hash]bool // whose parents are left out because of want.depth
}

func (w want) readAnswer(r io.Reader, a *advertisement) (*answer, error) {
	lines := pktline.NewScanner(r)
	out := &answer{ends: map[plumbing.Hash]bool{}}
	if w.deepens(a) {
		if err := w.readShallow(lines, out.ends); err != nil {
			return nil, err
		}
	}
	for n := 0; ; n++ {
		if !lines.Scan() {
			return nil, scanError(lines.Err())
		}
		fields := strings.Fields(string(lines.Bytes()))
		if n > maxAckLines || len(fields) == 0 {
			return nil, ErrProtocol
		}
		out.common = out.common || fields[0] == "ACK"
		if fields[0] == "NAK" || fields[0] == "ACK" && len(fields) == 2 {
			break
		}
		if fields[0] != "ACK" {
			return nil, ErrProtocol
		}
	}
	out.pack = r
	if a.capabilities[capability.Sideband64k] {
		out.pack = sideband.NewDemuxer(sideband.Sideband64k, r)
	}
	return out, nil
}

func (w want) readShallow(lines *pktline.Scanner, ends map[plumbing.Hash]bool) error {
	for n := 0; ; n++ {
		if !lines.Scan() {
			return scanError(lines.Err())
		}
		text := strings.TrimSuffix(string(lines.Bytes()), "\n")
		if text == "" {
			return nil
		}
		if n > maxShallowLines {
			return &LimitError{What: "the list of commits where the history ends", Limit: maxShallowLines, Unit: "commits"}
		}
		id, shallow := strings.CutPrefix(text, "shallow ")
		if !shallow {
			if !strings.HasPrefix(text, "unshallow ") {
				return ErrProtocol
			}
			continue
		}
		hash, err := parseHash(id)
		if err != nil {
			return err
		}
		ends[hash] = true
	}
}

func scanError(err error) error {
	var line *pktline.ErrorLine
	if errors.As(err, &line) {
		return &refusedError{text: line.Text}
	}
	return ErrProtocol
}

// saysNotFound recognises how servers tell that a repository does not exist;
// there is no code for it outside http.
func saysNotFound(text string) bool {
	text = strings.ToLower(text)
	for _, s := range []string{
		"not appear to be a git repository",
		"repository not found",
		"no such repository",
		"repository does not exist",
		"not a git repository",
		"could not be found",
	} {
		if strings.Contains(text, s) {
			return true
		}
	}
	return false
}

// parseHash takes 40 hex digits of either case and nothing else.
func parseHash(text string) (plumbing.Hash, error) {
	var h plumbing.Hash
	if len(text) != 2*len(h) {
		return plumbing.ZeroHash, ErrProtocol
	}
	if _, err := hex.Decode(h[:], []byte(text)); err != nil {
		return plumbing.ZeroHash, ErrProtocol
	}
	return h, nil
}
