package podsync

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// The resources of a pod that runs change in three steps. The source asks for
// others; the pool grants them when there is room; the worker has the cgroups
// follow, in place where the containers allow it:
//
//	asked ≠ granted   the resize is pending    Pending
//	granted ≠ set     it is in progress        Sized, and what each container runs with
//	all the same      nothing to be told
//
// What a container runs with is kept with it by the runtime, the rest in the
// pod's record.

// Pending says why a pod was not granted what its source asks for.
type Pending struct {
	Reason, Message string
	Generation      int64 // of the pod that asked
}

// change is how a running container comes to its new size.
type change int

const (
	sized   change = iota // it has it already
	inPlace               // while it runs
	byRestart
)

// changeOf compares what an attempt runs with and what it was granted.
func changeOf(pod *corev1.Pod, c *corev1.Container, a *cri.Container) change {
	have, want := sizeOf(a.PodResources, &a.Resources), sizeOf(pod.Spec.Resources, &c.Resources)
	if have == want {
		return sized
	}
	for _, policy := range c.ResizePolicy {
		differs := have.cpuLimit != want.cpuLimit || have.cpuRequest != want.cpuRequest
		if policy.ResourceName == corev1.ResourceMemory {
			differs = have.memoryLimit != want.memoryLimit || have.memoryRequest != want.memoryRequest
		}
		if differs && policy.RestartPolicy == corev1.RestartContainer {
			return byRestart
		}
	}
	return inPlace
}

// resizing says whether anything of the pod does not have its size yet.
func (h *Have) resizing(pod *corev1.Pod) bool {
	return h.Sized != nil || slices.ContainsFunc(h.Pod.Containers, func(a cri.Container) bool {
		c := specOf(pod, a.Name)
		return c != nil && a.State == cri.Running && changeOf(pod, c, &a) != sized
	})
}

// resize has the cgroups follow the grant, as soon as those have stopped that must
// be restarted for it: a parent cannot shrink below them. It says whether more
// may be started; a resize that fails holds up nobody.
func (p *planner) resize() (settled bool) {
	if !p.resizing(p.Want.Pod) {
		return true
	}
	for _, a := range p.up() {
		if p.Busy[containerSlot(a.Name)] == (StartContainer{}).verb() || p.restartsToResize(a) {
			return false
		}
	}
	if !p.Cgroup {
		return p.do(EnsureCgroup{}) != nil
	}
	return p.do(ResizePod{}) != nil
}

func (p *planner) restartsToResize(a *cri.Container) bool {
	c := specOf(p.Want.Pod, a.Name)
	return c != nil && a.State == cri.Running && changeOf(p.Want.Pod, c, a) == byRestart
}

// resizePod sets the cgroups of the pod and of its running containers.
func (w *worker) resizePod(ctx context.Context) error {
	pod, from := w.sizes()
	observed, _ := w.cfg.Runtime.Pod(w.uid)
	todo := inPlaceOf(pod, observed.Containers)
	if err := w.checkUsage(from, pod, todo); err != nil {
		return err
	}
	err := w.cfg.Cgroups.ResizePod(ctx, from, pod, func() error {
		for _, a := range todo {
			c := specOf(pod, a.Name)
			to := cri.Resize{Linux: w.cfg.Cgroups.Container(pod, c).Linux, Own: c.Resources, Pod: pod.Spec.Resources}
			if err := w.cfg.Runtime.ResizeContainer(ctx, a.ID, to); err != nil && !errors.Is(err, cri.ErrNotRunning) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.rec.Sized, w.dirty = nil, true
	if set := grantOf(pod); !set.equals(w.pod) { // more was granted meanwhile
		w.rec.Sized = &set
	}
	w.mu.Unlock()
	w.resized(false)
	return nil
}

// sizes is the pod as it was granted, and as its cgroup is set.
func (w *worker) sizes() (granted, set *corev1.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rec.Sized == nil {
		return w.pod, w.pod
	}
	return w.pod, w.rec.Sized.apply(w.pod)
}

// inPlaceOf lists the containers to resize while they run, first those that give
// memory back.
func inPlaceOf(pod *corev1.Pod, attempts []cri.Container) []cri.Container {
	var less, more []cri.Container
	for _, a := range attempts {
		c := specOf(pod, a.Name)
		if c == nil || a.State != cri.Running || changeOf(pod, c, &a) != inPlace {
			continue
		}
		if lowers(sizeOf(a.PodResources, &a.Resources).memoryLimit, sizeOf(pod.Spec.Resources, &c.Resources).memoryLimit) {
			less = append(less, a)
		} else {
			more = append(more, a)
		}
	}
	return append(less, more...)
}

// checkUsage refuses to limit memory to less than what is used: the kernel would
// find the rest by killing. The words are the kubelet's.
func (w *worker) checkUsage(from, to *corev1.Pod, containers []cri.Container) error {
	var errs []error
	check := func(cgroup, who string, limit int64) {
		used, err := w.cfg.Cgroups.MemoryUsed(cgroup)
		if err == nil && used >= uint64(limit) {
			err = fmt.Errorf("attempting to set %s memory limit (%d) below current usage (%d)", who, limit, used)
		}
		errs = append(errs, err)
	}
	if before, after := memoryLimit(from), memoryLimit(to); lowers(before, after) {
		var cgroup string
		w.learn(func(f *facts) { cgroup = f.cgroup.Path })
		check(cgroup, "pod", after)
	}
	for i := range containers {
		a := &containers[i]
		before, after := sizeOf(a.PodResources, &a.Resources), sizeOf(to.Spec.Resources, &specOf(to, a.Name).Resources)
		if lowers(before.memoryLimit, after.memoryLimit) {
			check(cri.CgroupDir(a.CgroupPath), fmt.Sprintf("container %q", a.Name), after.memoryLimit)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot decrease memory limits: %w", err)
	}
	return nil
}

// memoryLimit is that of the pod's own cgroup, or 0.
func memoryLimit(pod *corev1.Pod) int64 {
	limit := qos.PodLimit(pod, corev1.ResourceMemory)
	return limit.Value()
}
