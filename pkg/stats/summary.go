package stats

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/nodeagent/nodeagent/pkg/qos"
)

// Summary is the kubelet's summary; only CPU and memory if nothing else is asked
// for.
func (r *Reader) Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	s := r.sample(time.Now())
	r.forget(s)
	out := &statsapi.Summary{Node: r.node(s), Pods: []statsapi.PodStats{}}
	for i := range s.Pods {
		out.Pods = append(out.Pods, r.podStats(s, &s.Pods[i]))
	}
	if onlyCPUAndMemory {
		return out, nil
	}
	d := r.readDisks(ctx, s)
	r.addNode(s, d, &out.Node)
	for i := range s.Pods {
		r.addPod(s, d, &s.Pods[i], &out.Pods[i])
	}
	return out, ctx.Err()
}

func (r *Reader) node(s *Sample) statsapi.NodeStats {
	n := statsapi.NodeStats{NodeName: r.cfg.NodeName, StartTime: metav1.NewTime(s.Node.Boot)}
	n.CPU, n.Memory, n.Swap = r.cpuStats(s, nodeKey, &s.Node.Stat, s.Node.Boot), memoryStats(s, &s.Node.Stat), swapStats(s, &s.Node.Stat)
	n.Memory.AvailableBytes = new(s.Node.Total - min(s.Node.Total, s.Node.Stat.Memory.WorkingSet))
	for _, name := range slices.Sorted(maps.Keys(s.System)) {
		stat := s.System[name]
		n.SystemContainers = append(n.SystemContainers, statsapi.ContainerStats{
			Name: name, StartTime: metav1.NewTime(s.Node.Boot),
			CPU: r.cpuStats(s, name, &stat, s.Node.Boot), Memory: memoryStats(s, &stat), Swap: swapStats(s, &stat),
		})
	}
	return n
}

func (r *Reader) podStats(s *Sample, p *Pod) statsapi.PodStats {
	began := p.Pod.CreationTimestamp
	if p.Pod.Status.StartTime != nil {
		began = *p.Pod.Status.StartTime
	}
	out := statsapi.PodStats{
		PodRef:    statsapi.PodReference{Name: p.Pod.Name, Namespace: p.Pod.Namespace, UID: string(p.Pod.UID)},
		StartTime: began, CPU: r.cpuStats(s, p.Cgroup, &p.Stat, began.Time), Memory: memoryStats(s, &p.Stat), Swap: swapStats(s, &p.Stat),
	}
	for i := range p.Containers {
		c := &p.Containers[i]
		out.Containers = append(out.Containers, statsapi.ContainerStats{
			Name: c.Name, StartTime: metav1.NewTime(c.StartedAt),
			CPU: r.cpuStats(s, c.ID, &c.Stat, c.StartedAt), Memory: memoryStats(s, &c.Stat), Swap: swapStats(s, &c.Stat),
		})
	}
	return out
}

// addNode tells the rest of the node.
func (r *Reader) addNode(s *Sample, d *disks, n *statsapi.NodeStats) {
	n.IO = ioStats(s, &s.Node.Stat)
	n.Network = networkStats(s, s.Node.Networks)
	n.Fs = fileSystem(r.cfg.RootDir, s.Time)
	images := fileSystem(d.dir, s.Time)
	n.Runtime = &statsapi.RuntimeStats{ContainerFs: images, ImageFs: images}
	if images != nil {
		n.Runtime.ImageFs = share(images, d.images, *images.InodesUsed)
	}
	n.Rlimit = &statsapi.RlimitStats{Time: metav1.NewTime(s.Time), MaxPID: new(s.Node.MaxPID), NumOfRunningProcesses: new(s.Node.Tasks)}
}

// addPod tells the rest of a pod.
func (r *Reader) addPod(s *Sample, d *disks, p *Pod, out *statsapi.PodStats) {
	out.IO = ioStats(s, &p.Stat)
	if p.Sandbox != nil && !p.Sandbox.HostNetwork {
		out.Network = networkStats(s, r.networks(p))
	}
	if pids, err := r.cfg.Processes(p.Cgroup); err == nil { // it may have just ended
		out.ProcessStats = &statsapi.ProcessStats{ProcessCount: new(uint64(len(pids)))}
	}
	node, images := fileSystem(r.cfg.RootDir, s.Time), fileSystem(d.dir, s.Time)
	var bytes, inodes uint64
	for i := range p.Containers {
		c := &p.Containers[i]
		to := &out.Containers[i]
		layer := d.layers[c.ID]
		logBytes, logInodes := filesIn(logDir(&c.Container))
		to.IO = ioStats(s, &c.Stat)
		to.Rootfs, to.Logs = share(images, layer.Bytes, layer.Inodes), share(node, logBytes, logInodes)
		bytes, inodes = bytes+layer.Bytes+logBytes, inodes+layer.Inodes+logInodes
	}
	out.EphemeralStorage = share(node, bytes, inodes)
}

// networks are a pod's interfaces, seen by one of its processes.
func (r *Reader) networks(p *Pod) []Network {
	for _, c := range p.Containers {
		if n := readNetworks(filepath.Join(r.cfg.ProcRoot, fmt.Sprint(c.PID), "net/dev")); n != nil {
			return n
		}
	}
	return nil
}

func (r *Reader) cpuStats(s *Sample, key string, stat *qos.Stat, began time.Time) *statsapi.CPUStats {
	used := stat.CPU.Nanoseconds
	return &statsapi.CPUStats{
		Time: metav1.NewTime(s.Time), UsageCoreNanoSeconds: new(used),
		UsageNanoCores: r.rate(key, cpuAt{s.Time, used}, began), PSI: psiStats(stat, "cpu"),
	}
}

func memoryStats(s *Sample, stat *qos.Stat) *statsapi.MemoryStats {
	m := stat.Memory
	out := &statsapi.MemoryStats{
		Time: metav1.NewTime(s.Time), UsageBytes: new(m.Usage), WorkingSetBytes: new(m.WorkingSet), RSSBytes: new(m.RSS),
		PageFaults: new(m.PageFaults), MajorPageFaults: new(m.MajorPageFaults), PSI: psiStats(stat, "memory"),
	}
	if m.Limit > 0 {
		out.AvailableBytes = new(m.Limit - min(m.Limit, m.WorkingSet))
	}
	return out
}

func swapStats(s *Sample, stat *qos.Stat) *statsapi.SwapStats {
	m := stat.Memory
	return &statsapi.SwapStats{Time: metav1.NewTime(s.Time), SwapUsageBytes: new(m.Swap), SwapAvailableBytes: new(m.SwapLimit - min(m.SwapLimit, m.Swap))}
}

func ioStats(s *Sample, stat *qos.Stat) *statsapi.IOStats {
	psi := psiStats(stat, "io")
	if psi == nil {
		return nil
	}
	return &statsapi.IOStats{Time: metav1.NewTime(s.Time), PSI: psi}
}

func psiStats(stat *qos.Stat, resource string) *statsapi.PSIStats {
	p, ok := stat.Pressure[resource]
	if !ok {
		return nil
	}
	data := func(w qos.Waiting) statsapi.PSIData {
		return statsapi.PSIData{Total: w.Total, Avg10: w.Avg10, Avg60: w.Avg60, Avg300: w.Avg300}
	}
	return &statsapi.PSIStats{Full: data(p.Full), Some: data(p.Some)}
}

// networkStats names eth0, or the first there is, as the default interface.
func networkStats(s *Sample, networks []Network) *statsapi.NetworkStats {
	if len(networks) == 0 {
		return nil
	}
	out := &statsapi.NetworkStats{Time: metav1.NewTime(s.Time)}
	for _, n := range networks {
		out.Interfaces = append(out.Interfaces, statsapi.InterfaceStats{
			Name: n.Name, RxBytes: new(n.RxBytes), RxErrors: new(n.RxErrs), TxBytes: new(n.TxBytes), TxErrors: new(n.TxErrs),
		})
	}
	out.InterfaceStats = out.Interfaces[max(slices.IndexFunc(networks, func(n Network) bool { return n.Name == "eth0" }), 0)]
	return out
}
