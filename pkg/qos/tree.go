package qos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
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
	// RunRoot holds the sockets of systemd and of the D-Bus daemon.
	RunRoot string
	// CgroupRoot is the cgroup that kubepods lies in, in cgroupfs form. Other than
	// "/" it must exist, or OwnRoot makes it: then it is limited to the node's
	// capacity, and goes with the rest.
	CgroupRoot              string
	OwnRoot                 bool
	Node                    NodeSettings
	PodPidsLimit            int64
	CPUCFSQuota             bool
	CPUCFSQuotaPeriod       time.Duration
	MemoryThrottlingFactor  *float64
	MemoryReservationPolicy string
	// NoMemoryQoS leaves memory.min, low and high out, as without that feature gate.
	NoMemoryQoS bool
	// QOSReservedMemory is the share, in percent, of requested memory that lower QoS
	// levels may not use; 0 is none.
	QOSReservedMemory    int64
	SwapBehavior         string
	SingleProcessOOMKill *bool
	// OOMScoreAdj is this process's own score; nil leaves it alone.
	OOMScoreAdj *int
	Log         *slog.Logger
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
	tiers map[string][]Setting // what kubepods (""), burstable and besteffort were last set to
	// unknown is what was written that systemd does not know, by cgroup and file.
	unknown map[string]map[string]Setting
}

// New looks at the machine; it changes nothing. Its errors name what is missing
// and how to mend it.
func New(ctx context.Context, cfg Config) (*Tree, error) {
	h, err := openHierarchy(cfg.CgroupFSRoot)
	if err != nil {
		return nil, err
	}
	t := &Tree{cfg: cfg, fs: h, version: h.version, pods: map[types.UID]PodCgroup{}, tiers: map[string][]Setting{}, unknown: map[string]map[string]Setting{}}
	switch cfg.Driver {
	case "cgroupfs":
	case "systemd", "":
		if systemdRunning(cfg.RunRoot) {
			t.units = &units{runRoot: cfg.RunRoot}
			if _, err := t.units.connection(ctx); err != nil {
				return nil, err
			}
		} else if cfg.Driver == "systemd" {
			return nil, fmt.Errorf("cgroupDriver is systemd, but systemd is not the running init (no %s/systemd/system): boot with systemd, or set cgroupDriver: cgroupfs", cfg.RunRoot)
		}
	default:
		return nil, fmt.Errorf("unknown cgroupDriver %q: use systemd, cgroupfs, or leave it out", cfg.Driver)
	}
	if root := strings.Trim(cfg.CgroupRoot, "/"); root != "" {
		t.root = strings.Split(root, "/")
		if dir, err := t.path(t.root); err != nil || !cfg.OwnRoot && !h.exists(dir) {
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
	err := t.cfg.Node.reserveCPUs()
	if err != nil {
		return err
	}
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
