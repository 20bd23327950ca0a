package qos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

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

// scoreSelf gives this process, and what it starts, the configured score.
func (t *Tree) scoreSelf() error {
	if t.cfg.OOMScoreAdj == nil {
		return nil
	}
	adj := *t.cfg.OOMScoreAdj
	err := os.WriteFile(filepath.Join(t.cfg.ProcRoot, "self/oom_score_adj"), []byte(strconv.Itoa(adj)), 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		t.clampOOM(adj)
		return nil
	}
	if err != nil {
		return fmt.Errorf("set the agent's own oom_score_adj: %w", err)
	}
	t.oomFloor, err = oomFloor(t.cfg.ProcRoot)
	return err
}

// clampOOM raises a score that could not be set, and says so once.
func (t *Tree) clampOOM(adj int) int {
	if adj >= t.oomFloor {
		return adj
	}
	t.warnOOM.Do(func() {
		t.cfg.Log.Warn("CAP_SYS_RESOURCE is missing: the agent, and containers that should be protected from the OOM killer, keep the oom_score_adj the agent was started with; give it that capability",
			"wanted", adj, "used", t.oomFloor)
	})
	return t.oomFloor
}
