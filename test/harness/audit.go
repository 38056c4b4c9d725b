package harness

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// userAgent of the harness's own requests, so that counts can leave them out.
	userAgent = "gitseal-harness"
	// markParameter is the query parameter of requests that only mark a point in
	// the audit log; Requests never returns them.
	markParameter = "gitseal-mark"
	// markLimit bounds how long a marking request may take to reach the log.
	markLimit = 30 * time.Second
)

// AuditEvent is one request that the API server handled.
type AuditEvent struct {
	ID               string // the API server's own
	Verb             string // of Kubernetes, such as list or patch; of HTTP for non-resource URLs
	User             string
	ImpersonatedUser string // empty without impersonation
	UserAgent        string
	Group            string // API group; empty for the core group
	Resource         string // plural; empty for non-resource URLs
	Subresource      string
	Namespace        string
	Name             string // may be empty, as for a list
	Code             int    // HTTP status
	RequestURI       string
	Time             time.Time // when the request was received
}

// Mark is a point in the audit log. The zero Mark is its beginning.
type Mark int64

// Mark returns the point of now: requests that were answered before it are not
// returned for it by Requests, requests made after it are. For a request in
// flight it may be either.
func (c *ControlPlane) Mark() Mark {
	info, err := os.Stat(c.AuditLog)
	if err != nil {
		return 0 // the log is gone; Requests says so
	}
	return Mark(info.Size())
}

// Requests returns the requests since a mark that filter accepts, nil for all,
// in the order of the log: each request once, when it is complete, but a watch
// and other long-running requests when they begin. Every request whose response
// was read to its end before the call is there, because the API server writes
// its event before it ends the response. The API server must be running.
func (c *ControlPlane) Requests(ctx context.Context, since Mark, filter func(AuditEvent) bool) ([]AuditEvent, error) {
	ctx, cancel := context.WithTimeout(ctx, markLimit)
	defer cancel()
	mark := rand.Text()
	if err := c.sendMark(ctx, mark); err != nil {
		return nil, fmt.Errorf("mark the audit log: %w", err)
	}
	return c.audit.requests(ctx, c.AuditLog, mark, since, filter)
}

// sendMark makes a request that Requests can find in the log.
func (c *ControlPlane) sendMark(ctx context.Context, mark string) error {
	config, err := c.RESTConfig()
	if err != nil {
		return err
	}
	config.UserAgent = userAgent
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Server+"/version?"+markParameter+"="+mark, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// auditLog is the part of the log that was read so far. It keeps every request,
// so that one that spans a mark is known when its second event arrives.
type auditLog struct {
	mu     sync.Mutex
	offset int64 // of the first byte not yet read
	events []auditEntry
	seen   map[string]bool // by ID
	marks  map[string]bool // found and not yet asked for
}

type auditEntry struct {
	AuditEvent
	offset int64
}

func (a *auditLog) requests(ctx context.Context, path, mark string, since Mark, filter func(AuditEvent) bool) ([]AuditEvent, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		if err := a.read(path); err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		if a.marks[mark] {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a mark in the audit log: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	delete(a.marks, mark)
	var found []AuditEvent
	for _, entry := range a.events {
		if entry.offset >= int64(since) && (filter == nil || filter(entry.AuditEvent)) {
			found = append(found, entry.AuditEvent)
		}
	}
	return found, nil
}

// read takes in the complete lines that were added to the file.
func (a *auditLog) read(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(a.offset, io.SeekStart); err != nil {
		return err
	}
	reader := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // what is left is half a line, or nothing
		}
		if err != nil {
			return err
		}
		if err := a.add(line); err != nil {
			return fmt.Errorf("at byte %d: %w", a.offset, err)
		}
		a.offset += int64(len(line))
	}
}

// add takes in one line, unless it is the second event of its request.
func (a *auditLog) add(line []byte) error {
	var raw rawEvent
	if err := json.Unmarshal(line, &raw); err != nil {
		return err
	}
	if a.seen == nil {
		a.seen, a.marks = map[string]bool{}, map[string]bool{}
	}
	if a.seen[raw.AuditID] {
		return nil
	}
	a.seen[raw.AuditID] = true
	if _, mark, ok := strings.Cut(raw.RequestURI, "?"+markParameter+"="); ok {
		a.marks[mark] = true
		return nil
	}
	a.events = append(a.events, auditEntry{raw.event(), a.offset})
	return nil
}

// rawEvent is what we use of audit.k8s.io/v1 Event.
type rawEvent struct {
	AuditID          string    `json:"auditID"`
	RequestURI       string    `json:"requestURI"`
	Verb             string    `json:"verb"`
	User             rawUser   `json:"user"`
	ImpersonatedUser rawUser   `json:"impersonatedUser"`
	UserAgent        string    `json:"userAgent"`
	Received         time.Time `json:"requestReceivedTimestamp"`
	ObjectRef        struct {
		APIGroup    string `json:"apiGroup"`
		Resource    string `json:"resource"`
		Subresource string `json:"subresource"`
		Namespace   string `json:"namespace"`
		Name        string `json:"name"`
	} `json:"objectRef"`
	ResponseStatus struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

type rawUser struct {
	Username string `json:"username"`
}

func (r rawEvent) event() AuditEvent {
	return AuditEvent{
		ID:               r.AuditID,
		Verb:             r.Verb,
		User:             r.User.Username,
		ImpersonatedUser: r.ImpersonatedUser.Username,
		UserAgent:        r.UserAgent,
		Group:            r.ObjectRef.APIGroup,
		Resource:         r.ObjectRef.Resource,
		Subresource:      r.ObjectRef.Subresource,
		Namespace:        r.ObjectRef.Namespace,
		Name:             r.ObjectRef.Name,
		Code:             r.ResponseStatus.Code,
		RequestURI:       r.RequestURI,
		Time:             r.Received,
	}
}
