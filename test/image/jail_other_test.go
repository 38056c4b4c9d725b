//go:build unix && !linux

package image

import (
	"errors"
	"syscall"
	"testing"

	"github.com/gitseal/gitseal/test/harness"
)

func jailAttributes(t *testing.T) *syscall.SysProcAttr {
	t.Helper()
	harness.Skip(t, errors.New("only Linux gives a process a read-only root of its own"))
	return nil
}

func enterJail(string) int { return jailFailed }
