package qos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Group is one cgroup as it is now: what it is set to, what it uses, and who is
// inside.
type Group struct {
	Path string `json:"path"`
	// Settings are the files that limit it, by name.
	Settings map[string]string `json:"settings"`
	Usage    Usage             `json:"usage"`
	// Processes are those in this very cgroup, not below it.
	Processes []int   `json:"processes,omitempty"`
	Children  []Group `json:"children,omitempty"`
}

// Usage is what a cgroup and all below it have used.
type Usage struct {
	CPUNanoseconds uint64 `json:"cpuNanoseconds"`
	// Periods in which a quota was in force, those in which it ran out, and for how
	// long processes had to wait then.
	Periods              uint64 `json:"nrPeriods"`
	ThrottledPeriods     uint64 `json:"nrThrottled"`
	ThrottledNanoseconds uint64 `json:"throttledNanoseconds"`
	MemoryBytes          uint64 `json:"memoryBytes"`
	// WorkingSetBytes is memory that cannot be given back at once.
	WorkingSetBytes uint64 `json:"workingSetBytes"`
	OOMKills        uint64 `json:"oomKills"`
	PIDs            uint64 `json:"pids"`
	// Pressure is the share of the last ten seconds, in percent, in which some
	// process waited for cpu, memory or io. It needs cgroup v2.
	Pressure map[string]float64 `json:"pressure,omitempty"`
}

// Snapshot reads the hierarchy from kubepods down.
func (t *Tree) Snapshot(_ context.Context) (Group, error) {
	dir, err := t.path(t.level())
	if err != nil {
		return Group{}, err
	}
	return t.fs.read(dir)
}

// Processes lists every process in and below a cgroup, given by its path.
func (t *Tree) Processes(cgroup string) ([]int, error) { return t.fs.processes(cgroup) }

// read describes a cgroup with all below it. One that vanishes meanwhile is empty.
func (h *hierarchy) read(cgroup string) (Group, error) {
	g := Group{Path: cgroup, Settings: map[string]string{}}
	for _, s := range h.settingFiles() {
		if v, ok := h.value(cgroup, s[0], s[1]); ok {
			g.Settings[s[1]] = v
		}
	}
	g.Usage = h.usage(cgroup)
	dir := filepath.Join(h.mount("memory"), cgroup)
	if procs, ok := h.value(cgroup, "memory", "cgroup.procs"); ok {
		for f := range strings.FieldsSeq(procs) {
			if pid, err := strconv.Atoi(f); err == nil {
				g.Processes = append(g.Processes, pid)
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return g, fmt.Errorf("read cgroup %s: %w", cgroup, err)
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		child, err := h.read(path.Join(cgroup, e.Name()))
		if err != nil {
			return g, err
		}
		g.Children = append(g.Children, child)
	}
	slices.SortFunc(g.Children, func(a, b Group) int { return strings.Compare(a.Path, b.Path) })
	return g, nil
}

// mount is where a controller is mounted.
func (h *hierarchy) mount(controller string) string {
	if h.version == 2 {
		return h.root
	}
	return h.mounts[controller]
}

// settingFiles are the files that limit a cgroup: controller and name.
func (h *hierarchy) settingFiles() [][2]string {
	if h.version == 2 {
		return [][2]string{
			{"cpu", "cpu.weight"}, {"cpu", "cpu.max"}, {"cpuset", "cpuset.cpus"}, {"pids", "pids.max"}, {"memory", "memory.max"}, {"memory", "memory.high"},
			{"memory", "memory.low"}, {"memory", "memory.min"}, {"memory", "memory.swap.max"}, {"memory", "memory.oom.group"},
		}
	}
	return [][2]string{
		{"cpu", "cpu.shares"}, {"cpu", "cpu.cfs_quota_us"}, {"cpu", "cpu.cfs_period_us"}, {"cpuset", "cpuset.cpus"}, {"pids", "pids.max"},
		{"memory", "memory.limit_in_bytes"},
	}
}

func (h *hierarchy) value(cgroup, controller, file string) (string, bool) {
	data, err := os.ReadFile(filepath.Join(h.mount(controller), cgroup, file))
	return strings.TrimSpace(string(data)), err == nil
}

func (h *hierarchy) number(cgroup, controller, file string) uint64 {
	v, _ := h.value(cgroup, controller, file)
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0 // not there, or without a value
	}
	return n
}

// fields reads a file of "name value" lines.
func (h *hierarchy) fields(cgroup, controller, file string) map[string]uint64 {
	v, _ := h.value(cgroup, controller, file)
	out := map[string]uint64{}
	for line := range strings.Lines(v) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), " "); found {
			if n, err := strconv.ParseUint(value, 10, 64); err == nil {
				out[name] = n
			}
		}
	}
	return out
}

func (h *hierarchy) usage(cgroup string) Usage {
	var u Usage
	u.PIDs = h.number(cgroup, "pids", "pids.current")
	stat := h.fields(cgroup, "cpu", "cpu.stat")
	u.Periods, u.ThrottledPeriods = stat["nr_periods"], stat["nr_throttled"]
	memory := h.fields(cgroup, "memory", "memory.stat")
	inactive := memory["inactive_file"]
	if h.version == 2 {
		u.CPUNanoseconds, u.ThrottledNanoseconds = stat["usage_usec"]*1000, stat["throttled_usec"]*1000
		u.MemoryBytes = h.number(cgroup, "memory", "memory.current")
		u.OOMKills = h.fields(cgroup, "memory", "memory.events")["oom_kill"]
		u.Pressure = h.pressure(cgroup)
	} else {
		u.CPUNanoseconds, u.ThrottledNanoseconds = h.number(cgroup, "cpuacct", "cpuacct.usage"), stat["throttled_time"]
		u.MemoryBytes = h.number(cgroup, "memory", "memory.usage_in_bytes")
		u.OOMKills = h.fields(cgroup, "memory", "memory.oom_control")["oom_kill"]
		inactive = memory["total_inactive_file"]
	}
	if u.MemoryBytes > inactive {
		u.WorkingSetBytes = u.MemoryBytes - inactive
	}
	return u
}

func (h *hierarchy) pressure(cgroup string) map[string]float64 {
	out := map[string]float64{}
	for _, r := range []string{"cpu", "memory", "io"} {
		v, ok := h.value(cgroup, r, r+".pressure")
		if !ok {
			continue
		}
		var avg float64
		if _, err := fmt.Sscanf(v, "some avg10=%f", &avg); err == nil {
			out[r] = avg
		}
	}
	return out
}
