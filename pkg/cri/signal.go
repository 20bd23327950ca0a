package cri

import (
	"bytes"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalInit sends a signal to a container's init itself and says whether it did:
// through the shim that would take a runc, which is most of what ending a
// container costs.
//
// The process is held before it is looked at, so that its number cannot come to
// mean another, and the cgroup tells whose it is, also to an agent that sees
// other numbers than containerd does.
func signalInit(pid int, id string, sig syscall.Signal) bool {
	if pid <= 0 {
		return false
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !bytes.Contains(cgroup, []byte(id)) {
		return false
	}
	return unix.PidfdSendSignal(fd, sig, nil, 0) == nil
}
