package qos

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stat is what a cgroup and all below it use, as the kernel counts it.
type Stat struct {
	CPU    CPUStat
	Memory MemoryStat
	// Tasks are processes and threads.
	Tasks uint64
	// Pressure is by resource: cpu, memory and io. It needs cgroup v2.
	Pressure map[string]Pressure
}

// CPUStat is CPU time.
type CPUStat struct {
	Nanoseconds uint64
	// Periods in which a quota was in force, those in which it ran out, and for how
	// long tasks had to wait then.
	Periods, ThrottledPeriods, ThrottledNanoseconds uint64
}

// MemoryStat is memory in bytes. Limits of 0 are none.
type MemoryStat struct {
	Usage, WorkingSet, RSS, Cache, Limit uint64
	Swap, SwapLimit                      uint64
	PageFaults, MajorPageFaults          uint64
}

// Pressure is for how long some tasks, or all, had to wait.
type Pressure struct{ Some, Full Waiting }

// Waiting is in percent of the last seconds, and in nanoseconds since ever.
type Waiting struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// noLimit is less than what v1 shows where there is no limit.
const noLimit = 1 << 62

// Kubepods is the path of the cgroup that all pods are below.
func (t *Tree) Kubepods() (string, error) { return t.path(t.level()) }

// Stat reads a cgroup, given by its path. One that is not there is an
// fs.ErrNotExist.
func (t *Tree) Stat(cgroup string) (Stat, error) { return t.fs.stat(cgroup) }

func (h *hierarchy) stat(cgroup string) (Stat, error) {
	s := Stat{Tasks: h.number(cgroup, "pids", "pids.current")}
	cpu := h.fields(cgroup, "cpu", "cpu.stat")
	memory := h.fields(cgroup, "memory", "memory.stat")
	s.CPU.Periods, s.CPU.ThrottledPeriods = cpu["nr_periods"], cpu["nr_throttled"]
	m := &s.Memory
	if h.version == 2 {
		s.CPU.Nanoseconds, s.CPU.ThrottledNanoseconds = cpu["usage_usec"]*1000, cpu["throttled_usec"]*1000
		m.Usage, m.Limit = h.number(cgroup, "memory", "memory.current"), h.number(cgroup, "memory", "memory.max")
		m.RSS, m.Cache = memory["anon"], memory["file"]
		m.PageFaults, m.MajorPageFaults = memory["pgfault"], memory["pgmajfault"]
		m.Swap, m.SwapLimit = h.number(cgroup, "memory", "memory.swap.current"), h.number(cgroup, "memory", "memory.swap.max")
		m.WorkingSet = m.Usage - min(m.Usage, memory["inactive_file"])
		s.Pressure = h.pressures(cgroup)
	} else {
		s.CPU.Nanoseconds, s.CPU.ThrottledNanoseconds = h.number(cgroup, "cpuacct", "cpuacct.usage"), cpu["throttled_time"]
		m.Usage, m.Limit = h.number(cgroup, "memory", "memory.usage_in_bytes"), h.number(cgroup, "memory", "memory.limit_in_bytes")
		m.RSS, m.Cache = memory["total_rss"], memory["total_cache"]
		m.PageFaults, m.MajorPageFaults = memory["total_pgfault"], memory["total_pgmajfault"]
		m.Swap = memory["total_swap"] // there only if swap is accounted for
		if both := h.number(cgroup, "memory", "memory.memsw.limit_in_bytes"); both < noLimit && both > m.Limit {
			m.SwapLimit = both - m.Limit
		}
		m.WorkingSet = m.Usage - min(m.Usage, memory["total_inactive_file"])
	}
	if m.Limit >= noLimit {
		m.Limit = 0
	}
	if len(memory) == 0 {
		if _, err := os.Stat(filepath.Join(h.mount("memory"), cgroup)); err != nil {
			return Stat{}, fmt.Errorf("read cgroup %s: %w", cgroup, fs.ErrNotExist)
		}
	}
	return s, nil
}

func (h *hierarchy) pressures(cgroup string) map[string]Pressure {
	out := map[string]Pressure{}
	for _, r := range []string{"cpu", "memory", "io"} {
		if text, ok := h.value(cgroup, r, r+".pressure"); ok {
			out[r] = ParsePressure(text)
		}
	}
	return out
}

// ParsePressure reads lines such as "some avg10=0.00 avg60=0.00 avg300=0.00 total=0",
// total in microseconds.
func ParsePressure(text string) Pressure {
	var p Pressure
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		w := &p.Some
		if fields[0] == "full" {
			w = &p.Full
		}
		for _, f := range fields[1:] {
			name, value, _ := strings.Cut(f, "=")
			number, err := strconv.ParseFloat(value, 64)
			switch {
			case err != nil:
			case name == "avg10":
				w.Avg10 = number
			case name == "avg60":
				w.Avg60 = number
			case name == "avg300":
				w.Avg300 = number
			case name == "total":
				total, _ := strconv.ParseUint(value, 10, 64) // it is a number
				w.Total = total * 1000
			}
		}
	}
	return p
}
