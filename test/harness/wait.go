package harness

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Until asks check again and again until it is content, ctx ends or the limit is
// over. The context of a check ends with the limit.
func Until(ctx context.Context, limit, every time.Duration, what string, check func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		case <-time.After(every):
		}
	}
}

// Eventually fails the test unless check is content within a minute.
func Eventually(tb testing.TB, what string, check func(ctx context.Context) error) {
	tb.Helper()
	if err := Until(tb.Context(), time.Minute, 20*time.Millisecond, what, check); err != nil {
		tb.Fatal(err)
	}
}

// Log is a log that can be read while it is written. The zero Log is empty. Safe
// for concurrent use.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write appends to the log.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all that was written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
