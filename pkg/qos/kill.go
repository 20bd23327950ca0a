package qos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// removeTimeout bounds how long processes may take to die, which the kernel
	// does not do before it has given back their memory.
	removeTimeout  = 15 * time.Second
	leastKillDelay = time.Millisecond
	mostKillDelay  = 200 * time.Millisecond
)

// processes lists every process in and below a cgroup.
func (h *hierarchy) processes(cgroup string) ([]int, error) {
	seen := map[int]bool{}
	for _, dir := range h.dirs(cgroup) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed meanwhile
			}
			if err != nil || !d.IsDir() {
				return err
			}
			data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				return ignoreGone(err)
			}
			for field := range strings.FieldsSeq(string(data)) {
				pid, err := strconv.Atoi(field)
				if err != nil {
					return fmt.Errorf("%s/cgroup.procs: %w", path, err)
				}
				seen[pid] = true
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var pids []int
	for pid := range seen {
		if pid > 0 { // 0 is a process of another PID namespace
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids, nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// kill ends every process in and below a cgroup, and waits until they are gone.
func (h *hierarchy) kill(ctx context.Context, cgroup string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	for delay := leastKillDelay; ; delay = min(2*delay, mostKillDelay) {
		pids, err := h.processes(cgroup)
		if err != nil {
			return fmt.Errorf("list processes of cgroup %s: %w", cgroup, err)
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("kill process %d of cgroup %s: %w", pid, cgroup, err)
			}
		}
		if err := h.thaw(cgroup); err != nil {
			return fmt.Errorf("thaw cgroup %s: %w", cgroup, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v of cgroup %s do not end: %w", pids, cgroup, ctx.Err())
		case <-time.After(delay):
		}
	}
}

// thaw lets frozen processes in and below a cgroup die. On v1 a frozen one does
// not, whatever it is sent, and a runc that is killed while it changes a cgroup
// through systemd leaves it frozen.
func (h *hierarchy) thaw(cgroup string) error {
	if h.version != 1 {
		return nil
	}
	for _, dir := range h.dirs(cgroup) {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "freezer.state" {
				return ignoreGone(err)
			}
			state, err := os.ReadFile(path)
			if err != nil || strings.TrimSpace(string(state)) == "THAWED" {
				return ignoreGone(err)
			}
			return ignoreGone(os.WriteFile(path, []byte("THAWED"), 0))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// remove kills what is in a cgroup and removes it with all below.
func (h *hierarchy) remove(ctx context.Context, cgroup string) error {
	ctx, cancel := context.WithTimeout(ctx, removeTimeout)
	defer cancel()
	for delay := leastKillDelay; ; delay = min(2*delay, mostKillDelay) {
		if err := h.kill(ctx, cgroup); err != nil {
			return err
		}
		err := h.rmdir(cgroup)
		if err == nil || !errors.Is(err, unix.EBUSY) { // busy as long as something dies or is born
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(delay):
		}
	}
}

// rmdir removes empty cgroups bottom-up.
func (h *hierarchy) rmdir(cgroup string) error {
	for _, dir := range h.dirs(cgroup) {
		var found []string
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				found = append(found, path)
			}
			return ignoreGone(err)
		})
		if err != nil {
			return err
		}
		for _, d := range slices.Backward(found) {
			if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("remove cgroup %s: %w", d, err)
			}
		}
	}
	return nil
}
