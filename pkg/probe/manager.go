package probe

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Kinds of probes, named as in events.
const (
	Startup   = "startup"
	Liveness  = "liveness"
	Readiness = "readiness"
)

// Deps is what probes need of the world.
type Deps struct {
	// Exec runs a command in a container. Taking longer than timeout is
	// context.DeadlineExceeded.
	Exec func(ctx context.Context, id string, cmd []string, timeout time.Duration) (code int, out []byte, err error)
	// PodIP is a pod's address, or empty.
	PodIP func(uid types.UID) string
	// OnChange is told of every pod whose results have changed; it must not block.
	OnChange func(uid types.UID)
	// Event is told of every answer that is not a plain success, with the
	// kubelet's reason for it.
	Event func(pod *corev1.Pod, container, reason, message string)
}

// Manager runs the probes of all containers. Its methods are safe for concurrent
// use.
type Manager struct {
	deps Deps
	kick chan struct{} // capacity 1: fresh is not empty

	mu         sync.Mutex // guards all below
	containers map[string]*container
	fresh      []*container // to be started by Run
}

// container is what is known of one running container. What Sync sets stays as
// it is; the rest is guarded by the manager's mutex.
type container struct {
	uid       types.UID
	id        string
	pod       *corev1.Pod // nil until it is synced
	spec      *corev1.Container
	startedAt time.Time
	probes    map[string]*tracked // by kind
	started   chan struct{}       // closed once the startup probe has succeeded

	seeded, ready bool // whether and what an earlier agent knew
	hasStarted    bool
	ending        bool
	cancel        context.CancelFunc // ends all probes
	cancelHealth  context.CancelFunc // ends those that could restart the container
}

// tracked is one probe and what it said.
type tracked struct {
	spec    *corev1.Probe
	counter counter
	answers [3]uint64 // by outcome
}

// Outcomes of asking, as indexes and by the names that metrics have for them.
const (
	successful = iota
	failed
	unknown
)

// Count is how often a probe of a running container had an outcome.
type Count struct {
	Pod       *corev1.Pod // not to be changed
	Container string
	Kind      string
	Outcome   string // successful, failed or unknown
	Answers   uint64
}

// Counts are those of all probes that were asked.
func (m *Manager) Counts() []Count {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Count
	for _, c := range m.containers {
		for kind, p := range c.probes {
			for outcome, name := range []string{"successful", "failed", "unknown"} {
				if p.answers[outcome] > 0 {
					out = append(out, Count{Pod: c.pod, Container: c.spec.Name, Kind: kind, Outcome: name, Answers: p.answers[outcome]})
				}
			}
		}
	}
	return out
}

// tally counts an answer.
func (m *Manager) tally(c *container, kind string, outcome int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c.probes[kind].answers[outcome]++
}

// New returns a Manager that has nothing to do; see Run.
func New(deps Deps) *Manager {
	return &Manager{deps: deps, kick: make(chan struct{}, 1), containers: map[string]*container{}}
}

// Run probes until ctx ends, and returns when every probe has.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.kick:
			m.startFresh(ctx, &wg)
		}
	}
}

// startFresh starts the probes of containers that have none running.
func (m *Manager) startFresh(ctx context.Context, wg *sync.WaitGroup) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.fresh {
		if m.containers[c.id] != c {
			continue // removed since
		}
		all, cancel := context.WithCancel(ctx)
		health, cancelHealth := context.WithCancel(all)
		c.cancel, c.cancelHealth = cancel, cancelHealth
		if c.ending {
			cancelHealth()
		}
		for kind := range c.probes {
			life := health
			if kind == Readiness {
				life = all
			}
			wg.Go(func() { m.loop(life, c, kind) })
		}
	}
	m.fresh = nil
}

// Sync starts the probes of a running container; it can be repeated.
func (m *Manager) Sync(pod *corev1.Pod, name, id string, startedAt time.Time) {
	spec := specOf(pod, name)
	if spec == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.containers[id]
	if old != nil && old.pod != nil {
		return
	}
	c := &container{uid: pod.UID, id: id, pod: pod, spec: spec, startedAt: startedAt, probes: map[string]*tracked{}, started: make(chan struct{})}
	for kind, p := range map[string]*corev1.Probe{Startup: spec.StartupProbe, Liveness: spec.LivenessProbe, Readiness: spec.ReadinessProbe} {
		if p != nil {
			c.probes[kind] = &tracked{spec: p}
		}
	}
	if old != nil {
		c.seeded, c.ready, c.hasStarted, c.ending = old.seeded, old.ready, old.hasStarted, old.ending
	}
	if c.hasStarted || spec.StartupProbe == nil {
		c.start()
	}
	m.containers[id] = c
	if len(c.probes) == 0 {
		return
	}
	m.fresh = append(m.fresh, c)
	select {
	case m.kick <- struct{}{}:
	default: // Run has yet to look at those before
	}
}

// start lets the other probes begin.
func (c *container) start() {
	c.hasStarted = true
	close(c.started)
}

// Ending says that a pod is ending. Its containers are asked no more whether they
// should be restarted, and go on to be asked whether they are ready.
func (m *Manager) Ending(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.containers {
		if c.uid == uid && !c.ending {
			c.ending = true
			if c.cancelHealth != nil {
				c.cancelHealth()
			}
		}
	}
}

// Remove ends the probes of a container.
func (m *Manager) Remove(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remove(id)
}

// RemovePod ends the probes of a pod.
func (m *Manager) RemovePod(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, c := range m.containers {
		if c.uid == uid {
			m.remove(id)
		}
	}
}

// remove does the work of Remove; the caller holds mu.
func (m *Manager) remove(id string) {
	if c := m.containers[id]; c != nil {
		if c.cancel != nil {
			c.cancel()
		}
		delete(m.containers, id)
	}
}

// Seed tells what was known of a container before this agent: it holds until the
// container's own probes have answered, and one that has started has started.
func (m *Manager) Seed(uid types.UID, id string, started, ready bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.containers[id] == nil {
		m.containers[id] = &container{uid: uid, id: id, seeded: true, hasStarted: started, ready: ready}
	}
}

// Started says whether a container's startup probe has succeeded, or there is none.
func (m *Manager) Started(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[id]
	return c != nil && c.hasStarted
}

// Ready says whether a container has started and its readiness probe, if there
// is one, has succeeded.
func (m *Manager) Ready(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[id]
	if c == nil || !c.hasStarted {
		return false
	}
	if c.pod == nil {
		return c.ready
	}
	switch p := c.probes[Readiness]; {
	case p == nil:
		return true
	case p.counter.result == Unknown:
		return c.ready
	default:
		return p.counter.result == Success
	}
}

// Failed is "liveness" or "startup" once that probe has given up, else empty.
func (m *Manager) Failed(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[id]
	if c == nil {
		return ""
	}
	for _, kind := range []string{Startup, Liveness} {
		if p := c.probes[kind]; p != nil && p.counter.result == Failure {
			return kind
		}
	}
	return ""
}

func specOf(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
