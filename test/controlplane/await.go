package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// await polls ready until it returns nil. It gives up when ctx ends, after
// startLimit, or when the child ends; what is named in the error.
func (c *cluster) await(ctx context.Context, started *child, what string, ready func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := ready(limited)
		if err == nil {
			return nil
		}
		select {
		case <-started.done:
			return started.died()
		case <-limited.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("wait for %s: %w", what, ctx.Err())
			}
			return fmt.Errorf("wait for %s: not ready after %s: %w\n%s", what, startLimit, err, started.tail())
		case <-tick.C:
		}
	}
}

// bodyBytes bounds what is read of an answer; we look at small ones only.
const bodyBytes = 64 << 10

// request returns the body of an answer 200; any other is an error.
func (c *cluster) request(ctx context.Context, method, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "gitseal-controlplane")
	resp, err := c.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, bodyBytes))
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return string(content), nil
}
