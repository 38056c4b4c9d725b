package harness

import (
	"os"
	"syscall"
)

// jails returns the ways to give a process the folder as its root, in the order
// in which to try them: plainly, which takes root, and in a user namespace. The
// kernel kills the process when we die.
func jails(folder string) []*syscall.SysProcAttr {
	inUserNamespace := &syscall.SysProcAttr{
		Chroot:      folder,
		Setpgid:     true,
		Pdeathsig:   syscall.SIGKILL,
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
	}
	if os.Geteuid() != 0 {
		return []*syscall.SysProcAttr{inUserNamespace}
	}
	plain := &syscall.SysProcAttr{Chroot: folder, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return []*syscall.SysProcAttr{plain, inUserNamespace}
}
