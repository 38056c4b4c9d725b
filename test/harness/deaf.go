package harness

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// Deaf lets a client make watches of which it hears nothing while on is set: the
// connection stays, as behind a proxy that has lost its other half. No API server can
// be made to do so.
func Deaf(rt http.RoundTripper, on *atomic.Bool) http.RoundTripper { return deaf{rt, on} }

type deaf struct {
	http.RoundTripper
	on *atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (d deaf) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" {
		resp.Body = swallow{resp.Body, d.on}
	}
	return resp, err
}

type swallow struct {
	io.ReadCloser
	on *atomic.Bool
}

// Read drops what arrives while on is set.
func (s swallow) Read(b []byte) (int, error) {
	for {
		n, err := s.ReadCloser.Read(b)
		if err != nil || !s.on.Load() {
			return n, err
		}
	}
}

// NoWrites lets a client read and watch, and nothing else, while on is set: as when etcd
// has no leader.
func NoWrites(rt http.RoundTripper, on *atomic.Bool) http.RoundTripper { return noWrites{rt, on} }

type noWrites struct {
	http.RoundTripper
	on *atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (n noWrites) RoundTrip(r *http.Request) (*http.Response, error) {
	if n.on.Load() && r.Method != http.MethodGet {
		return nil, errors.New("etcdserver: no leader")
	}
	return n.RoundTripper.RoundTrip(r)
}
