package stats

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nodeagent/nodeagent/pkg/qos"
)

// Node is what the whole machine uses.
type Node struct {
	Boot     time.Time
	Stat     qos.Stat
	Total    uint64 // memory in bytes
	MaxPID   int64
	Tasks    int64
	Networks []Network
}

// Network is one interface with what went through it.
type Network struct {
	Name                               string
	RxBytes, RxPackets, RxErrs, RxDrop uint64
	TxBytes, TxPackets, TxErrs, TxDrop uint64
}

// readNode reads the machine as a whole. The root cgroup has no memory counters on
// v2; those of the kernel for the machine are in proc.
func readNode(proc string, cgroup func(string) (qos.Stat, error)) Node {
	var n Node
	root, _ := cgroup("/") // what is missing stays 0
	n.Stat.CPU = root.CPU
	memory := keyed(filepath.Join(proc, "meminfo"))
	vm := keyed(filepath.Join(proc, "vmstat"))
	const kib = 1024
	n.Total = memory["MemTotal"] * kib
	m := &n.Stat.Memory
	m.Usage = (memory["MemTotal"] - min(memory["MemTotal"], memory["MemFree"])) * kib
	m.WorkingSet = m.Usage - min(m.Usage, memory["Inactive(file)"]*kib)
	m.RSS, m.Cache = memory["AnonPages"]*kib, memory["Cached"]*kib
	m.Swap, m.SwapLimit = (memory["SwapTotal"]-min(memory["SwapTotal"], memory["SwapFree"]))*kib, memory["SwapTotal"]*kib
	m.PageFaults, m.MajorPageFaults = vm["pgfault"], vm["pgmajfault"]
	if n.Stat.CPU.Nanoseconds == 0 {
		n.Stat.CPU.Nanoseconds = busyTime(filepath.Join(proc, "stat"))
	}
	n.Stat.Pressure = map[string]qos.Pressure{}
	for _, r := range []string{"cpu", "memory", "io"} {
		if data, err := os.ReadFile(filepath.Join(proc, "pressure", r)); err == nil {
			n.Stat.Pressure[r] = qos.ParsePressure(string(data))
		}
	}
	n.Boot = time.Unix(int64(keyed(filepath.Join(proc, "stat"))["btime"]), 0) //nolint:gosec // seconds of this age
	n.MaxPID = number(filepath.Join(proc, "sys/kernel/pid_max"))
	if fields := strings.Fields(text(filepath.Join(proc, "loadavg"))); len(fields) > 3 {
		_, all, _ := strings.Cut(fields[3], "/")
		n.Tasks, _ = strconv.ParseInt(all, 10, 64) // 0 when it is none
	}
	n.Networks = readNetworks(filepath.Join(proc, "net/dev"))
	return n
}

// keyed reads lines that begin with a name and a number.
func keyed(path string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(text(path)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
			out[strings.TrimSuffix(fields[0], ":")] = n
		}
	}
	return out
}

// userHZ is the unit of times in /proc/stat on every architecture that Go knows.
const userHZ = 100

// busyTime sums up what all CPUs did but idle and wait, in nanoseconds.
func busyTime(path string) uint64 {
	line, _, _ := strings.Cut(text(path), "\n")
	var ticks uint64
	for i, f := range strings.Fields(line) {
		if n, err := strconv.ParseUint(f, 10, 64); err == nil && i != 4 && i != 5 && i < 9 { // idle, iowait; guests are in user
			ticks += n
		}
	}
	return ticks * uint64(time.Second) / userHZ
}

// readNetworks reads /proc/net/dev; loopback is nobody's traffic.
func readNetworks(path string) []Network {
	f, err := os.Open(path)
	if err != nil {
		return nil // its process is gone
	}
	defer f.Close()
	var out []Network
	for s := bufio.NewScanner(f); s.Scan(); {
		name, rest, found := strings.Cut(s.Text(), ":")
		name = strings.TrimSpace(name)
		fields := strings.Fields(rest)
		if !found || name == "lo" || len(fields) < 16 {
			continue
		}
		n := Network{Name: name}
		for i, to := range map[int]*uint64{
			0: &n.RxBytes, 1: &n.RxPackets, 2: &n.RxErrs, 3: &n.RxDrop, 8: &n.TxBytes, 9: &n.TxPackets, 10: &n.TxErrs, 11: &n.TxDrop,
		} {
			*to, _ = strconv.ParseUint(fields[i], 10, 64) // the kernel writes numbers
		}
		out = append(out, n)
	}
	return out
}

func text(path string) string {
	data, _ := os.ReadFile(path) // what cannot be read says nothing
	return string(data)
}

func number(path string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(text(path)), 10, 64) // 0 when it is none
	return n
}
