package main

import "syscall"

// processAttributes puts a child in its own process group, so that Ctrl-C in a
// terminal reaches only us and the order of stopping is kept, and has the kernel
// kill it when we die, so that a killed launcher leaves no orphans.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
