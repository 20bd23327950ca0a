package qos

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ownerMark is an extended attribute of kubepods. Whatever lies below a marked
// kubepods is ours; a kubelet's has none.
const ownerMark = "trusted.nodeagent"

// claim marks kubepods as ours.
func (h *hierarchy) claim(dir string) {
	// Where the kernel does not let us, foreign cannot tell either.
	_ = unix.Setxattr(filepath.Join(h.mount("memory"), dir), ownerMark, []byte("1"), 0)
}

// foreign is an error if the kubepods in dir belongs to somebody else who has
// processes there: they would all be taken for orphans.
func (h *hierarchy) foreign(dir string) error {
	at := filepath.Join(h.mount("memory"), dir)
	if _, err := unix.Getxattr(at, ownerMark, nil); !errors.Is(err, unix.ENODATA) {
		return nil // ours, not there, or impossible to know
	}
	const trial = ownerMark + ".trial"
	if unix.Setxattr(at, trial, []byte("1"), 0) != nil {
		return nil // we could not have left a mark
	}
	_ = unix.Removexattr(at, trial)
	pids, err := h.processes(dir)
	if err != nil {
		return fmt.Errorf("list processes of cgroup %s: %w", dir, err)
	}
	if len(pids) == 0 {
		return nil
	}
	return fmt.Errorf("cgroup %s belongs to another agent, such as a kubelet, and has %d processes: stop that agent and its pods, or give this one another cgroupRoot", dir, len(pids))
}
