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
	// Exec runs a command in a container.
	Exec func(ctx context.Context, id string, cmd []string, timeout time.Duration) (code int, out []byte, err error)
	// PodIP is a pod's address, or empty.
	PodIP func(uid types.UID) string
	// OnChange is told of every pod whose results have changed; it must not block.
	OnChange func(uid types.UID)
	// Unhealthy is told of every answer that is a failure, for an event.
	Unhealthy func(pod *corev1.Pod, container, kind string, err error)
}

// Manager runs the probes of all containers. Its methods are safe for concurrent
// use.
type Manager struct {
	deps  Deps
	start chan func(ctx context.Context) // goroutines for Run to own

	mu         sync.Mutex // guards containers and all below them
	containers map[string]*container
}

// container is what is known of one running container, by its ID.
type container struct {
	uid      types.UID
	probes   map[string]*corev1.Probe
	counters map[string]*counter
	// seeded holds until a probe has its first result.
	started, ready, seeded bool
	cancel                 context.CancelFunc
}

// target is what one probe of one container needs to ask.
type target struct {
	pod       *corev1.Pod
	uid       types.UID
	container string
	id, kind  string
	probe     *corev1.Probe
	ports     []corev1.ContainerPort
	startedAt time.Time
}

// New returns a Manager that has nothing to do; see Run.
func New(deps Deps) *Manager {
	return &Manager{deps: deps, start: make(chan func(context.Context)), containers: map[string]*container{}}
}

// Run probes until ctx ends, and returns when every probe has.
func (m *Manager) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-m.start:
			wg.Go(func() { f(ctx) })
		}
	}
}

// Sync starts the probes of a running container; it can be repeated.
func (m *Manager) Sync(pod *corev1.Pod, name, id string, startedAt time.Time) {
	c := specOf(pod, name)
	if c == nil {
		return
	}
	m.mu.Lock()
	known := m.containers[id]
	if known != nil && known.cancel != nil {
		m.mu.Unlock()
		return
	}
	if known == nil {
		known = &container{}
		m.containers[id] = known
	}
	known.uid = pod.UID
	known.probes, known.counters = map[string]*corev1.Probe{}, map[string]*counter{}
	for kind, p := range map[string]*corev1.Probe{Startup: c.StartupProbe, Liveness: c.LivenessProbe, Readiness: c.ReadinessProbe} {
		if p != nil {
			known.probes[kind], known.counters[kind] = p, &counter{}
		}
	}
	stop := make(chan struct{})
	known.cancel = sync.OnceFunc(func() { close(stop) })
	probes := known.probes
	m.mu.Unlock()
	for kind, p := range probes {
		t := &target{pod: pod, uid: pod.UID, container: name, id: id, kind: kind, probe: p, ports: c.Ports, startedAt: startedAt}
		go func() { // handed to Run, which owns it from then on
			select {
			case m.start <- func(ctx context.Context) { m.loop(ctx, stop, t) }:
			case <-stop:
			}
		}()
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
// container's own probes have answered.
func (m *Manager) Seed(id string, started, ready bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.containers[id] == nil {
		m.containers[id] = &container{started: started, ready: ready, seeded: true}
	}
}

// result is what is known of one probe, and whether there is such a probe. The
// caller holds mu.
func (c *container) result(kind string) (Result, bool) {
	counter, has := c.counters[kind]
	if !has {
		return Unknown, false
	}
	return counter.result, true
}

// Started says whether a container's startup probe has succeeded, or there is none.
func (m *Manager) Started(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[id]
	return c != nil && c.hasStarted()
}

func (c *container) hasStarted() bool {
	switch r, has := c.result(Startup); {
	case !has:
		return true
	case r == Unknown:
		return c.seeded && c.started
	default:
		return r == Success
	}
}

// Ready says whether a container has started and its readiness probe, if there
// is one, has succeeded.
func (m *Manager) Ready(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[id]
	if c == nil || !c.hasStarted() {
		return false
	}
	switch r, has := c.result(Readiness); {
	case !has:
		return true
	case r == Unknown:
		return c.seeded && c.ready
	default:
		return r == Success
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
		if r, _ := c.result(kind); r == Failure {
			return kind
		}
	}
	return ""
}

// loop asks until the container is removed or ctx ends.
func (m *Manager) loop(ctx context.Context, stop <-chan struct{}, t *target) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a check in flight ends with its container
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	period := time.Duration(t.probe.PeriodSeconds) * time.Second
	wait := time.Until(t.startedAt.Add(time.Duration(t.probe.InitialDelaySeconds) * time.Second))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(max(wait, 0)):
		}
		wait = period
		if t.kind != Startup && !m.Started(t.id) {
			wait = min(period, time.Second) // gated until the container has started
			continue
		}
		err := m.check(ctx, t)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.deps.Unhealthy(t.pod, t.container, t.kind, err)
		}
		if m.count(t, err == nil) {
			m.deps.OnChange(t.uid)
		}
		if t.kind == Startup && m.Started(t.id) {
			return
		}
	}
}

// count adds an answer and reports whether the result has changed.
func (m *Manager) count(t *target, ok bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[t.id]
	if c == nil {
		return false
	}
	return c.counters[t.kind].add(t.probe, ok)
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
