package podsync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/cri/critest"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// node is a small machine in memory: it stands for all that a Pool depends on
// and outlives the agents of a test.
type node struct {
	*critest.Runtime

	mu       sync.Mutex
	verbs    []string // what was done, in order
	events   []string
	statuses map[types.UID]corev1.PodStatus
	cgroups  map[types.UID]bool
	tiers    int    // pods at the last resize
	resizes  int    // how often it was tried
	memory   uint64 // that every cgroup uses
	seeded   map[string]Health
	probes   map[string]Health
	asked    []string // of the prober

	pullTime time.Duration
	failing  map[string]error // by verb
}

func newNode() *node {
	n := &node{
		Runtime: critest.New(), statuses: map[types.UID]corev1.PodStatus{},
		cgroups: map[types.UID]bool{}, seeded: map[string]Health{}, probes: map[string]Health{}, failing: map[string]error{},
	}
	n.Before = func(verb string, args ...any) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.did(verb, args...)
	}
	return n
}

// did notes a verb and says whether it is to fail. The caller holds mu.
func (n *node) did(verb string, args ...any) error {
	n.verbs = append(n.verbs, fmt.Sprintln(append([]any{verb}, args...)...))
	return n.failing[verb]
}

// EnsureImage takes pullTime, at a MiB a second.
func (n *node) EnsureImage(ctx context.Context, req cri.ImageRequest) (cri.Image, error) {
	n.mu.Lock()
	err := n.did("pull", req.Ref)
	n.mu.Unlock()
	total := n.pullTime / time.Second
	for done := range total {
		req.Progress(int64(done)<<20, int64(total)<<20)
		select {
		case <-ctx.Done():
			return cri.Image{}, ctx.Err()
		case <-time.After(time.Second):
		}
	}
	if err != nil {
		return cri.Image{}, &cri.ImageError{Reason: cri.ErrImagePull, Err: err}
	}
	return cri.Image{Name: req.Ref}, nil
}

// cgroups, volumes, probes and the board have verbs of the same names, so each
// is a view of the node.
type (
	fakeCgroups struct{ *node }
	fakeVolumes struct{ *node }
	fakeProbes  struct{ *node }
	fakeBoard   struct{ *node }
)

func (f fakeCgroups) EnsurePod(_ context.Context, pod *corev1.Pod) (qos.PodCgroup, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cgroups[pod.UID] = true
	return qos.PodCgroup{Path: "/kubepods/pod" + string(pod.UID)}, f.did("cgroup", pod.Name)
}

func (f fakeCgroups) RemovePod(_ context.Context, uid types.UID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.cgroups, uid)
	return f.did("remove-cgroup", uid)
}

func (f fakeCgroups) Pods(context.Context) ([]types.UID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var uids []types.UID
	for uid := range f.cgroups {
		uids = append(uids, uid)
	}
	return uids, nil
}

func (f fakeCgroups) ResizeTiers(_ context.Context, pods []*corev1.Pod) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resizes++
	if err := f.failing["tiers"]; err != nil {
		return err
	}
	f.tiers = len(pods)
	return nil
}

func (f fakeCgroups) ResizePod(_ context.Context, from, to *corev1.Pod, containers func() error) error {
	f.mu.Lock()
	err := f.did("resize-pod", from.Spec.Containers[0].Resources.Requests.Cpu(), to.Spec.Containers[0].Resources.Requests.Cpu())
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return containers()
}

func (f fakeCgroups) MemoryUsed(string) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.memory, nil
}

func (f fakeCgroups) Container(*corev1.Pod, *corev1.Container) qos.ContainerResources {
	return qos.ContainerResources{}
}

func (f fakeVolumes) Setup(_ context.Context, pod *corev1.Pod) (map[string]Mounted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return nil, f.did("volumes", pod.Name)
}

func (f fakeVolumes) Update(context.Context, *corev1.Pod) (bool, error) { return false, nil }

func (f fakeVolumes) Teardown(_ context.Context, uid types.UID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.did("remove-volumes", uid)
}

func (f fakeVolumes) SubPath(context.Context, *corev1.Pod, string, int, string, string) (string, error) {
	return "", errors.New("no volumes here")
}

func (f fakeProbes) note(what string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, what+strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

func (f fakeProbes) Sync(_ *corev1.Pod, name, _ string, _ time.Time) { f.note("probe ", name) }
func (f fakeProbes) Remove(string)                                   { f.note("no more") }
func (f fakeProbes) RemovePod(types.UID)                             { f.note("none") }
func (f fakeProbes) Ending(types.UID)                                { f.note("ending") }
func (f fakeProbes) Seed(_ types.UID, id string, started, ready bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seeded[id] = Health{Started: started, Ready: ready}
}

// health of a container is good unless a test says otherwise.
func (f fakeProbes) health(id string) Health {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h, said := f.node.probes[id]; said {
		return h
	}
	return Health{Started: true, Ready: true}
}
func (f fakeProbes) Started(id string) bool  { return f.health(id).Started }
func (f fakeProbes) Ready(id string) bool    { return f.health(id).Ready }
func (f fakeProbes) Failed(id string) string { return f.health(id).Failed }

func (f fakeBoard) Set(pod *corev1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses[pod.UID] = pod.Status
}

func (f fakeBoard) Release(pod *corev1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verbs = append(f.verbs, "release "+pod.Name+" "+string(pod.Status.Phase)+"\n")
}

func (f fakeBoard) Remove(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.statuses, uid)
}

// agent is one run of a Pool on a node.
type agent struct {
	*node
	t       *testing.T
	desired *Desired
	pool    *Pool
	stop    context.CancelFunc
	done    chan error
	born    time.Time
}

func (n *node) config(t *testing.T, dir string) Config {
	return Config{
		Desired: NewDesired("file"), Runtime: n, Images: n, Cgroups: fakeCgroups{n}, Volumes: fakeVolumes{n},
		Probes: fakeProbes{n}, Status: fakeBoard{n},
		Event: func(_ *corev1.Pod, _, _, reason, message string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.events = append(n.events, reason+": "+message)
		},
		Lookups: testLookups(), NodeIPs: []string{"192.0.2.1"},
		BackOff: BackOff{Initial: 10 * time.Second, Max: 5 * time.Minute},
		RootDir: dir, StateDir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// run starts an agent, which the test must stop.
func (n *node) run(t *testing.T, dir string) *agent {
	t.Helper()
	cfg := n.config(t, dir)
	ctx, stop := context.WithCancel(t.Context())
	a := &agent{node: n, t: t, desired: cfg.Desired, pool: NewPool(cfg), stop: stop, done: make(chan error, 1), born: time.Now()}
	n.Wake = a.pool.Wake
	go func() { a.done <- a.pool.Run(ctx) }()
	return a
}

// end stops the agent and waits for it.
func (a *agent) end() {
	a.t.Helper()
	a.stop()
	if err := <-a.done; err != nil {
		a.t.Errorf("run: %v", err)
	}
}

// want sets the pods of the one source and waits for things to settle.
func (a *agent) want(pods ...*corev1.Pod) {
	a.desired.Set("file", pods)
	synctest.Wait()
}

// container is the newest attempt of a container of the base pod.
func (a *agent) container(name string) *cri.Container {
	p, _ := a.Pod("uid-web")
	return p.Container(name)
}

// log takes what was done since the last call.
func (n *node) log() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []string
	for _, v := range n.verbs {
		out = append(out, v[:len(v)-1])
	}
	n.verbs = nil
	return out
}
