package source

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/gitseal/gitseal/test/corpus"
)

// packer writes packs that git would not.
type packer struct {
	buf   bytes.Buffer
	count uint32
}

// header starts an object and returns its offset in the finished pack.
func (p *packer) header(kind plumbing.ObjectType, size int64) int {
	p.count++
	at := p.buf.Len() + 12
	b := byte(kind)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		p.buf.WriteByte(b | 0x80)
		b = byte(size & 0x7f)
	}
	p.buf.WriteByte(b)
	return at
}

func (p *packer) deflate(r io.Reader) {
	z := zlib.NewWriter(&p.buf)
	_, _ = io.Copy(z, r)
	_ = z.Close()
}

func (p *packer) object(kind plumbing.ObjectType, data []byte) plumbing.Hash {
	p.header(kind, int64(len(data)))
	p.deflate(bytes.NewReader(data))
	return plumbing.ComputeHash(kind, data)
}

func (p *packer) refDelta(base plumbing.Hash, instructions []byte) {
	p.header(plumbing.REFDeltaObject, int64(len(instructions)))
	p.buf.Write(base[:])
	p.deflate(bytes.NewReader(instructions))
}

func (p *packer) pack() []byte {
	head := append([]byte("PACK\x00\x00\x00\x02"), binary.BigEndian.AppendUint32(nil, p.count)...)
	whole := append(head, p.buf.Bytes()...)
	sum := sha1.Sum(whole)
	return append(whole, sum[:]...)
}

func leb128(n int64) []byte { return binary.AppendUvarint(nil, uint64(n)) }

// copyAll makes a delta that repeats the first 64 KiB of its base again and again.
func copyAll(baseSize, times int64) []byte {
	d := append(leb128(baseSize), leb128(times*0x10000)...)
	return append(d, bytes.Repeat([]byte{0x80}, int(times))...)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// allocatedBy returns the bytes that f allocated in all.
func allocatedBy(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestUnpackRefusesBombs(t *testing.T) {
	// Not parallel: it measures allocations.
	limits := Limits{FileBytes: 1 << 20, UnpackedBytes: 64 << 20}.withDefaults()
	block := make([]byte, 0x10000)
	bombs := map[string]struct {
		fill    func(p *packer)
		want    string
		maxRead int  // bytes of the pack
		small   bool // nothing big may be allocated; not so for many objects under -race
	}{
		"400 MB of zeros": {func(p *packer) {
			p.header(plumbing.BlobObject, 400<<20)
			p.deflate(io.LimitReader(zeros{}, 4<<20)) // more is not looked at
		}, "a git object is over the limit of 104857600 bytes", 64 << 10, true},
		"a declared size of 1 PB": {func(p *packer) {
			p.header(plumbing.BlobObject, 1<<50)
			p.deflate(strings.NewReader("x"))
		}, "a git object is over the limit", 64 << 10, true},
		"a tree of 2 MB": {func(p *packer) {
			p.header(plumbing.TreeObject, 2<<20)
			p.deflate(io.LimitReader(zeros{}, 2<<20))
		}, "a git tree is over the limit of 1048576 bytes", 64 << 10, true},
		"many objects that are allowed each": {func(p *packer) {
			for i := range 60 {
				p.header(plumbing.BlobObject, 2<<20+int64(i))
				p.deflate(io.LimitReader(zeros{}, 2<<20+int64(i)))
			}
		}, "the unpacked pack is over the limit of 67108864 bytes", 128 << 10, true},
		"a delta that makes 640 MB of 64 kB": {func(p *packer) {
			p.refDelta(p.object(plumbing.BlobObject, block), copyAll(0x10000, 10_000))
		}, "a git object is over the limit", 64 << 10, true},
		"many deltas that are allowed each": {func(p *packer) {
			base := p.object(plumbing.BlobObject, block)
			for i := range 60 {
				p.refDelta(base, copyAll(0x10000, 20+int64(i)))
			}
		}, "the unpacked pack is over the limit", 1 << 20, true},
		"many empty objects": {func(p *packer) {
			var one packer
			one.object(plumbing.BlobObject, nil)
			p.buf.Write(bytes.Repeat(one.buf.Bytes(), 200_000))
			p.count = 200_000
		}, "the unpacked pack is over the limit", 4 << 20, false},
	}
	for name, tt := range bombs {
		t.Run(name, func(t *testing.T) {
			var p packer
			tt.fill(&p)
			r := &countingReader{r: bytes.NewReader(p.pack())}
			var err error
			got := allocatedBy(func() { _, err = unpack(t.Context(), r, nil, limits, dropBig) })
			var limit *LimitError
			if !errors.As(err, &limit) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want LimitError %q", err, tt.want)
			}
			if r.n > tt.maxRead {
				t.Errorf("read %d bytes of the pack, want at most %d", r.n, tt.maxRead)
			}
			if max := uint64(96 << 20); tt.small && got > max {
				t.Errorf("allocated %d MB, want at most %d", got>>20, max>>20)
			}
		})
	}
}

type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestFetchRefusesAPackBombFromAServer(t *testing.T) {
	// Not parallel: it measures allocations.
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	hash := r.gitInput(io.LimitReader(zeros{}, 400<<20), "hash-object", "-w", "--stdin")
	r.git("update-index", "--add", "--cacheinfo", "100644,"+hash+",zeros")
	r.git("commit", "-q", "-m", "bomb")
	s := mustNew(t, Config{URL: server.url("r")})
	var err error
	got := allocatedBy(func() { _, _, err = s.Fetch(t.Context()) })
	var limit *LimitError
	if !errors.As(err, &limit) || !strings.Contains(err.Error(), "a git object is over the limit of 104857600 bytes") {
		t.Errorf("got %v, want LimitError", err)
	}
	if got > 32<<20 {
		t.Errorf("allocated %d MB, want at most 32", got>>20)
	}
}

func TestUnpackRefusesBadPacks(t *testing.T) {
	t.Parallel()
	limits := Limits{}.withDefaults()
	base := []byte("0123456789")
	delta := func(instructions string) func(p *packer) {
		return func(p *packer) { p.refDelta(p.object(plumbing.BlobObject, base), []byte(instructions)) }
	}
	tests := map[string]struct {
		fill func(p *packer)
		want error
	}{
		"delta on nothing":                 {func(p *packer) { p.refDelta(plumbing.NewHash(strings.Repeat("ab", 20)), []byte("\x0a\x0a\x8a")) }, errNoBase},
		"delta with the wrong base size":   {delta("\x09\x01\x01x"), packfile.ErrInvalidDelta},
		"delta that copies past the end":   {delta("\x0a\x05\x91\x08\x05"), packfile.ErrInvalidDelta},
		"delta that makes too much":        {delta("\x0a\x01\x90\x05"), packfile.ErrInvalidDelta},
		"delta that makes too little":      {delta("\x0a\x06\x90\x05"), packfile.ErrInvalidDelta},
		"delta with the reserved command":  {delta("\x0a\x01\x00"), packfile.ErrInvalidDelta},
		"delta that is cut in an insert":   {delta("\x0a\x05\x05abc"), packfile.ErrInvalidDelta},
		"delta that is cut in a copy":      {delta("\x0a\x05\x91\x00"), packfile.ErrInvalidDelta},
		"delta without sizes":              {delta("\xff"), packfile.ErrInvalidDelta},
		"object that is shorter than said": {func(p *packer) { p.header(plumbing.BlobObject, 9); p.deflate(strings.NewReader("short")) }, packfile.ErrMalformedPackFile},
		"object that is longer than said":  {func(p *packer) { p.header(plumbing.BlobObject, 2); p.deflate(strings.NewReader("longer")) }, packfile.ErrMalformedPackFile},
		"object of the invalid type":       {func(p *packer) { p.header(plumbing.InvalidObject, 1); p.deflate(strings.NewReader("x")) }, packfile.ErrMalformedPackFile},
		"object of the reserved type":      {func(p *packer) { p.header(5, 1); p.deflate(strings.NewReader("x")) }, packfile.ErrMalformedPackFile},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var p packer
			tt.fill(&p)
			if _, err := unpack(t.Context(), bytes.NewReader(p.pack()), nil, limits, dropBig); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	var p packer
	p.object(plumbing.BlobObject, base)
	bad := p.pack()
	bad[len(bad)-1]++
	if _, err := unpack(t.Context(), bytes.NewReader(bad), nil, limits, dropBig); !errors.Is(err, packfile.ErrMalformedPackFile) {
		t.Errorf("got %v for a wrong checksum, want %v", err, packfile.ErrMalformedPackFile)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := unpack(ctx, bytes.NewReader(p.pack()), nil, limits, dropBig); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func TestUnpackKeepsBigBlobsOnlyAsHashes(t *testing.T) {
	t.Parallel()
	limits := Limits{FileBytes: 100}.withDefaults()
	var p packer
	big := bytes.Repeat([]byte("b"), 101)
	bigHash := p.object(plumbing.BlobObject, big)
	p.refDelta(bigHash, []byte("\x65\x03\x90\x03"))
	if _, err := unpack(t.Context(), bytes.NewReader(p.pack()), nil, limits, dropBig); !errors.Is(err, errDroppedBase) {
		t.Errorf("got %v, want %v", err, errDroppedBase)
	}
	got, err := unpack(t.Context(), bytes.NewReader(p.pack()), nil, limits, keepBig)
	if err != nil {
		t.Fatal(err)
	}
	if obj := got[bigHash]; !obj.dropped || obj.data != nil || obj.size != 101 {
		t.Errorf("got %+v for the big blob, want its size alone", obj)
	}
	small := got[plumbing.ComputeHash(plumbing.BlobObject, []byte("bbb"))]
	if string(small.data) != "bbb" {
		t.Errorf("got %q for the delta of the big blob, want bbb", small.data)
	}
}

func TestFetchReadsASmallFileThatIsADeltaOfABigOne(t *testing.T) {
	t.Parallel()
	server := newGitServer(t, plain)
	r := newRepo(t, server.root, "r")
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 6000)
	_, _ = random.Read(noise)
	r.commit("big", map[string]string{"dir/a.yaml": string(noise), "dir2/a.yaml": string(noise[:4000])})
	r.git("repack", "-adfq")
	s := mustNew(t, Config{URL: server.url("r"), Limits: Limits{FileBytes: 5000}})
	before := server.requests.Load()
	c := mustFetch(t, s)
	if got := server.requests.Load() - before; got != 3 {
		t.Errorf("got %d requests, want 3: the delta of the big file was not met", got)
	}
	if got := contentOf(t, c, "dir2/a.yaml"); got != string(noise[:4000]) {
		t.Error("the small file is wrong")
	}
	var limit *LimitError
	if _, err := c.Tree.ReadFile("dir/a.yaml"); !errors.As(err, &limit) {
		t.Errorf("got %v for the big file, want LimitError", err)
	}
}

type collidingHash struct{ hash.Hash }

func (collidingHash) CollisionResistantSum([]byte) ([]byte, bool) {
	return make([]byte, 20), true
}

func TestSumRefusesCollisions(t *testing.T) {
	t.Parallel()
	if _, err := sum(collidingHash{}); !errors.Is(err, errCollision) {
		t.Errorf("got %v, want %v", err, errCollision)
	}
	h := plumbing.NewHasher(plumbing.BlobObject, 1)
	_, _ = h.Write([]byte("x"))
	if got, err := sum(h.Hash); err != nil || got != plumbing.ComputeHash(plumbing.BlobObject, []byte("x")) {
		t.Errorf("got %s, %v, want the hash of x", got, err)
	}
}

func TestServerThatSendsAnotherCommit(t *testing.T) {
	t.Parallel()
	var p packer
	tree := p.object(plumbing.TreeObject, nil)
	p.object(plumbing.CommitObject, fmt.Appendf(nil, "tree %s\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nevil\n", tree))
	server := newGitServer(t, plain)
	newRepo(t, server.root, "r")
	server.misbehave(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost {
			return false
		}
		w.Header().Set("Content-Type", resultType)
		pack := p.pack()
		_, _ = fmt.Fprintf(w, "00000008NAK\n%04x\x01%s0000", len(pack)+5, pack)
		return true
	})
	_, _, err := mustNew(t, Config{URL: server.url("r")}).Fetch(t.Context())
	if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), "the pack lacks commit") {
		t.Errorf("got %v, want ErrProtocol", err)
	}
}

func FuzzUnpack(f *testing.F) {
	c := corpus.Of(f)
	limits := Limits{FileBytes: 1 << 16, ObjectBytes: 1 << 17, UnpackedBytes: 1 << 20}.withDefaults()
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := unpack(t.Context(), bytes.NewReader(data), nil, limits, dropBig)
		if err != nil {
			c.Saw("an error")
			if got != nil {
				t.Error("objects beside an error")
			}
		}
		commits, commitsErr := unpackCommits(t.Context(), bytes.NewReader(data), limits)
		if err == nil && commitsErr != nil {
			t.Errorf("the commits alone: %v", commitsErr)
		}
		for hash, obj := range commits {
			c.Saw("a commit")
			if obj.kind == plumbing.CommitObject && plumbing.ComputeHash(obj.kind, obj.data) != hash {
				t.Errorf("%s has another content", hash)
			}
		}
		for hash, obj := range got {
			c.Saw("an object")
			if _, ok := commits[hash]; ok != (obj.kind == plumbing.CommitObject) {
				t.Errorf("%s %s is among the commits: %v", obj.kind, hash, ok)
			}
			if !obj.dropped && plumbing.ComputeHash(obj.kind, obj.data) != hash {
				t.Errorf("%s has another content", hash)
			}
		}
	})
	c.Reached("an error", "an object", "a commit")
}

func FuzzApplyDelta(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, base, instructions []byte) {
		if len(base) == 0 || len(instructions) < 2 {
			return // go-git refuses these
		}
		size, err := deltaTargetSize(instructions, int64(len(base)))
		if err != nil || size > 1<<20 {
			return
		}
		var got bytes.Buffer
		err = applyDelta(&got, base, instructions)
		want, wantErr := packfile.PatchDelta(base, instructions)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("got error %v, go-git %v", err, wantErr)
		}
		if err != nil {
			c.Saw("an error")
			return
		}
		c.Saw("applied")
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("got %q, go-git %q", got.Bytes(), want)
		}
	})
	c.Reached("an error", "applied")
}

func FuzzReadAdvertisement(f *testing.F) {
	c := corpus.Of(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readAdvertisement(bytes.NewReader(data))
		if (a == nil) == (err == nil) {
			t.Errorf("got %v and %v", a, err)
		}
		if a == nil {
			c.Saw("an error")
			return
		}
		c.Saw("read")
		got, err := want{hashes: []plumbing.Hash{{1}}, depth: 1}.readAnswer(bytes.NewReader(data), a)
		if (got == nil) == (err == nil) {
			t.Errorf("got %v and %v for the answer", got, err)
		}
	})
	c.Reached("an error", "read")
}
