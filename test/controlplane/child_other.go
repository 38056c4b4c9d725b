//go:build unix && !linux

package main

import "syscall"

// processAttributes puts a child in its own process group. Outside Linux there is
// no parent-death signal: a launcher that is killed leaves its children behind.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
