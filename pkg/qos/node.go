package qos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// resourcePids is a node's process IDs; it is never part of a node's status.
const resourcePids corev1.ResourceName = "pid"

// NodeSettings say what of the machine pods may have.
type NodeSettings struct {
	// Capacity is what the node has of the machine, by resource, each a quantity or
	// a percentage. What is left out is all there is.
	Capacity map[corev1.ResourceName]string
	// SystemReserved and KubeReserved are set aside: cpu, memory,
	// ephemeral-storage and pid.
	SystemReserved, KubeReserved corev1.ResourceList
	// EvictionHard maps a signal such as memory.available to a quantity or a percentage.
	EvictionHard map[string]string
	// EnforceNodeAllocatable names what is limited: pods, and with -compressible at
	// the end for CPU only, system-reserved and kube-reserved.
	EnforceNodeAllocatable []string
	// SystemReservedCgroup and KubeReservedCgroup are those that are limited then.
	SystemReservedCgroup, KubeReservedCgroup string
	// ReservedCPUs is a CPU list; their number replaces what is reserved of cpu.
	ReservedCPUs string
	// MaxPods, and PodsPerCore unless it is 0, limit the number of pods.
	MaxPods, PodsPerCore int64
	// RootDir is on the file system that pods' ephemeral-storage is taken from.
	RootDir string
}

func (s *NodeSettings) enforces(what string) bool {
	return slices.Contains(s.EnforceNodeAllocatable, what)
}

// reserveCPUs turns a list of reserved CPUs into a quantity.
func (s *NodeSettings) reserveCPUs() error {
	if s.ReservedCPUs == "" {
		return nil
	}
	cpus, err := parseCPUs(s.ReservedCPUs)
	if err != nil {
		return fmt.Errorf("reservedSystemCPUs: %w", err)
	}
	system, kube := s.SystemReserved.DeepCopy(), s.KubeReserved.DeepCopy()
	delete(kube, corev1.ResourceCPU)
	if system == nil {
		system = corev1.ResourceList{}
	}
	system[corev1.ResourceCPU] = *resource.NewQuantity(int64(len(cpus)), resource.DecimalSI)
	s.SystemReserved, s.KubeReserved = system, kube
	return nil
}

// readCapacity reads what the machine has.
func (c *Config) readCapacity() (corev1.ResourceList, error) {
	cpus, err := onlineCPUs(c.SysRoot)
	if err != nil {
		return nil, err
	}
	memory, err := meminfo(c.ProcRoot, "MemTotal")
	if err != nil {
		return nil, err
	}
	pids, err := maxPIDs(c.ProcRoot)
	if err != nil {
		return nil, err
	}
	pods := c.Node.MaxPods
	if c.Node.PodsPerCore > 0 {
		pods = min(pods, c.Node.PodsPerCore*int64(len(cpus)))
	}
	out := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(len(cpus)), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memory, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(pods, resource.DecimalSI),
		resourcePids:          *resource.NewQuantity(pids, resource.DecimalSI),
	}
	storage, err := fileSystemSize(c.Node.RootDir)
	if err != nil {
		return nil, err
	}
	if storage > 0 {
		out[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(storage, resource.BinarySI)
	}
	dirs, err := filepath.Glob(filepath.Join(c.SysRoot, "kernel/mm/hugepages/hugepages-*kB"))
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("huge page size of %s: %w", dir, err)
		}
		n, err := readInt(filepath.Join(dir, "nr_hugepages"))
		if err != nil {
			return nil, err
		}
		size := resource.NewQuantity(kb*1024, resource.BinarySI)
		out[corev1.ResourceName(corev1.ResourceHugePagesPrefix+size.String())] = *resource.NewQuantity(n*kb*1024, resource.BinarySI)
	}
	return out, c.Node.share(out)
}

// share cuts what the machine has down to what the node has of it.
func (s *NodeSettings) share(machine corev1.ResourceList) error {
	for r, part := range s.Capacity {
		whole, listed := machine[r]
		if !listed {
			continue // ephemeral-storage, where its size cannot be told
		}
		own, err := partOf(part, whole)
		if err != nil {
			return fmt.Errorf("capacity %s: %w", r, err)
		}
		if own.Cmp(whole) > 0 {
			return fmt.Errorf("capacity %s is %s, and this machine has %s: lower it", r, part, whole.String())
		}
		machine[r] = own
	}
	return nil
}

// partOf reads a quantity, or a percentage of whole.
func partOf(s string, whole resource.Quantity) (resource.Quantity, error) {
	percent, isPercent := strings.CutSuffix(s, "%")
	if !isPercent {
		return resource.ParseQuantity(s)
	}
	f, err := strconv.ParseFloat(percent, 64)
	if err != nil {
		return resource.Quantity{}, fmt.Errorf("%q is not a percentage", s)
	}
	if whole.Format == resource.BinarySI { // bytes
		return *resource.NewQuantity(int64(float64(whole.Value())*f/100), whole.Format), nil
	}
	return *resource.NewMilliQuantity(int64(float64(whole.MilliValue())*f/100), whole.Format), nil
}

// absoluteOf is capacity less what is reserved: what kubepods may use.
func (s *NodeSettings) absoluteOf(capacity corev1.ResourceList) (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	for r, have := range capacity {
		left := have.DeepCopy()
		for _, reserved := range []corev1.ResourceList{s.SystemReserved, s.KubeReserved} {
			if q, set := reserved[r]; set {
				left.Sub(q)
			}
		}
		if left.Sign() < 0 {
			return nil, fmt.Errorf("systemReserved and kubeReserved set aside more %s than this machine has (%s): lower them", r, have.String())
		}
		out[r] = left
	}
	return out, nil
}

// allocatableOf is what the node offers to pods: absolute less the reserve of
// hard eviction, and memory less all huge pages.
func (s *NodeSettings) allocatableOf(capacity, absolute corev1.ResourceList) (corev1.ResourceList, error) {
	out := corev1.ResourceList{}
	for r, q := range absolute {
		if r != resourcePids {
			out[r] = q.DeepCopy()
		}
	}
	for signal, r := range map[string]corev1.ResourceName{
		"memory.available": corev1.ResourceMemory, "nodefs.available": corev1.ResourceEphemeralStorage,
	} {
		threshold, set := s.EvictionHard[signal]
		left, listed := out[r]
		if !set || !listed {
			continue
		}
		whole := capacity[r]
		reserve, err := thresholdOf(threshold, whole.Value())
		if err != nil {
			return nil, fmt.Errorf("evictionHard %s: %w", signal, err)
		}
		left.Sub(*resource.NewQuantity(reserve, resource.BinarySI))
		out[r] = left
	}
	memory := out[corev1.ResourceMemory]
	for r, q := range capacity {
		if strings.HasPrefix(string(r), corev1.ResourceHugePagesPrefix) {
			memory.Sub(q)
		}
	}
	out[corev1.ResourceMemory] = memory
	for r, q := range out {
		if q.Sign() < 0 {
			out[r] = *resource.NewQuantity(0, resource.BinarySI)
		}
	}
	return out, nil
}

// thresholdOf reads a quantity, or a percentage of capacity.
func thresholdOf(s string, capacity int64) (int64, error) {
	if percent, isPercent := strings.CutSuffix(s, "%"); isPercent {
		f, err := strconv.ParseFloat(percent, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is not a percentage", s)
		}
		return int64(float64(capacity) * float64(float32(f)/100)), nil
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, err)
	}
	return q.Value(), nil
}

// fileSystemSize is the size of the file system that dir is on, or will be on
// once it is made. Without a dir it is 0.
func fileSystemSize(dir string) (int64, error) {
	for ; dir != ""; dir = filepath.Dir(dir) {
		var fs unix.Statfs_t
		switch err := unix.Statfs(dir, &fs); {
		case err == nil:
			return int64(fs.Blocks) * fs.Frsize, nil
		case !errors.Is(err, unix.ENOENT) || dir == "/":
			return 0, fmt.Errorf("size of the file system of %s: %w", dir, err)
		}
	}
	return 0, nil
}

// onlineCPUs lists the CPUs that are on.
func onlineCPUs(sysRoot string) ([]int, error) {
	data, err := os.ReadFile(filepath.Join(sysRoot, "devices/system/cpu/online"))
	if err != nil {
		return nil, fmt.Errorf("count CPUs: %w", err)
	}
	return parseCPUs(strings.TrimSpace(string(data)))
}

// mostCPUs is more than a kernel can be built for.
const mostCPUs = 1 << 16

// parseCPUs reads a CPU list such as 0-3,8.
func parseCPUs(list string) ([]int, error) {
	var out []int
	for part := range strings.SplitSeq(list, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(lo)
		if err != nil {
			return nil, fmt.Errorf("CPU list %q: %w", list, err)
		}
		last := first
		if isRange {
			if last, err = strconv.Atoi(hi); err != nil {
				return nil, fmt.Errorf("CPU list %q: %w", list, err)
			}
		}
		if first < 0 || last < first || last >= mostCPUs {
			return nil, fmt.Errorf("CPU list %q: %s is no range of CPUs", list, part)
		}
		for i := first; i <= last; i++ {
			out = append(out, i)
		}
	}
	return out, nil
}

// meminfo reads one field of /proc/meminfo in bytes; a missing field is 0.
func meminfo(procRoot, field string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(procRoot, "meminfo"))
	if err != nil {
		return 0, fmt.Errorf("read memory size: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, found := strings.CutPrefix(line, field+":"); found {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("meminfo field %s: %w", field, err)
			}
			return kb * 1024, nil
		}
	}
	return 0, nil
}

// maxPIDs is how many processes and threads the machine can have.
func maxPIDs(procRoot string) (int64, error) {
	pids, err := readInt(filepath.Join(procRoot, "sys/kernel/pid_max"))
	if err != nil {
		return 0, err
	}
	threads, err := readInt(filepath.Join(procRoot, "sys/kernel/threads-max"))
	if err != nil {
		return 0, err
	}
	return min(pids, threads), nil
}

func readInt(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}
