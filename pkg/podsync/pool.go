package podsync

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// sweepEvery is how often pods that nobody wants are looked for, should the
// wake-up that announces them have been lost.
const sweepEvery = 10 * time.Minute

// Config is all that a Pool needs. Every field is required unless it says so.
type Config struct {
	Desired *Desired
	Runtime Runtime
	Images  Images
	Cgroups Cgroups
	Volumes Volumes
	Probes  Probes
	Status  StatusSink
	// Event records what happened to a user's pod, or to the container of that name
	// where it is not empty; kind is Normal or Warning.
	Event   func(pod *corev1.Pod, container, kind, reason, message string)
	Lookups Lookups

	Room Room
	// Node is this node in the API, or nil while that is not known. Optional.
	Node func() *corev1.Node
	// AskNode is the same as it is now, for when a pod would be refused. Optional.
	AskNode func(ctx context.Context) (*corev1.Node, error)
	NodeIPs []string // primary first
	DNS     DNS
	// BackOff is the node's crash-loop delay.
	BackOff BackOff
	// MaxParallelStarts bounds how many sandboxes, and how many containers, are
	// started at once, and how many sandboxes are stopped; 0 means twice the number
	// of CPUs. More than the machine has room for only makes each of them slower.
	MaxParallelStarts int
	// SeccompDefault confines containers that name no seccomp profile.
	SeccompDefault bool
	// Alive, where set, is told after each look at all pods; one is taken at least
	// every AliveEvery. A pool that no longer gets around to its pods falls silent.
	Alive      func()
	AliveEvery time.Duration
	// RootDir is kept over a reboot, StateDir is not.
	RootDir, StateDir string
	Log               *slog.Logger

	sandboxes, containers slots // in which they are started
	stops                 slots // of sandboxes
}

func (c *Config) records() records { return records{dir: filepath.Join(c.StateDir, "pods")} }

// Pool keeps one worker for each pod that should be, or that still is.
type Pool struct {
	cfg   Config
	kick  chan struct{} // capacity 1: look at everything again
	tiers chan struct{} // capacity 1: the set of running pods has changed

	mu      sync.Mutex // guards workers; never held across I/O
	workers map[types.UID]*worker
}

// NewPool starts nothing; see Run.
func NewPool(cfg Config) *Pool {
	if cfg.MaxParallelStarts == 0 {
		cfg.MaxParallelStarts = 2 * runtime.NumCPU()
	}
	cfg.sandboxes, cfg.containers = make(slots, cfg.MaxParallelStarts), make(slots, cfg.MaxParallelStarts)
	cfg.stops = make(slots, cfg.MaxParallelStarts)
	return &Pool{
		cfg:     cfg,
		kick:    make(chan struct{}, 1),
		tiers:   make(chan struct{}, 1),
		workers: map[types.UID]*worker{},
	}
}

// Run works until ctx ends, and returns when every worker has. No pod is stopped
// then: the next agent takes them on as they are. The runtime must go on until
// Run has returned, since what is being started is finished first.
func (p *Pool) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	workers.Go(func() { p.resizeTiers(ctx) })
	signal(p.tiers)
	sweeps := time.NewTicker(sweepEvery)
	defer sweeps.Stop()
	var beats <-chan time.Time
	if p.cfg.Alive != nil {
		t := time.NewTicker(p.cfg.AliveEvery)
		defer t.Stop()
		beats = t.C
	}
	for sweep := true; ; {
		done := p.reconcile(ctx, &workers, sweep)
		if p.cfg.Alive != nil {
			p.cfg.Alive()
		}
		sweep = !done
		select {
		case <-ctx.Done():
			return nil
		case <-p.cfg.Desired.changed:
		case <-p.kick:
		case <-beats:
		case <-sweeps.C:
			sweep = true
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Wake has a pod looked at again. An unknown pod is looked for everywhere. It
// never blocks.
func (p *Pool) Wake(uid types.UID) {
	if w := p.worker(uid); w != nil {
		w.poke()
		return
	}
	signal(p.kick)
}

// WakeAll has every pod looked at now, and what failed before tried at once: a
// missing image, config map or secret may have arrived. Contents of mounted
// volumes are brought up to date.
func (p *Pool) WakeAll() {
	for _, w := range p.list() {
		w.refresh()
	}
	signal(p.kick)
}

// Refresh is WakeAll for one pod: what it refers to has changed.
func (p *Pool) Refresh(uid types.UID) {
	if w := p.worker(uid); w != nil {
		w.refresh()
	}
}

// Status is the newest status of a pod.
func (p *Pool) Status(uid types.UID) (corev1.PodStatus, bool) {
	w := p.worker(uid)
	if w == nil {
		return corev1.PodStatus{}, false
	}
	return w.status(), true
}

// Pods are copies of all pods with their newest status, ordered by name.
func (p *Pool) Pods() []*corev1.Pod {
	var pods []*corev1.Pod
	for _, w := range p.list() {
		pods = append(pods, w.view())
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return strings.Compare(fullName(a), fullName(b)) })
	return pods
}

// Restart ends a container, or all of them when container is empty, and starts
// it again in place: the pod keeps its sandbox, its address and its volumes.
func (p *Pool) Restart(uid types.UID, container string) error {
	w := p.worker(uid)
	if w == nil {
		return fmt.Errorf("restart pod %s: %w", uid, ErrUnknownPod)
	}
	return w.restart(container)
}

func (p *Pool) worker(uid types.UID) *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workers[uid]
}

func (p *Pool) list() []*worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.workers))
}

// reconcile makes the set of workers fit the set of pods. swept says whether
// orphans could be looked for, if that was asked.
func (p *Pool) reconcile(ctx context.Context, workers *sync.WaitGroup, sweep bool) (swept bool) {
	orphans, err := p.orphans(ctx, sweep) // before the sources are read, so that a new pod is not taken for one
	if err != nil {
		p.cfg.Log.Error("orphans not found", "err", err)
	}
	v := p.cfg.Desired.view()
	wanted := map[types.UID]bool{}
	p.grant(v.pods) // first: whoever reads that a wish was seen shall read what became of it
	for _, pod := range v.pods {
		wanted[pod.UID] = true
		if w := p.worker(pod.UID); w != nil {
			w.update(pod, v.evicted)
		}
	}
	if v.synced {
		for _, w := range p.list() {
			if !wanted[w.uid] {
				w.drop()
			}
		}
		for _, pod := range orphans {
			if !wanted[pod.UID] {
				p.takeOn(ctx, workers, pod)
			}
		}
	}
	p.startNew(ctx, workers, v, orphans)
	p.grant(v.pods) // what they asked for while there was no agent
	return v.synced && err == nil
}

// startNew takes on wanted pods that have no worker. A static pod waits for the one
// of the same name before it, and any for room that others are about to give back.
func (p *Pool) startNew(ctx context.Context, workers *sync.WaitGroup, v view, orphans []*corev1.Pod) {
	names := map[string]types.UID{}
	for _, pod := range orphans {
		names[fullName(pod)] = pod.UID
	}
	for _, w := range p.list() {
		names[fullName(w.current())] = w.uid
	}
	fresh := slices.DeleteFunc(slices.Clone(v.pods), func(pod *corev1.Pod) bool { return p.worker(pod.UID) != nil })
	p.byClaim(fresh)
	staying, all := p.load()
	for _, pod := range fresh {
		if isStatic(pod) { // others may meet: an API server deletes by force before we do
			if uid, taken := names[fullName(pod)]; taken && uid != pod.UID {
				continue
			}
			names[fullName(pod)] = pod.UID
		}
		w := p.admit(ctx, pod, staying, all)
		if w == nil {
			continue
		}
		w.update(pod, v.evicted)
		if _, phase := w.holds(); phase == Syncing {
			staying.Add(pod)
			all.Add(pod)
		}
		p.run(ctx, workers, w)
	}
}

// takeOn ends a pod that no source knows.
func (p *Pool) takeOn(ctx context.Context, workers *sync.WaitGroup, pod *corev1.Pod) {
	if p.worker(pod.UID) != nil {
		return
	}
	rec, err := p.cfg.records().load(pod.UID)
	if err != nil {
		p.cfg.Log.Error("record not read", "uid", pod.UID, "err", err)
	}
	if rec != nil {
		pod = rec.Pod
	}
	p.cfg.Log.Info("pod is in no source; it is ended", "pod", fullName(pod), "uid", pod.UID)
	w := newWorker(&p.cfg, pod, rec, p.resized)
	w.drop()
	p.run(ctx, workers, w)
}

func (p *Pool) run(ctx context.Context, workers *sync.WaitGroup, w *worker) {
	p.mu.Lock()
	p.workers[w.uid] = w
	p.mu.Unlock()
	w.log.Debug("pod taken on")
	workers.Go(func() {
		if !w.run(ctx) {
			return
		}
		p.mu.Lock()
		delete(p.workers, w.uid)
		p.mu.Unlock()
		signal(p.kick)
	})
}

// holders lists the pods that hold resources: those that stay, and those that
// are on their way out.
func (p *Pool) holders() (staying, leaving []*corev1.Pod) {
	for _, w := range p.list() {
		switch pod, phase := w.holds(); phase {
		case Syncing:
			staying = append(staying, pod)
		case Terminating:
			leaving = append(leaving, pod)
		case Terminated:
		}
	}
	return staying, leaving
}

// orphans lists every pod there is a trace of and no worker for. The full sweep
// also looks at records, directories and cgroups; the runtime answers from memory.
func (p *Pool) orphans(ctx context.Context, full bool) ([]*corev1.Pod, error) {
	var found []*corev1.Pod
	seen := map[types.UID]bool{}
	for _, pod := range p.cfg.Runtime.Pods() {
		seen[pod.UID] = true
		if p.worker(pod.UID) == nil {
			found = append(found, podOf(pod))
		}
	}
	if !full {
		return found, nil
	}
	uids, err := p.cfg.records().list()
	if err != nil {
		return found, err
	}
	dirs, err := podDirs(p.cfg.RootDir)
	if err != nil {
		return found, err
	}
	cgroups, err := p.cfg.Cgroups.Pods(ctx)
	for _, uid := range slices.Concat(uids, dirs, cgroups) {
		if !seen[uid] && p.worker(uid) == nil {
			seen[uid] = true
			found = append(found, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}})
		}
	}
	return found, err
}

// podOf is all that the runtime alone knows of a pod. Such a pod gets a grace
// period that only cleans up: nobody remembers the one it asked for.
func podOf(r cri.Pod) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: r.UID, Namespace: r.Namespace, Name: r.Name}}
	pod.Spec.TerminationGracePeriodSeconds = new(int64(minGrace / time.Second))
	return pod
}

// isStatic says whether a pod comes from this machine and not from an API server,
// which takes away one pod of a name before it has another.
func isStatic(pod *corev1.Pod) bool { return pod.Annotations[configSource] != sourceAPI }

// configSource is where the sources write who they are, as in the kubelet.
const (
	configSource = "kubernetes.io/config.source"
	sourceAPI    = "api"
)

func fullName(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}
