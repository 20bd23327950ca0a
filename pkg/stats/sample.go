package stats

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// Config is where a Reader finds what it reads.
type Config struct {
	NodeName string
	// ProcRoot is where proc is mounted.
	ProcRoot string
	// Cgroup reads a cgroup; one that is gone is fs.ErrNotExist.
	Cgroup func(path string) (qos.Stat, error)
	// Processes lists those in and below a cgroup.
	Processes func(path string) ([]int, error)
	// System are the cgroups of the node's own parts by the kubelet's names for
	// them: pods, kubelet.
	System map[string]string
	// Pods are those of this node, and PodCgroup is where one of them is.
	Pods      func() []corev1.Pod
	PodCgroup func(*corev1.Pod) string
	// Observed is what runs of a pod.
	Observed func(types.UID) (cri.Pod, bool)
	// Layer is what a container has written to its root file system.
	Layer func(ctx context.Context, id string) (cri.LayerUsage, error)
	// Images is the directory that holds images, and how many bytes they take.
	Images func(ctx context.Context) (dir string, bytes uint64, err error)
	// RootDir is on the node's file system.
	RootDir string
}

// Reader reads what is used. Its methods are safe for concurrent use.
type Reader struct {
	cfg Config

	turn sync.Mutex // held by the one that reads; guards all below
	last *Sample
	disk *disks
	cpu  map[string]cpuReading // of cgroups, for rates
}

// New returns a Reader that has read nothing yet.
func New(cfg Config) *Reader { return &Reader{cfg: cfg, cpu: map[string]cpuReading{}} }

// How long a reading is good for.
const (
	sampleLife = time.Second
	diskLife   = time.Minute
	// rateWindow is the least time over which a rate is told; what was read before
	// is kept for so long.
	rateWindow = 10 * time.Second
)

// Sample is what everything used at one moment. Nobody changes it.
type Sample struct {
	Time   time.Time
	Node   Node
	System map[string]qos.Stat
	Pods   []Pod
}

// Pod is one that runs.
type Pod struct {
	Pod        *corev1.Pod
	Cgroup     string
	Stat       qos.Stat
	Containers []Container
	// Sandbox tells whether its network is its own.
	Sandbox *cri.Sandbox
}

// Container is one that runs.
type Container struct {
	cri.Container
	Stat qos.Stat
}

// sample reads all cgroups, unless somebody just has. The caller holds turn.
func (r *Reader) sample(now time.Time) *Sample {
	if r.last != nil && now.Sub(r.last.Time) < sampleLife {
		return r.last
	}
	s := &Sample{Time: now, Node: readNode(r.cfg.ProcRoot, r.cfg.Cgroup), System: map[string]qos.Stat{}}
	for name, path := range r.cfg.System {
		if stat, err := r.cfg.Cgroup(path); err == nil {
			s.System[name] = stat
		}
	}
	pods := r.cfg.Pods()
	for i := range pods {
		if p, running := r.pod(&pods[i]); running {
			s.Pods = append(s.Pods, p)
		}
	}
	r.last = s
	return s
}

// pod reads one pod. One of which nothing runs has no use to tell.
func (r *Reader) pod(pod *corev1.Pod) (Pod, bool) {
	out := Pod{Pod: pod, Cgroup: r.cfg.PodCgroup(pod)}
	observed, _ := r.cfg.Observed(pod.UID)
	out.Sandbox = observed.Sandbox
	for _, c := range observed.Containers {
		if c.State != cri.Running {
			continue
		}
		if stat, err := r.cfg.Cgroup(cri.CgroupDir(c.CgroupPath)); err == nil { // it may have just ended
			out.Containers = append(out.Containers, Container{c, stat})
		}
	}
	var err error
	out.Stat, err = r.cfg.Cgroup(out.Cgroup)
	return out, err == nil && len(out.Containers) > 0
}

// Sample is what everything uses now.
func (r *Reader) Sample() *Sample {
	r.turn.Lock()
	defer r.turn.Unlock()
	return r.sample(time.Now())
}

// cpuReading is a cgroup's CPU time at two moments: the latest, and one that is
// long enough ago to tell a rate from.
type cpuReading struct {
	old, new cpuAt
}

type cpuAt struct {
	time time.Time
	used uint64
}

// rate is how much CPU a cgroup uses, in nanoseconds per second: since it was read
// the last time but not only just now, at first since it began. The caller holds
// turn.
func (r *Reader) rate(key string, now cpuAt, began time.Time) *uint64 {
	c, known := r.cpu[key]
	switch {
	case !known || now.used < c.new.used: // or a new cgroup of that name
		c = cpuReading{old: cpuAt{time: began}, new: now}
	case now.time.Sub(c.new.time) >= rateWindow:
		c = cpuReading{old: c.new, new: now}
	}
	r.cpu[key] = c
	span := now.time.Sub(c.old.time)
	if span <= 0 || now.used < c.old.used {
		return nil
	}
	return new(uint64(float64(now.used-c.old.used) / span.Seconds()))
}

// forget drops what is known of cgroups that are gone. The caller holds turn.
func (r *Reader) forget(s *Sample) {
	alive := map[string]bool{nodeKey: true}
	for name := range s.System {
		alive[name] = true
	}
	for _, p := range s.Pods {
		alive[p.Cgroup] = true
		for _, c := range p.Containers {
			alive[c.ID] = true
		}
	}
	for key := range r.cpu {
		if !alive[key] {
			delete(r.cpu, key)
		}
	}
}

const nodeKey = "/"

// logDir is where the logs of a container are.
func logDir(c *cri.Container) string {
	if c.LogPath == "" {
		return ""
	}
	return filepath.Dir(c.LogPath)
}
