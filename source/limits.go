package source

import (
	"fmt"
	"io"
)

// What a remote may make us read and keep, unless Limits says otherwise.
const (
	maxFileBytes     = 10 << 20  // one file, when it is read
	maxTreeBytes     = 256 << 20 // all files of a tree together
	maxTreeEntries   = 100_000   // files, links and folders of a tree
	maxObjectBytes   = 100 << 20 // one git object, declared in the pack before it is unpacked
	maxUnpackedBytes = 512 << 20 // all objects of one pack, unpacked
	maxPackBytes     = 512 << 20 // one pack on the wire
)

// Limits that nobody needs to change.
const (
	maxRefsBytes    = 32 << 20 // the ref advertisement
	maxPathBytes    = 4096     // a path in the tree
	maxPathDepth    = 64       // folders in a path
	maxLinkBytes    = 4096     // the target of a symbolic link
	maxLinkHops     = 40       // symbolic links followed for one path, as in Linux
	maxTagDepth     = 8        // a tag of a tag of a tag
	maxAckLines     = 1024     // pkt-lines before the pack
	maxShallowLines = 100_000  // commits that a history of some depth ends with
	maxRangeBytes   = 256      // a range of versions
	maxStderrBytes  = 4096     // what an ssh server may say beside the data
	maxDrainBytes   = 4096     // read after the answer, to keep the connection
	maxDeltaGrow    = 1 << 20  // bytes made ready for a delta before it is read
	maxRedirects    = 5        // followed for the first request
	objectOverhead  = 512      // bytes of memory counted for an object beside its content
)

// Limits bounds what a remote may make us read and keep. A zero field stands
// for the default.
type Limits struct {
	FileBytes     int64 // one file; a bigger one is an error when it is read. Default 10 MiB
	TreeBytes     int64 // all files of the tree that are not too big. Default 256 MiB
	TreeEntries   int   // files, links and folders. Default 100,000
	ObjectBytes   int64 // one git object, bigger refuses the Fetch. Default 100 MiB
	UnpackedBytes int64 // all objects of one pack, unpacked. Default 512 MiB
	PackBytes     int64 // one pack on the wire. Default 512 MiB
}

func (l Limits) withDefaults() Limits {
	def := func(v *int64, d int64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&l.FileBytes, maxFileBytes)
	def(&l.TreeBytes, maxTreeBytes)
	def(&l.ObjectBytes, maxObjectBytes)
	def(&l.UnpackedBytes, maxUnpackedBytes)
	def(&l.PackBytes, maxPackBytes)
	if l.TreeEntries == 0 {
		l.TreeEntries = maxTreeEntries
	}
	return l
}

func (l Limits) validate() error {
	if l.FileBytes < 0 || l.TreeBytes < 0 || l.TreeEntries < 0 ||
		l.ObjectBytes < 0 || l.UnpackedBytes < 0 || l.PackBytes < 0 {
		return fmt.Errorf("limits must not be negative")
	}
	return nil
}

// LimitError says that something is bigger than we read or keep.
type LimitError struct {
	What  string // "file apps/big.bin", "the pack"
	Limit int64
	Unit  string // "bytes", "entries"
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s is over the limit of %d %s", e.What, e.Limit, e.Unit)
}

// limitedReader fails with a *LimitError, and remembers what the reader below
// it failed with, so that a parser's own message can be dropped.
type limitedReader struct {
	r     io.Reader
	what  string
	limit int64
	read  int64
	err   error // never io.EOF
}

func newLimitedReader(r io.Reader, what string, limit int64) *limitedReader {
	return &limitedReader{r: r, what: what, limit: limit}
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if room := l.limit - l.read; int64(len(p)) > room+1 {
		p = p[:room+1]
	}
	n, err := l.r.Read(p)
	l.read += int64(n)
	if l.read > l.limit {
		l.err = &LimitError{What: l.what, Limit: l.limit, Unit: "bytes"}
		return 0, l.err
	}
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}
