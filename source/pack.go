package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// A pack is unpacked by ourselves over go-git's scanner. go-git's parser makes
// the memory for an object itself and hands it to the storage afterwards, so a
// storage can not stop it: 400 kB of pack may ask for 400 MB, and one delta of
// a few bytes for any size. Here every size is known and allowed before the
// first byte of it is made.

// object is an unpacked git object.
type object struct {
	kind plumbing.ObjectType
	data []byte
	size int64
	// dropped says that the content was hashed and not kept: a blob bigger
	// than Limits.FileBytes.
	dropped bool
}

type objects map[plumbing.Hash]object

// get implements objectStore.
func (o objects) get(hash plumbing.Hash, kind plumbing.ObjectType) (object, error) {
	obj, ok := o[hash]
	if !ok {
		return object{}, fmt.Errorf("%w: the pack lacks %s %s", ErrProtocol, kind, hash)
	}
	if obj.kind != kind {
		return object{}, fmt.Errorf("git object %s is a %s, not a %s", hash, obj.kind, kind)
	}
	return obj, nil
}

var (
	// errNoBase: a delta stands on an object that we do not have.
	errNoBase = fmt.Errorf("%w: the pack lacks the base of a delta", ErrProtocol)
	// errCollision: somebody made this object to have the hash of another.
	errCollision = fmt.Errorf("%w: an object was made to collide under sha1", ErrProtocol)
	// errDroppedBase: a delta stands on a big blob; unpack again with keepBig.
	errDroppedBase = errors.New("a delta stands on a big object")
)

// bigBlobs says what to do with blobs over Limits.FileBytes while unpacking.
// Nobody will read them, but now and then another file is a delta of one.
type bigBlobs int

const (
	dropBig bigBlobs = iota
	keepBig
)

// unpacker holds a pack on its way from bytes to objects.
type unpacker struct {
	limits   Limits
	big      bigBlobs
	known    objects             // bases of a thin pack
	only     plumbing.ObjectType // what to keep; zero for everything
	skipped  map[int64]bool      // offsets of what was not kept because of only
	unpacked int64               // bytes so far, with those that were dropped
	objects  objects
	byOffset map[int64]plumbing.Hash
	deltas   []delta
	onOffset map[int64][]int         // deltas by the offset of their base
	onHash   map[plumbing.Hash][]int // deltas by the hash of their base
}

type delta struct {
	offset       int64
	instructions []byte
}

// unpack reads one pack. Deltas may stand on known. Errors are errNoBase,
// errDroppedBase, a *LimitError, the context's, or something that says that the
// pack is bad.
func unpack(ctx context.Context, r io.Reader, known objects, limits Limits, big bigBlobs) (objects, error) {
	u := newUnpacker(limits)
	u.known, u.big = known, big
	return u.unpack(ctx, r)
}

// unpackCommits reads one pack and keeps the commits. What else is in it counts
// for the limits, and is neither kept nor looked at.
func unpackCommits(ctx context.Context, r io.Reader, limits Limits) (objects, error) {
	u := newUnpacker(limits)
	u.only = plumbing.CommitObject
	return u.unpack(ctx, r)
}

func newUnpacker(limits Limits) *unpacker {
	return &unpacker{
		limits:   limits,
		skipped:  map[int64]bool{},
		objects:  objects{},
		byOffset: map[int64]plumbing.Hash{},
		onOffset: map[int64][]int{},
		onHash:   map[plumbing.Hash][]int{},
	}
}

func (u *unpacker) unpack(ctx context.Context, r io.Reader) (objects, error) {
	scanner := packfile.NewScanner(onlyReader{r})
	_, count, err := scanner.Header()
	if err != nil {
		return nil, err
	}
	for range count {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := u.readObject(scanner); err != nil {
			return nil, err
		}
	}
	if _, err := scanner.Checksum(); err != nil {
		return nil, err
	}
	if err := u.resolveDeltas(ctx); err != nil {
		return nil, err
	}
	for hash, obj := range u.objects {
		if obj.size > u.limits.FileBytes {
			obj.data, obj.dropped = nil, true
			u.objects[hash] = obj
		}
	}
	return u.objects, nil
}

// onlyReader hides Seek, which would make the scanner rewind.
type onlyReader struct{ io.Reader }

// reserve is asked before memory or time is spent on size bytes.
func (u *unpacker) reserve(kind plumbing.ObjectType, size int64) error {
	if size < 0 || size > u.limits.ObjectBytes {
		return &LimitError{What: "a git object", Limit: u.limits.ObjectBytes, Unit: "bytes"}
	}
	if kind != plumbing.BlobObject && !kind.IsDelta() && size > u.limits.FileBytes {
		return &LimitError{What: "a git " + kind.String(), Limit: u.limits.FileBytes, Unit: "bytes"}
	}
	if u.unpacked += size + objectOverhead; u.unpacked > u.limits.UnpackedBytes {
		return &LimitError{What: "the unpacked pack", Limit: u.limits.UnpackedBytes, Unit: "bytes"}
	}
	return nil
}

func (u *unpacker) readObject(scanner *packfile.Scanner) error {
	h, err := scanner.NextObjectHeader()
	if err != nil {
		return err
	}
	if err := u.reserve(h.Type, h.Length); err != nil {
		return err
	}
	if u.skips(h) {
		u.skipped[h.Offset] = true
		if n, _, err := scanner.NextObject(io.Discard); err != nil || n != h.Length {
			return errors.Join(packfile.ErrMalformedPackFile, err)
		}
		return nil
	}
	switch h.Type {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		w := u.newWriter(h.Type, h.Length)
		if n, _, err := scanner.NextObject(w); err != nil || n != h.Length {
			return errors.Join(packfile.ErrMalformedPackFile, err)
		}
		hash, err := sum(w.hasher.Hash)
		if err != nil {
			return err
		}
		u.objects[hash] = w.object()
		u.byOffset[h.Offset] = hash
		return nil
	case plumbing.OFSDeltaObject:
		u.onOffset[h.OffsetReference] = append(u.onOffset[h.OffsetReference], len(u.deltas))
	case plumbing.REFDeltaObject:
		u.onHash[h.Reference] = append(u.onHash[h.Reference], len(u.deltas))
	default:
		return packfile.ErrMalformedPackFile
	}
	var buf bytes.Buffer
	buf.Grow(int(min(h.Length, maxDeltaGrow)))
	if n, _, err := scanner.NextObject(&buf); err != nil || n != h.Length {
		return errors.Join(packfile.ErrMalformedPackFile, err)
	}
	u.deltas = append(u.deltas, delta{offset: h.Offset, instructions: buf.Bytes()})
	return nil
}

// skips says that an object is surely not of the kind that is kept. A delta is of
// the kind of its base, which comes before it, unless it is named by its hash.
func (u *unpacker) skips(h *packfile.ObjectHeader) bool {
	switch h.Type {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		return u.only != plumbing.InvalidObject && h.Type != u.only
	case plumbing.OFSDeltaObject:
		return u.skipped[h.OffsetReference]
	}
	return false
}

// resolveDeltas works from the bases upwards, so there is no recursion, no
// cycle, and each delta is applied once.
func (u *unpacker) resolveDeltas(ctx context.Context) error {
	type base struct {
		hash   plumbing.Hash
		object object
		offset int64 // -1 outside this pack
	}
	var todo []base
	for offset, hash := range u.byOffset {
		todo = append(todo, base{hash, u.objects[hash], offset})
	}
	for hash := range u.onHash {
		if obj, ok := u.known[hash]; ok && u.objects[hash].kind == plumbing.InvalidObject {
			todo = append(todo, base{hash, obj, -1})
		}
	}
	left := len(u.deltas)
	for len(todo) > 0 {
		b := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		next := slices.Concat(u.onOffset[b.offset], u.onHash[b.hash])
		delete(u.onOffset, b.offset)
		delete(u.onHash, b.hash)
		for _, i := range next {
			if err := ctx.Err(); err != nil {
				return err
			}
			if b.object.dropped {
				return errDroppedBase
			}
			hash, obj, err := u.apply(b.object, u.deltas[i].instructions)
			if err != nil {
				return err
			}
			u.objects[hash] = obj
			todo = append(todo, base{hash, obj, u.deltas[i].offset})
			u.deltas[i].instructions = nil
			left--
		}
	}
	if left > 0 && u.only == plumbing.InvalidObject {
		return errNoBase // else its base was skipped
	}
	return nil
}

func (u *unpacker) apply(base object, instructions []byte) (plumbing.Hash, object, error) {
	size, err := deltaTargetSize(instructions, int64(len(base.data)))
	if err != nil {
		return plumbing.ZeroHash, object{}, err
	}
	if err := u.reserve(base.kind, size); err != nil {
		return plumbing.ZeroHash, object{}, err
	}
	w := u.newWriter(base.kind, size)
	if err := applyDelta(w, base.data, instructions); err != nil {
		return plumbing.ZeroHash, object{}, err
	}
	hash, err := sum(w.hasher.Hash)
	return hash, w.object(), err
}

// sum is the object's name. go-git computes SHA-1 with collision detection, and
// then looks at the sum alone.
func sum(h hash.Hash) (plumbing.Hash, error) {
	detector, ok := h.(interface {
		CollisionResistantSum([]byte) ([]byte, bool)
	})
	if !ok {
		panic("source: internal error: go-git's SHA-1 does not detect collisions")
	}
	digest, collision := detector.CollisionResistantSum(nil)
	if collision {
		return plumbing.ZeroHash, errCollision
	}
	return plumbing.Hash(digest), nil
}

// objectWriter hashes an object and keeps its content, or not.
type objectWriter struct {
	kind   plumbing.ObjectType
	size   int64
	hasher plumbing.Hasher
	keep   bool
	data   []byte
}

func (u *unpacker) newWriter(kind plumbing.ObjectType, size int64) *objectWriter {
	w := &objectWriter{kind: kind, size: size, hasher: plumbing.NewHasher(kind, size)}
	w.keep = size <= u.limits.FileBytes || u.big == keepBig
	if w.keep {
		w.data = make([]byte, 0, size)
	}
	return w
}

func (w *objectWriter) Write(p []byte) (int, error) {
	if w.keep {
		w.data = append(w.data, p...)
	}
	return w.hasher.Write(p)
}

func (w *objectWriter) object() object {
	return object{kind: w.kind, data: w.data, size: w.size, dropped: !w.keep}
}

// deltaTargetSize reads the two sizes in front of a delta.
func deltaTargetSize(instructions []byte, baseSize int64) (int64, error) {
	from, rest, err := deltaSize(instructions)
	if err != nil {
		return 0, err
	}
	to, _, err := deltaSize(rest)
	if err != nil || from != baseSize {
		return 0, packfile.ErrInvalidDelta
	}
	return to, nil
}

// deltaSize reads a little-endian base-128 number of up to 56 bits.
func deltaSize(b []byte) (int64, []byte, error) {
	var n int64
	for i := 0; i < len(b) && i < 8; i++ {
		n |= int64(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return n, b[i+1:], nil
		}
	}
	return 0, nil, packfile.ErrInvalidDelta
}

// applyDelta writes what the delta (gitformat-pack(5)) makes of base: exactly
// as many bytes as it declares, or an error.
func applyDelta(w io.Writer, base, instructions []byte) error {
	_, d, err := deltaSize(instructions)
	if err != nil {
		return err
	}
	left, d, err := deltaSize(d)
	if err != nil {
		return err
	}
	for len(d) > 0 {
		op := d[0]
		d = d[1:]
		var piece []byte
		switch {
		case op == 0:
			return packfile.ErrInvalidDelta
		case op < 0x80: // insert the next op bytes
			if int(op) > len(d) {
				return packfile.ErrInvalidDelta
			}
			piece, d = d[:op], d[op:]
		default: // copy from base; the low bits of op say which bytes of offset and size follow
			var args [7]uint32
			for i := range args {
				if op&(1<<i) == 0 {
					continue
				}
				if len(d) == 0 {
					return packfile.ErrInvalidDelta
				}
				args[i], d = uint32(d[0]), d[1:]
			}
			offset := int64(args[0] | args[1]<<8 | args[2]<<16 | args[3]<<24)
			size := int64(args[4] | args[5]<<8 | args[6]<<16)
			if size == 0 {
				size = 0x10000
			}
			if offset+size > int64(len(base)) {
				return packfile.ErrInvalidDelta
			}
			piece = base[offset : offset+size]
		}
		if left -= int64(len(piece)); left < 0 {
			return packfile.ErrInvalidDelta
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	if left != 0 {
		return packfile.ErrInvalidDelta
	}
	return nil
}
