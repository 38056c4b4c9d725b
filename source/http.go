package source

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	infoRefs          = "/info/refs"
	advertisementType = "application/x-" + uploadPack + "-advertisement"
	requestType       = "application/x-" + uploadPack + "-request"
	resultType        = "application/x-" + uploadPack + "-result"

	tlsTimeout        = 15 * time.Second
	idleTimeout       = 90 * time.Second // an unused connection is closed
	maxResponseHeader = 64 << 10         // bytes
	maxIdleConns      = 1
)

// httpRemote speaks git's smart http, with a client of its own.
type httpRemote struct {
	base        string
	credentials Credentials
	limits      Limits
	first       *http.Client // the GET of the refs
	next        *http.Client // everything after it
}

func newHTTPRemote(l location, cfg Config, limits Limits) (*httpRemote, error) {
	c := cfg.Credentials
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            cfg.dialer().DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    tlsTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    maxIdleConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
	if len(c.CA) > 0 {
		certs, err := parseCA(c.CA)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil { // no system pool: ours alone
			pool = x509.NewCertPool()
		}
		for _, cert := range certs {
			pool.AddCert(cert)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	h := &httpRemote{base: string(l.scheme) + "://" + l.host + l.path, credentials: c, limits: limits}
	h.first = &http.Client{Transport: t, CheckRedirect: h.checkRedirect}
	h.next = &http.Client{Transport: t, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		return &redirectError{to: origin(req.URL), reason: "after the first request"}
	}}
	return h, nil
}

// redirectError is ErrRedirect. It names the other origin only.
type redirectError struct{ to, reason string }

func (e *redirectError) Error() string {
	return fmt.Sprintf("%s: to %s, %s", ErrRedirect, printable(e.to), e.reason)
}

func (*redirectError) Is(target error) bool { return target == ErrRedirect }

// checkRedirect follows the first request within its origin, and elsewhere only
// when there is no credential to lose, never from https to http.
func (h *httpRemote) checkRedirect(req *http.Request, via []*http.Request) error {
	from, to := via[len(via)-1].URL, req.URL
	refuse := func(reason string) error { return &redirectError{to: origin(to), reason: reason} }
	to.User = nil // or net/http would send what the server put there
	switch {
	case to.Scheme != "http" && to.Scheme != "https":
		return refuse("which is not http")
	case from.Scheme == "https" && to.Scheme == "http":
		return refuse("which is not encrypted")
	case h.credentials.sent() != noCredentials && origin(via[0].URL) != origin(to):
		return refuse("which is not where the credential belongs")
	case len(via) > maxRedirects:
		return refuse("after too many redirects")
	}
	return nil
}

// origin is scheme, host and port.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

func (h *httpRemote) request(ctx context.Context, method, target string, body []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: the url can not be requested", ErrUnreachable)
	}
	req.Header.Set("User-Agent", userAgent)
	switch {
	case !h.credentials.BearerToken.IsZero():
		req.Header.Set("Authorization", "Bearer "+string(h.credentials.BearerToken.Reveal()))
	case h.credentials.basic():
		req.SetBasicAuth(h.credentials.Username, string(h.credentials.Password.Reveal()))
	}
	return req, nil
}

func (h *httpRemote) open(ctx context.Context) (session, error) {
	req, err := h.request(ctx, http.MethodGet, h.base+infoRefs+"?service="+uploadPack, nil)
	if err != nil {
		return nil, err
	}
	resp, err := h.first.Do(req)
	if err != nil {
		return nil, connectionError(err)
	}
	defer closeDrained(resp.Body)
	if err := h.checkStatus(resp); err != nil {
		return nil, err
	}
	if !hasType(resp, advertisementType) {
		return nil, fmt.Errorf("%w: this is not the url of a git repository", ErrProtocol)
	}
	final := *resp.Request.URL
	path, ok := strings.CutSuffix(final.Path, infoRefs)
	if !ok {
		return nil, &redirectError{to: origin(&final), reason: "which is not a git repository"}
	}
	final.Path, final.RawPath, final.RawQuery, final.User = path, "", "", nil
	body := newLimitedReader(resp.Body, "the list of refs", maxRefsBytes)
	adv, err := readAdvertisement(body)
	if err != nil {
		return nil, refsError(body, err)
	}
	return &httpSession{remote: h, base: final.String(), adv: adv}, nil
}

func refsError(body *limitedReader, err error) error {
	if refused, ok := err.(*refusedError); ok && saysNotFound(refused.text) {
		return ErrRepositoryNotFound
	}
	return readError(body, err, "the list of refs")
}

// httpSession needs no connection of its own: each request stands alone.
type httpSession struct {
	remote *httpRemote
	base   string // where the redirects of the first request led
	adv    *advertisement
}

func (s *httpSession) refs() *advertisement { return s.adv }
func (s *httpSession) Close() error         { return nil }

func (s *httpSession) pack(ctx context.Context, request []byte) (*limitedReader, io.Closer, error) {
	req, err := s.remote.request(ctx, http.MethodPost, s.base+"/"+uploadPack, request)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", requestType)
	req.Header.Set("Accept", resultType)
	resp, err := s.remote.next.Do(req)
	if err != nil {
		return nil, nil, connectionError(err)
	}
	if err := s.remote.checkStatus(resp); err != nil {
		closeDrained(resp.Body)
		return nil, nil, err
	}
	if !hasType(resp, resultType) {
		closeDrained(resp.Body)
		return nil, nil, fmt.Errorf("%w: the answer is not a pack", ErrProtocol)
	}
	return newLimitedReader(resp.Body, "the pack", s.remote.limits.PackBytes), resp.Body, nil
}

func (h *httpRemote) checkStatus(resp *http.Response) error {
	code := resp.StatusCode
	switch {
	case code == http.StatusOK:
		return nil
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%w: http status %d, sent %s", ErrAuthentication, code, h.credentials.sent())
	case code == http.StatusNotFound, code == http.StatusGone:
		return fmt.Errorf("%w: http status %d, sent %s", ErrRepositoryNotFound, code, h.credentials.sent())
	case code == http.StatusTooManyRequests, code >= 500:
		return fmt.Errorf("%w: http status %d", ErrUnreachable, code)
	}
	return fmt.Errorf("%w: http status %d", ErrProtocol, code)
}

func hasType(resp *http.Response, want string) bool {
	got, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && got == want
}

// closeDrained reads the little that may be left, so that the connection can be
// used for the next request.
func closeDrained(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxDrainBytes) // only to keep the connection
	_ = body.Close()                                 // nothing is written
}
