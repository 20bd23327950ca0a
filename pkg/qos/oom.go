package qos

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// oomFloor is the lowest oom_score_adj that this process may give to others:
// without CAP_SYS_RESOURCE no process can go below its own.
func oomFloor(procRoot string) (int, error) {
	has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0)
	if err == nil && has == 1 {
		return -1000, nil
	}
	own, err := readInt(filepath.Join(procRoot, "self/oom_score_adj"))
	return int(own), err
}

// clampOOM raises a score that could not be set, and says so once.
func (t *Tree) clampOOM(adj int) int {
	if adj >= t.oomFloor {
		return adj
	}
	t.warnOOM.Do(func() {
		t.cfg.Log.Warn("CAP_SYS_RESOURCE is missing: containers that should be protected from the OOM killer get the agent's own oom_score_adj",
			"wanted", adj, "used", t.oomFloor)
	})
	return t.oomFloor
}
