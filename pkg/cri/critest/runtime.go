package critest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// Runtime runs pods in memory. Its containers know three programs: true and
// false, which end at once, and everything else, which runs until it is stopped.
// The exported fields are set before the first verb.
type Runtime struct {
	// Wake is told of every exit.
	Wake func(uid types.UID)
	// Before is told of every verb that is about to be done; its error is the
	// verb's own.
	Before func(verb string, args ...any) error

	mu                 sync.Mutex // guards what is below; never held while calling out
	stopTime, execTime time.Duration
	pods               map[types.UID]*cri.Pod
	nextID             int
}

// New returns a runtime without pods.
func New() *Runtime {
	return &Runtime{
		Wake: func(types.UID) {}, Before: func(string, ...any) error { return nil },
		pods: map[types.UID]*cri.Pod{},
	}
}

// Slow makes containers take so long to stop and commands so long to run.
func (r *Runtime) Slow(stop, exec time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopTime, r.execTime = stop, exec
}

// Put adds a pod as if it had been there before, or replaces it.
func (r *Runtime) Put(p cri.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := clone(&p)
	r.pods[p.UID] = &c
}

// Pods returns all pods.
func (r *Runtime) Pods() []cri.Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []cri.Pod
	for _, p := range r.pods {
		list = append(list, clone(p))
	}
	return list
}

// Pod returns one pod.
func (r *Runtime) Pod(uid types.UID) (cri.Pod, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pods[uid]
	if !ok {
		return cri.Pod{}, false
	}
	return clone(p), true
}

func clone(p *cri.Pod) cri.Pod {
	c := *p
	c.Containers = slices.Clone(p.Containers)
	if p.Sandbox != nil {
		s := *p.Sandbox
		c.Sandbox = &s
	}
	return c
}

// StartSandbox is cri.Runtime's.
func (r *Runtime) StartSandbox(ctx context.Context, cfg cri.SandboxConfig) (cri.Sandbox, error) {
	if old, ok := r.Pod(cfg.Pod.UID); ok && old.Sandbox != nil {
		if old.Sandbox.Ready {
			return *old.Sandbox, nil
		}
		if err := r.StopSandbox(ctx, cfg.Pod.UID); err != nil {
			return cri.Sandbox{}, err
		}
	}
	if err := r.Before("sandbox", cfg.Pod.Name); err != nil {
		return cri.Sandbox{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[cfg.Pod.UID]
	if p == nil {
		p = &cri.Pod{UID: cfg.Pod.UID, Namespace: cfg.Pod.Namespace, Name: cfg.Pod.Name}
		r.pods[p.UID] = p
	}
	p.Sandbox = &cri.Sandbox{ID: r.id("sb"), Ready: true, IPs: []string{"10.88.0.7"}, Hostname: cfg.Hostname, CreatedAt: time.Now()}
	return *p.Sandbox, nil
}

// id makes an ID. The caller holds mu.
func (r *Runtime) id(prefix string) string {
	r.nextID++
	return fmt.Sprintf("%s%d", prefix, r.nextID)
}

// StopSandbox is cri.Runtime's.
func (r *Runtime) StopSandbox(_ context.Context, uid types.UID) error {
	p, ok := r.Pod(uid)
	if !ok {
		return nil
	}
	if err := r.Before("stop-sandbox", p.Name); err != nil {
		return err
	}
	for _, c := range p.Containers {
		r.Exit(c.ID, killed)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pods[uid]; p != nil {
		p.Sandbox = nil
	}
	return nil
}

// RemoveSandbox is cri.Runtime's.
func (r *Runtime) RemoveSandbox(_ context.Context, uid types.UID) error {
	if err := r.Before("remove-sandbox", uid); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pods, uid)
	return nil
}

// What the exit codes of signals are: 128 and the signal's number.
const (
	terminated = 128 + 15
	killed     = 128 + 9
)

// StartContainer is cri.Runtime's.
func (r *Runtime) StartContainer(_ context.Context, cfg cri.ContainerConfig) (cri.Container, error) {
	if err := r.Before("start", cfg.Container.Name, cfg.Attempt); err != nil {
		return cri.Container{}, err
	}
	c, err := r.start(cfg)
	if err != nil {
		return c, &cri.StartError{Reason: "CreateContainerError", Err: err}
	}
	switch program(cfg) {
	case "true":
		r.Exit(c.ID, 0)
	case "false":
		r.Exit(c.ID, 1)
	}
	return c, nil
}

func program(cfg cri.ContainerConfig) string {
	if len(cfg.Command) == 0 {
		return ""
	}
	return cfg.Command[0]
}

func (r *Runtime) start(cfg cri.ContainerConfig) (cri.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[cfg.Pod.UID]
	if p == nil || p.Sandbox == nil || !p.Sandbox.Ready {
		return cri.Container{}, fmt.Errorf("the sandbox of pod %s is not ready", cfg.Pod.UID)
	}
	now := time.Now()
	c := cri.Container{
		ID: r.id("c"), Name: cfg.Container.Name, Attempt: cfg.Attempt, SpecHash: cfg.SpecHash, Image: cfg.Container.Image,
		State: cri.Running, CreatedAt: now, StartedAt: now,
		StopSignal: "SIGTERM", User: &corev1.LinuxContainerUser{},
		Resources: *cfg.Container.Resources.DeepCopy(), PodResources: cfg.Pod.Spec.Resources.DeepCopy(),
	}
	p.Containers = append([]cri.Container{c}, p.Containers...)
	return c, nil
}

// StopContainer is cri.Runtime's.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	c, ok := r.container(id)
	if !ok || c.State != cri.Running {
		return nil
	}
	if err := r.Before("stop", c.Name, grace); err != nil {
		return err
	}
	r.mu.Lock()
	takes := r.stopTime
	r.mu.Unlock()
	code := int32(terminated)
	if takes > grace || grace == 0 {
		code = killed
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(min(takes, grace)):
	}
	r.Exit(id, code)
	return nil
}

// ResizeContainer is cri.Runtime's.
func (r *Runtime) ResizeContainer(_ context.Context, id string, to cri.Resize) error {
	c, ok := r.container(id)
	if !ok || c.State != cri.Running {
		return cri.ErrNotRunning
	}
	if err := r.Before("resize", c.Name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		for i := range p.Containers {
			if p.Containers[i].ID == id {
				p.Containers[i].Resources, p.Containers[i].PodResources = *to.Own.DeepCopy(), to.Pod.DeepCopy()
			}
		}
	}
	return nil
}

// RemoveContainer is cri.Runtime's.
func (r *Runtime) RemoveContainer(_ context.Context, id string, _ bool) error {
	c, ok := r.container(id)
	if !ok {
		return nil
	}
	if err := r.Before("remove", c.Name); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		p.Containers = slices.DeleteFunc(p.Containers, func(c cri.Container) bool { return c.ID == id })
	}
	return nil
}

// ExecSync is cri.Runtime's. It knows the programs of Runtime.
func (r *Runtime) ExecSync(ctx context.Context, id string, cmd []string, timeout time.Duration) (int, []byte, error) {
	c, ok := r.container(id)
	if !ok || c.State != cri.Running {
		return 0, nil, errors.New("container is not running")
	}
	if err := r.Before("exec", append([]string{c.Name}, cmd...)); err != nil {
		return 0, nil, err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	r.mu.Lock()
	takes := r.execTime
	r.mu.Unlock()
	select {
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	case <-time.After(takes):
	}
	if cmd[0] == "false" {
		return 1, nil, nil
	}
	return 0, nil, nil
}

// Exit ends a container; one that does not run is left as it is.
func (r *Runtime) Exit(id string, code int32) {
	if uid, ended := r.exit(id, code); ended {
		r.Wake(uid)
	}
}

func (r *Runtime) exit(id string, code int32) (types.UID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		for i := range p.Containers {
			if c := &p.Containers[i]; c.ID == id && c.State == cri.Running {
				c.State, c.ExitCode, c.FinishedAt, c.Reason = cri.Exited, code, time.Now(), "Error"
				if code == 0 {
					c.Reason = "Completed"
				}
				return p.UID, true
			}
		}
	}
	return "", false
}

func (r *Runtime) container(id string) (cri.Container, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		for _, c := range p.Containers {
			if c.ID == id {
				return c, true
			}
		}
	}
	return cri.Container{}, false
}
