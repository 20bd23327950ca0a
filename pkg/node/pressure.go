package node

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal is how much there is of something that can run out.
type Signal struct {
	Available, Capacity int64
}

// Signals are all of them, by the names that thresholds have.
type Signals map[string]Signal

// conditionOf is what it is called when a signal falls below its threshold.
func conditionOf(signal string) corev1.NodeConditionType {
	switch signal {
	case "memory.available", "allocatableMemory.available":
		return corev1.NodeMemoryPressure
	case "pid.available":
		return corev1.NodePIDPressure
	default:
		return corev1.NodeDiskPressure
	}
}

// Below lists the signals that are below their threshold, which is a quantity or
// a percentage of the capacity. A signal that is not known is not below.
func Below(thresholds map[string]string, have Signals) ([]string, error) {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(thresholds)) {
		s, known := have[name]
		least, err := threshold(thresholds[name], s.Capacity)
		if err != nil {
			return nil, fmt.Errorf("threshold of %s: %w", name, err)
		}
		if known && s.Available < least {
			out = append(out, name)
		}
	}
	return out, nil
}

// threshold is the least that must be available. As with the kubelet, 0% and
// 100% turn it off.
func threshold(text string, capacity int64) (int64, error) {
	number, isPercent := strings.CutSuffix(text, "%")
	if !isPercent {
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return 0, fmt.Errorf("%q: %w", text, err)
		}
		return q.Value(), nil
	}
	f, err := strconv.ParseFloat(number, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a percentage", text)
	}
	if f >= 100 {
		return 0, nil
	}
	return int64(float64(capacity) * float64(float32(f)/100)), nil
}

// Strain remembers pressure for a while after it has gone, so that a node on the
// edge does not change its mind all the time. Its zero value has seen none.
type Strain struct {
	seen map[corev1.NodeConditionType]time.Time
}

// Observe takes the signals that are below their thresholds now, and says which
// pressures the node is under.
func (s *Strain) Observe(below []string, now time.Time, transition time.Duration) map[corev1.NodeConditionType]bool {
	if s.seen == nil {
		s.seen = map[corev1.NodeConditionType]time.Time{}
	}
	for _, signal := range below {
		s.seen[conditionOf(signal)] = now
	}
	out := map[corev1.NodeConditionType]bool{}
	for condition, at := range s.seen {
		if now.Sub(at) >= transition && !at.Equal(now) {
			delete(s.seen, condition)
			continue
		}
		out[condition] = true
	}
	return out
}

// ReadSignals measures the machine: its memory, its process IDs, and the file
// systems of the directories, by the first part of their signals' names.
func ReadSignals(procRoot string, dirs map[string]string) (Signals, error) {
	memory, err := readMeminfo(procRoot)
	if err != nil {
		return nil, err
	}
	out := Signals{
		// All memory but the working set, which is what is used less the file pages
		// that can be given back at once. Huge pages that are reserved count as used.
		"memory.available": {Available: memory["MemFree"] + memory["Inactive(file)"], Capacity: memory["MemTotal"]},
	}
	if out["pid.available"], err = pidSignal(procRoot); err != nil {
		return nil, err
	}
	for name, dir := range dirs {
		var s unix.Statfs_t
		if err := unix.Statfs(dir, &s); err != nil {
			return nil, fmt.Errorf("file system of %s: %w", dir, err)
		}
		out[name+".available"] = Signal{Available: int64(s.Bavail) * s.Frsize, Capacity: int64(s.Blocks) * s.Frsize}
		if s.Files > 0 { // some file systems do not count inodes
			out[name+".inodesFree"] = Signal{Available: int64(s.Ffree), Capacity: int64(s.Files)}
		}
	}
	return out, nil
}

func pidSignal(procRoot string) (Signal, error) {
	most := int64(0)
	for _, file := range []string{"sys/kernel/pid_max", "sys/kernel/threads-max"} {
		n, err := strconv.ParseInt(firstLine(filepath.Join(procRoot, file)), 10, 64)
		if err != nil {
			return Signal{}, fmt.Errorf("read %s: %w", file, err)
		}
		if most == 0 || n < most {
			most = n
		}
	}
	load := strings.Fields(firstLine(filepath.Join(procRoot, "loadavg")))
	if len(load) < 4 {
		return Signal{}, fmt.Errorf("read loadavg: want at least four fields, have %d", len(load))
	}
	_, tasks, _ := strings.Cut(load[3], "/")
	n, err := strconv.ParseInt(tasks, 10, 64)
	if err != nil {
		return Signal{}, fmt.Errorf("read loadavg: %w", err)
	}
	return Signal{Available: most - n, Capacity: most}, nil
}

// readMeminfo reads /proc/meminfo, in bytes.
func readMeminfo(procRoot string) (map[string]int64, error) {
	data, err := os.ReadFile(filepath.Join(procRoot, "meminfo"))
	if err != nil {
		return nil, fmt.Errorf("read memory size: %w", err)
	}
	out := map[string]int64{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64); err == nil {
			out[name] = kb * 1024
		}
	}
	return out, nil
}
