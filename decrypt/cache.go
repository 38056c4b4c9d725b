package decrypt

import (
	"crypto/sha256"
	"sync"

	"github.com/gitseal/gitseal/crypto"
)

// Cache keeps what was opened for the passes of one Sync, so that ciphertext
// that did not change is not opened again while the keys stay the same. What a
// pass and the one before it did not use is forgotten. It holds plaintext, as
// Secrets, for as long as git holds the sealed value. Safe for concurrent use;
// one Cache belongs to one Digester.
type Cache struct {
	mu     sync.Mutex
	pass   int
	files  map[cacheKey]*cached[*openedFile]
	values map[cacheKey]*cached[crypto.Secret]
	outs   map[cacheKey]*cached[map[string]crypto.Secret] // rendered templates
	sealed map[cacheKey]*cached[string]                   // by which key a value opens
	opened Opened

	rendering sync.Mutex // one template at a time: their memory adds up
}

// Opened counts what was opened since the Cache was made.
type Opened struct {
	Files, Values, Templates int
}

type cacheKey [sha256.Size]byte

type cached[T any] struct {
	value T
	pass  int // that used it last
}

// NewCache returns an empty one.
func NewCache() *Cache {
	return &Cache{files: map[cacheKey]*cached[*openedFile]{}, values: map[cacheKey]*cached[crypto.Secret]{}, outs: map[cacheKey]*cached[map[string]crypto.Secret]{}, sealed: map[cacheKey]*cached[string]{}}
}

// Opened reports what was opened so far.
func (c *Cache) Opened() Opened {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened
}

// begin starts a pass and forgets what is no longer used.
func (c *Cache) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pass++
	sweep(c.files, c.pass)
	sweep(c.values, c.pass)
	sweep(c.outs, c.pass)
	sweep(c.sealed, c.pass)
}

func sweep[T any](m map[cacheKey]*cached[T], pass int) {
	for k, v := range m {
		if v.pass < pass-2 {
			delete(m, k)
		}
	}
}

// keep marks an entry as used by the pass that goes on.
func keep[T any](c *Cache, m map[cacheKey]*cached[T], k cacheKey) (value T, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := m[k]
	if !ok {
		return value, false
	}
	e.pass = c.pass
	return e.value, true
}

func store[T any](c *Cache, m map[cacheKey]*cached[T], k cacheKey, value T, count *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m[k] = &cached[T]{value, c.pass}
	*count++
}

func keyOf(parts ...[]byte) cacheKey {
	h := sha256.New()
	for _, p := range parts {
		n := len(p)
		_, _ = h.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) // a hash never fails
		_, _ = h.Write(p)
	}
	return cacheKey(h.Sum(nil))
}
