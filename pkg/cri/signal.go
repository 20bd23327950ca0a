package cri

import (
	"bytes"
	"fmt"
	"os"
	"syscall"

	"github.com/moby/sys/signal"
	"golang.org/x/sys/unix"
)

// The kernel's range of real-time signals, of which a C library keeps the first two.
const (
	firstRealTime = 34
	lastRealTime  = 64
)

// stopSignalOf is the pod's choice, else the image's, else SIGTERM.
func stopSignalOf(cfg *ContainerConfig) string {
	if l := cfg.Container.Lifecycle; l != nil && l.StopSignal != nil {
		return signalName(parseSignal(string(*l.StopSignal)))
	}
	return signalName(parseSignal(cfg.Image.Config.StopSignal))
}

// parseSignal reads a name, with or without SIG, or a number. An image may name a
// signal that does not exist, or none; then it is SIGTERM.
func parseSignal(s string) syscall.Signal {
	sig, err := signal.ParseSignal(s)
	if err != nil || signalName(sig) == "" {
		return syscall.SIGTERM
	}
	return sig
}

// signalName is how a pod's spec and status name a signal; empty means that there
// is none of this number.
func signalName(sig syscall.Signal) string {
	switch name := unix.SignalName(sig); {
	case name != "":
		return name
	case sig == firstRealTime:
		return "SIGRTMIN"
	case sig == lastRealTime:
		return "SIGRTMAX"
	case sig > firstRealTime && sig <= firstRealTime+15:
		return fmt.Sprintf("SIGRTMIN+%d", sig-firstRealTime)
	case sig > firstRealTime && sig < lastRealTime:
		return fmt.Sprintf("SIGRTMAX-%d", lastRealTime-sig)
	default:
		return ""
	}
}

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
