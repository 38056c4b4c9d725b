//go:build unix && !linux

package harness

import "syscall"

// jails returns the one way that there is outside Linux: as root. There is no
// parent-death signal: a test that is killed leaves the process behind.
func jails(folder string) []*syscall.SysProcAttr {
	return []*syscall.SysProcAttr{{Chroot: folder, Setpgid: true}}
}
