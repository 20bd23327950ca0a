package cri

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// killed is the exit code of a process that SIGKILL ended.
const killed = 128 + int(unix.SIGKILL)

// oomKilled asks whether the kernel killed a process of the container for want of
// memory. The container's own cgroup knows, and the shim keeps it until the task
// is deleted; but systemd removes a scope as soon as it is empty. On v2 the pod's
// cgroup has counted the kill as well, and outlives the container.
func (r *Runtime) oomKilled(p *podState, c *containerState, code uint32) bool {
	dir := CgroupDir(r.get(c).CgroupPath)
	own, alive := r.oomKills(dir)
	all, ok := r.oomKills(filepath.Dir(dir))
	if !r.cfg.CgroupV2 || !ok {
		return own > 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	more := all > p.oomKills
	p.oomKills = all
	if alive {
		return own > 0
	}
	return more && int(code) == killed
}

// countOOM takes the kills so far in the pod's cgroup as accounted for, unless
// another container of the pod runs: it may be among them.
func (r *Runtime) countOOM(p *podState, c *containerState) {
	if !r.cfg.CgroupV2 || !r.cfg.SystemdCgroup {
		return // the container's own cgroup is there to ask
	}
	n, ok := r.oomKills(filepath.Dir(CgroupDir(r.get(c).CgroupPath)))
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range p.containers {
		if other != c && other.State == Running {
			return
		}
	}
	if ok {
		p.oomKills = n
	}
}

// oomKills is how many processes of a cgroup the kernel has killed, on v2 with
// those of the cgroups below. It is false if the cgroup is not there.
func (r *Runtime) oomKills(dir string) (int, bool) {
	path := filepath.Join("/sys/fs/cgroup/memory", dir, "memory.oom_control")
	if r.cfg.CgroupV2 {
		path = filepath.Join("/sys/fs/cgroup", dir, "memory.events")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if n, found := strings.CutPrefix(line, "oom_kill "); found {
			count, err := strconv.Atoi(strings.TrimSpace(n))
			return count, err == nil
		}
	}
	return 0, false
}
