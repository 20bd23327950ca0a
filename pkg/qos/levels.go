package qos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// rootResources is what kubepods is set to, on a machine with these CPUs.
func (t *Tree) rootResources(cpus string) Resources {
	size := t.absolute
	if !t.cfg.Node.enforces("pods") {
		size = t.capacity
	}
	memory, pids := size.Memory().Value(), size[resourcePids]
	pidLimit := pids.Value()
	res := Resources{CPUShares: sharesOf(size.Cpu()), Memory: &memory, Pids: &pidLimit, Hugetlb: t.unlimited(), CPUSet: cpus}
	if !t.cfg.tiered() { // else the pods say what is protected
		res.MemoryMin, res.MemoryLow = new(int64), new(int64)
	}
	return res
}

// unlimited lets every size of huge pages through, as at the QoS levels.
func (t *Tree) unlimited() map[string]uint64 {
	out := map[string]uint64{}
	for _, s := range t.pageSizes {
		out[s] = unlimitedHugetlb
	}
	return out
}

// onlineCPUs lists the machine's CPUs as the kernel writes them.
func (t *Tree) onlineCPUs() (string, error) {
	data, err := os.ReadFile(filepath.Join(t.cfg.SysRoot, "devices/system/cpu/online"))
	if err != nil {
		return "", fmt.Errorf("list CPUs: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// EnsureRoot makes and sizes kubepods, burstable and besteffort, and what is
// reserved for others. A kubepods that somebody else uses is an error.
func (t *Tree) EnsureRoot(ctx context.Context) error {
	cpus, err := t.onlineCPUs()
	if err != nil {
		return err
	}
	dir, err := t.path(t.level())
	if err != nil {
		return err
	}
	if err := t.fs.foreign(dir); err != nil {
		return err
	}
	if err := t.scoreSelf(); err != nil {
		return err
	}
	if err := t.ensureOwnRoot(ctx, cpus); err != nil {
		return err
	}
	root := t.rootResources(cpus)
	if err := t.apply(ctx, t.level(), &root, true); err != nil {
		return err
	}
	t.fs.claim(dir)
	if err := t.ensureTiers(ctx); err != nil {
		return err
	}
	if t.version == 2 {
		_, err := os.Stat(filepath.Join(t.fs.root, dir, "memory.swap.max"))
		t.v2Swap = err == nil
	}
	return t.enforceReserved(ctx, cpus)
}

// ensureOwnRoot makes what kubepods lies in, where that is ours, and limits it to
// the node's capacity: whatever is in it, the rest of the machine has the rest.
func (t *Tree) ensureOwnRoot(ctx context.Context, cpus string) error {
	if !t.cfg.OwnRoot || len(t.root) == 0 {
		return nil
	}
	memory := t.capacity.Memory().Value()
	res := Resources{CPUShares: sharesOf(t.capacity.Cpu()), Memory: &memory, Hugetlb: t.unlimited(), CPUSet: cpus}
	return t.apply(ctx, t.root, &res, true)
}

// ensureTiers makes burstable and besteffort. A burstable that is there keeps its
// weight until the pods of this agent are known.
func (t *Tree) ensureTiers(ctx context.Context) error {
	tiers := Resources{CPUShares: minShares, Hugetlb: t.unlimited()}
	if err := t.apply(ctx, t.level("besteffort"), &tiers, true); err != nil {
		return err
	}
	rest := Resources{Hugetlb: t.unlimited()}
	if !t.cfg.tiered() {
		tiers.MemoryLow, rest.MemoryLow = new(int64), new(int64)
	}
	if err := t.apply(ctx, t.level("burstable"), &tiers, false); err != nil {
		return err
	}
	return t.set(ctx, t.level("burstable"), &rest)
}

// enforceReserved limits the cgroups of the system and of node agents to what is
// reserved for them, where the configuration asks for it. It never makes them.
func (t *Tree) enforceReserved(ctx context.Context, cpus string) error {
	s := &t.cfg.Node
	for _, r := range []struct {
		kind, cgroup string
		list         corev1.ResourceList
	}{
		{"system-reserved", s.SystemReservedCgroup, s.SystemReserved}, {"kube-reserved", s.KubeReservedCgroup, s.KubeReserved},
	} {
		compressible := s.enforces(r.kind + "-compressible")
		if !compressible && !s.enforces(r.kind) {
			continue
		}
		n := parseName(r.cgroup, t.units != nil)
		dir, err := t.path(n)
		if err != nil {
			return fmt.Errorf("%s cgroup %s: %w", r.kind, r.cgroup, err)
		}
		if !t.fs.exists(dir) {
			return fmt.Errorf("%s cgroup %s does not exist with every controller: create it first (with systemd, start its slice), or leave %s out of enforceNodeAllocatable", r.kind, dir, r.kind)
		}
		res := t.reservedResources(r.list, compressible, cpus)
		if err := t.set(ctx, n, &res); err != nil {
			return fmt.Errorf("enforce %s: %w", r.kind, err)
		}
	}
	return nil
}

// reservedResources is what a cgroup is limited to that a list is reserved for.
// Huge pages cannot be reserved.
func (t *Tree) reservedResources(list corev1.ResourceList, compressible bool, cpus string) Resources {
	res := Resources{CPUSet: cpus}
	if q, set := list[corev1.ResourceCPU]; set {
		res.CPUShares = sharesOf(&q)
	}
	if compressible {
		return res
	}
	if q, set := list[corev1.ResourceMemory]; set {
		res.Memory = new(q.Value())
		if !t.cfg.NoMemoryQoS {
			res.MemoryMin = new(q.Value())
		}
	}
	if q, set := list[resourcePids]; set {
		res.Pids = new(q.Value())
	}
	return res
}

// levels is what changes with the running pods.
type levels struct{ burstable, bestEffort, root Resources }

// levelsFor is what the QoS levels are set to while pods run.
func (t *Tree) levelsFor(pods []*corev1.Pod) levels {
	totals := totalsOf(pods)
	l := levels{
		burstable:  Resources{CPUShares: sharesOf(&totals.burstableCPU), Hugetlb: t.unlimited()},
		bestEffort: Resources{CPUShares: minShares, Hugetlb: t.unlimited()},
		root:       Resources{Hugetlb: t.unlimited()},
	}
	if t.cfg.tiered() {
		both := totals.guaranteedMemory + totals.burstableMemory
		l.burstable.MemoryLow = &totals.burstableMemory
		l.root.MemoryMin, l.root.MemoryLow = &both, &totals.burstableMemory
	}
	if percent := t.cfg.QOSReservedMemory; percent > 0 {
		burstable := t.absolute.Memory().Value() - totals.guaranteedMemory*percent/100
		bestEffort := burstable - totals.burstableMemory*percent/100
		l.burstable.Memory, l.bestEffort.Memory = &burstable, &bestEffort
	}
	return l
}

// ResizeTiers sets the QoS levels to what pods, the running ones, request. What
// is set already is not set again.
func (t *Tree) ResizeTiers(ctx context.Context, pods []*corev1.Pod) error {
	l := t.levelsFor(pods)
	var errs []error
	for _, level := range []struct {
		tier string
		res  *Resources
	}{{"", &l.root}, {"burstable", &l.burstable}, {"besteffort", &l.bestEffort}} {
		settings := level.res.settings(t.version, t.units != nil, t.pageSizes)
		t.mu.Lock()
		same := slices.EqualFunc(settings, t.tiers[level.tier], func(a, b Setting) bool { return a.File == b.File && a.Value == b.Value })
		t.mu.Unlock()
		if same {
			continue
		}
		if err := t.set(ctx, t.level(level.tier), level.res); err != nil {
			errs = append(errs, err)
			continue
		}
		t.mu.Lock()
		t.tiers[level.tier] = settings
		t.mu.Unlock()
	}
	return errors.Join(errs...)
}
