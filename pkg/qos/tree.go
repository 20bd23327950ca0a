package qos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Config says how the hierarchy is kept. Its names are KubeletConfiguration's.
type Config struct {
	// Driver is systemd, cgroupfs, or empty for systemd where it is the running init.
	Driver string
	// CgroupFSRoot, ProcRoot and SysRoot are where those file systems are mounted.
	CgroupFSRoot, ProcRoot, SysRoot string
	// CgroupRoot is the cgroup that kubepods lies in, in cgroupfs form. Other than
	// "/" it must exist.
	CgroupRoot              string
	Node                    NodeSettings
	PodPidsLimit            int64
	CPUCFSQuota             bool
	CPUCFSQuotaPeriod       time.Duration
	MemoryThrottlingFactor  *float64
	MemoryReservationPolicy string
	SwapBehavior            string
	SingleProcessOOMKill    *bool
	Log                     *slog.Logger
}

// Tree is the hierarchy on this machine. Its methods are safe for concurrent use.
type Tree struct {
	cfg     Config
	fs      *hierarchy
	units   *units // nil with the cgroupfs driver
	version int
	root    name // components of CgroupRoot

	capacity, absolute, allocatable corev1.ResourceList
	swap                            int64 // bytes
	pageSizes                       []string
	v1Swap, v2Swap                  bool
	oomFloor                        int // the lowest oom_score_adj this process may set
	warnOOM                         sync.Once

	mu    sync.Mutex // guards all below
	pods  map[types.UID]PodCgroup
	tiers []Setting // what burstable was last set to
}

// New looks at the machine; it changes nothing. Its errors name what is missing
// and how to mend it.
func New(ctx context.Context, cfg Config) (*Tree, error) {
	h, err := openHierarchy(cfg.CgroupFSRoot)
	if err != nil {
		return nil, err
	}
	t := &Tree{cfg: cfg, fs: h, version: h.version, pods: map[types.UID]PodCgroup{}}
	switch cfg.Driver {
	case "cgroupfs":
	case "systemd", "":
		if systemdRunning() {
			t.units = &units{}
			if _, err := t.units.connection(ctx); err != nil {
				return nil, err
			}
		} else if cfg.Driver == "systemd" {
			return nil, errors.New("cgroupDriver is systemd, but systemd is not the running init (no /run/systemd/system): boot with systemd, or set cgroupDriver: cgroupfs")
		}
	default:
		return nil, fmt.Errorf("unknown cgroupDriver %q: use systemd, cgroupfs, or leave it out", cfg.Driver)
	}
	if root := strings.Trim(cfg.CgroupRoot, "/"); root != "" {
		t.root = strings.Split(root, "/")
		if dir, err := t.path(t.root); err != nil || !h.exists(dir) {
			return nil, fmt.Errorf("cgroupRoot %s does not exist under every controller: create it first, or leave cgroupRoot out", cfg.CgroupRoot)
		}
	}
	if cfg.SwapBehavior == "LimitedSwap" && t.version == 1 {
		return nil, errors.New("memorySwap.swapBehavior LimitedSwap needs cgroup v2: boot with it, or use NoSwap")
	}
	return t, t.look()
}

// look reads the machine's size.
func (t *Tree) look() error {
	var err error
	if t.capacity, err = t.cfg.readCapacity(); err != nil {
		return err
	}
	if t.absolute, err = t.cfg.Node.absoluteOf(t.capacity); err != nil {
		return err
	}
	if t.allocatable, err = t.cfg.Node.allocatableOf(t.capacity, t.absolute); err != nil {
		return err
	}
	if t.swap, err = meminfo(t.cfg.ProcRoot, "SwapTotal"); err != nil {
		return err
	}
	dirs, err := filepath.Glob(filepath.Join(t.cfg.SysRoot, "kernel/mm/hugepages/hugepages-*kB"))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		var kb int64
		if _, err := fmt.Sscanf(filepath.Base(d), "hugepages-%dkB", &kb); err != nil {
			return fmt.Errorf("huge page size of %s: %w", d, err)
		}
		t.pageSizes = append(t.pageSizes, pageSizeName(kb*1024))
	}
	if t.version == 1 {
		_, err := os.Stat(filepath.Join(t.fs.mounts["memory"], "memory.memsw.limit_in_bytes"))
		t.v1Swap = err == nil
	}
	t.oomFloor, err = oomFloor(t.cfg.ProcRoot)
	return err
}

// SystemdDriver says whether cgroups are made through systemd.
func (t *Tree) SystemdDriver() bool { return t.units != nil }

// Version is 1 or 2.
func (t *Tree) Version() int { return t.version }

// Capacity is what the machine has.
func (t *Tree) Capacity() corev1.ResourceList { return withoutPids(t.capacity) }

// Allocatable is what pods may request of the machine.
func (t *Tree) Allocatable() corev1.ResourceList { return withoutPids(t.allocatable) }

func withoutPids(list corev1.ResourceList) corev1.ResourceList {
	out := list.DeepCopy()
	delete(out, resourcePids)
	return out
}

// Close ends the connection to systemd. The hierarchy stays.
func (t *Tree) Close() {
	if t.units != nil {
		t.units.close()
	}
}

// path is where n lies below each cgroup mount.
func (t *Tree) path(n name) (string, error) {
	if t.units == nil {
		return n.cgroupfs(), nil
	}
	return expandSlice(n.slice())
}

func (t *Tree) level(components ...string) name {
	n := t.root
	for _, c := range append([]string{"kubepods"}, components...) {
		if c != "" {
			n = n.child(c)
		}
	}
	return n
}

// rootResources is what kubepods is set to, on a machine with these CPUs.
func (t *Tree) rootResources(cpus string) Resources {
	size := t.absolute
	if !t.cfg.Node.EnforceNodeAllocatable {
		size = t.capacity
	}
	memory, pids := size.Memory().Value(), size[resourcePids]
	pidLimit := pids.Value()
	var zero int64
	return Resources{
		CPUShares: sharesOf(size.Cpu()), Memory: &memory, Pids: &pidLimit, Hugetlb: t.unlimited(), CPUSet: cpus,
		MemoryMin: &zero, MemoryLow: &zero,
	}
}

// unlimited lets every size of huge pages through, as at the QoS levels.
func (t *Tree) unlimited() map[string]uint64 {
	out := map[string]uint64{}
	for _, s := range t.pageSizes {
		out[s] = unlimitedHugetlb
	}
	return out
}

// EnsureRoot makes and sizes kubepods, burstable and besteffort.
func (t *Tree) EnsureRoot(ctx context.Context) error {
	cpus, err := os.ReadFile(filepath.Join(t.cfg.SysRoot, "devices/system/cpu/online"))
	if err != nil {
		return fmt.Errorf("list CPUs: %w", err)
	}
	root := t.rootResources(strings.TrimSpace(string(cpus)))
	if err := t.apply(ctx, t.level(), &root, true); err != nil {
		return err
	}
	tiers := Resources{CPUShares: minShares, Hugetlb: t.unlimited()}
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		if err := t.apply(ctx, t.level(tier(class)), &tiers, class == corev1.PodQOSBestEffort); err != nil {
			return err
		}
	}
	dir, err := t.path(t.level())
	if err != nil {
		return err
	}
	if t.version == 2 {
		_, err := os.Stat(filepath.Join(t.fs.root, dir, "memory.swap.max"))
		t.v2Swap = err == nil
	}
	return nil
}

// apply makes a cgroup with its settings. One that is there is set again when
// again says so.
func (t *Tree) apply(ctx context.Context, n name, res *Resources, again bool) error {
	settings := res.settings(t.version, t.units != nil, t.pageSizes)
	dir, err := t.path(n)
	if err != nil {
		return err
	}
	if t.units == nil {
		if t.fs.exists(dir) && !again {
			return nil
		}
		if err := t.fs.create(dir); err != nil {
			return err
		}
		return t.fs.write(dir, files(settings, false))
	}
	existed, err := t.units.start(ctx, n.slice(), t.version, settings)
	if err != nil {
		return err
	}
	if existed && again {
		if err := t.units.set(ctx, n.slice(), settings); err != nil {
			return err
		}
	}
	// systemd makes a slice only under the controllers it manages itself.
	if err := t.fs.create(dir); err != nil {
		return err
	}
	return t.fs.write(dir, files(settings, true))
}

// EnsurePod makes the cgroup of a pod, with its limits.
func (t *Tree) EnsurePod(ctx context.Context, pod *corev1.Pod) (PodCgroup, error) {
	t.mu.Lock()
	known, ok := t.pods[pod.UID]
	t.mu.Unlock()
	if ok && t.fs.exists(known.Path) {
		return known, nil
	}
	if strings.ContainsAny(string(pod.UID), "/_") {
		return PodCgroup{}, fmt.Errorf("cgroup of pod %s/%s: its UID %q may not contain / or _", pod.Namespace, pod.Name, pod.UID)
	}
	n := t.podName(pod)
	res := t.cfg.podResources(pod)
	// Written again by a new agent: the old one may have died in between.
	if err := t.apply(ctx, n, &res, true); err != nil {
		return PodCgroup{}, fmt.Errorf("cgroup of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	cg, err := t.cgroup(n)
	if err != nil {
		return PodCgroup{}, err
	}
	t.mu.Lock()
	t.pods[pod.UID] = cg
	t.mu.Unlock()
	return cg, nil
}

func (t *Tree) podName(pod *corev1.Pod) name {
	return t.level(tier(ComputeClass(pod)), "pod"+string(pod.UID))
}

func (t *Tree) cgroup(n name) (PodCgroup, error) {
	dir, err := t.path(n)
	cg := PodCgroup{Path: dir}
	if t.units != nil {
		cg.Unit = n.slice()
	}
	return cg, err
}

// tierResources is what burstable is set to while pods run, and what changes at
// kubepods, if anything.
func (t *Tree) tierResources(pods []*corev1.Pod) (burstable Resources, root *Resources) {
	totals := totalsOf(pods)
	burstable = Resources{CPUShares: sharesOf(&totals.burstableCPU), Hugetlb: t.unlimited()}
	if t.cfg.tiered() && t.version == 2 {
		both := totals.guaranteedMemory + totals.burstableMemory
		burstable.MemoryLow = &totals.burstableMemory
		root = &Resources{MemoryMin: &both, MemoryLow: &totals.burstableMemory, Hugetlb: t.unlimited()}
	}
	return burstable, root
}

// ResizeTiers sets the QoS levels to what pods, the running ones, request.
func (t *Tree) ResizeTiers(ctx context.Context, pods []*corev1.Pod) error {
	burstable, root := t.tierResources(pods)
	settings := burstable.settings(t.version, t.units != nil, t.pageSizes)
	t.mu.Lock()
	same := slices.EqualFunc(settings, t.tiers, func(a, b Setting) bool { return a.File == b.File && a.Value == b.Value })
	t.mu.Unlock()
	if same && root == nil {
		return nil
	}
	if err := t.set(ctx, t.level("burstable"), &burstable); err != nil {
		return err
	}
	if root != nil {
		if err := t.set(ctx, t.level(), root); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.tiers = settings
	t.mu.Unlock()
	return nil
}

// set changes a cgroup that is there.
func (t *Tree) set(ctx context.Context, n name, res *Resources) error {
	settings := res.settings(t.version, t.units != nil, t.pageSizes)
	dir, err := t.path(n)
	if err != nil {
		return err
	}
	if t.units != nil {
		if err := t.units.set(ctx, n.slice(), settings); err != nil {
			return err
		}
	}
	return t.fs.write(dir, files(settings, t.units != nil))
}

// RemovePod kills what is left of a pod and removes its cgroup, wherever in the
// hierarchy it lies. A pod without a cgroup is success.
func (t *Tree) RemovePod(ctx context.Context, uid types.UID) error {
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		n := t.level(tier(class), "pod"+string(uid))
		dir, err := t.path(n)
		if err != nil {
			return err
		}
		if !t.anywhere(dir) {
			continue
		}
		if err := t.removeCgroup(ctx, n, dir); err != nil {
			return fmt.Errorf("remove the cgroup of pod %s: %w", uid, err)
		}
	}
	t.mu.Lock()
	delete(t.pods, uid)
	t.mu.Unlock()
	return nil
}

func (t *Tree) removeCgroup(ctx context.Context, n name, dir string) error {
	if t.units != nil {
		if err := t.units.stop(ctx, n.slice()); err != nil {
			return err
		}
	}
	return t.fs.remove(ctx, dir)
}

// anywhere says whether a cgroup is there under some controller.
func (t *Tree) anywhere(dir string) bool {
	return slices.ContainsFunc(t.fs.dirs(dir), func(d string) bool {
		_, err := os.Stat(d)
		return err == nil
	})
}

// Pods lists the pods that have a cgroup.
func (t *Tree) Pods(_ context.Context) ([]types.UID, error) {
	var out []types.UID
	for _, class := range []corev1.PodQOSClass{corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort} {
		dir, err := t.path(t.level(tier(class)))
		if err != nil {
			return nil, err
		}
		for _, d := range t.fs.dirs(dir) {
			entries, err := os.ReadDir(d)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("list pod cgroups: %w", err)
			}
			for _, e := range entries {
				uid, isPod := podUID(e.Name(), t.units != nil)
				if e.IsDir() && isPod && !slices.Contains(out, uid) {
					out = append(out, uid)
				}
			}
		}
	}
	return out, nil
}

// RemoveRoot removes the hierarchy with every pod in it, for good.
func (t *Tree) RemoveRoot(ctx context.Context) error {
	pods, err := t.Pods(ctx)
	if err != nil {
		return err
	}
	for _, uid := range pods {
		if err := t.RemovePod(ctx, uid); err != nil {
			return err
		}
	}
	for _, n := range []name{t.level("burstable"), t.level("besteffort"), t.level()} {
		dir, err := t.path(n)
		if err != nil {
			return err
		}
		if !t.anywhere(dir) {
			continue
		}
		if err := t.removeCgroup(ctx, n, dir); err != nil {
			return err
		}
	}
	return nil
}

// Plan is what EnsurePod would set, and where.
func (t *Tree) Plan(pod *corev1.Pod) (PodCgroup, []Setting, error) {
	res := t.cfg.podResources(pod)
	cg, err := t.cgroup(t.podName(pod))
	return cg, res.settings(t.version, t.units != nil, t.pageSizes), err
}

// Levels are the paths of kubepods, burstable and besteffort.
func (t *Tree) Levels() ([]string, error) {
	var out []string
	for _, c := range []string{"", "burstable", "besteffort"} {
		dir, err := t.path(t.level(c))
		if err != nil {
			return nil, err
		}
		out = append(out, path.Clean(dir))
	}
	return out, nil
}
