package podsync

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// minGrace is the least that any container gets to stop.
const minGrace = 2 * time.Second

// end is a pass over a pod that shall stop: containers in order, then the
// sandbox, then what they used, then, once no source has it, every trace.
func (p *planner) end() {
	p.plan.Phase = Terminating
	up := p.up()
	switch {
	case len(up) > 0:
		p.stopInOrder(up)
	case p.making(): // what is being made may just be turning into something to stop
	case p.Have.Pod.Sandbox != nil:
		p.do(StopSandbox{})
	default:
		p.plan.Phase = Terminated
		p.release()
	}
}

// making says whether a step is under way that makes something.
func (p *planner) making() bool {
	for _, verb := range p.Busy {
		switch verb {
		case StartContainer{}.verb(), EnsureCgroup{}.verb(), SetupVolumes{}.verb():
			return true
		}
	}
	return false
}

func (p *planner) up() []*cri.Container {
	var list []*cri.Container
	for i := range p.Have.Pod.Containers {
		if a := &p.Have.Pod.Containers[i]; isUp(a) {
			list = append(list, a)
		}
	}
	return list
}

// stopInOrder stops main containers together, then sidecars one by one, the last
// first. All of them share one grace period, and when it is over no one waits.
func (p *planner) stopInOrder(up []*cri.Container) {
	deadline := p.plan.End.At.Add(p.plan.End.Grace)
	left := deadline.Sub(p.now)
	var now, later []*cri.Container
	for _, a := range up {
		if left > 0 && p.isSidecarName(a.Name) {
			later = append(later, a)
		} else {
			now = append(now, a)
		}
	}
	if len(now) == 0 {
		now = []*cri.Container{p.lastDeclared(later)}
	}
	if len(later) > 0 {
		p.wakeAt(deadline)
	}
	for _, a := range later {
		if !slices.Contains(now, a) {
			p.preStopEarly(a, left)
		}
	}
	for _, a := range now {
		if a.State == cri.Created {
			if p.Busy[containerSlot(a.Name)] == "" {
				p.do(RemoveContainer{ID: a.ID})
			}
			continue
		}
		p.do(StopContainer{Container: a.Name, ID: a.ID, Grace: max(left, 0), Why: p.killMessage(a.Name)})
	}
}

// preStopEarly has the hook of a sidecar run beside those of the main containers,
// as the kubelet does: only the stop signal waits for its turn.
func (p *planner) preStopEarly(a *cri.Container, left time.Duration) {
	if c := specOf(p.Want.Pod, a.Name); a.State == cri.Running && hasPreStop(c) && !p.PreStopped[a.ID] {
		p.do(PreStop{Container: a.Name, ID: a.ID, Grace: left})
	}
}

func hasPreStop(c *corev1.Container) bool {
	return c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil
}

func (p *planner) killMessage(container string) string {
	if p.plan.End.Why != "" {
		return p.plan.End.Why
	}
	return "Stopping container " + container
}

func (p *planner) isSidecarName(name string) bool {
	for i := range p.Want.Pod.Spec.InitContainers {
		if c := &p.Want.Pod.Spec.InitContainers[i]; c.Name == name {
			return isSidecar(c)
		}
	}
	return false
}

// lastDeclared picks the attempt whose container comes last in the pod.
func (p *planner) lastDeclared(list []*cri.Container) *cri.Container {
	position := func(name string) int {
		for i, c := range p.Want.Pod.Spec.InitContainers {
			if c.Name == name {
				return i
			}
		}
		return len(p.Want.Pod.Spec.InitContainers)
	}
	last := list[0]
	for _, a := range list[1:] {
		if position(a.Name) > position(last.Name) {
			last = a
		}
	}
	return last
}

// release gives back what a stopped pod used, one after the other: memory-backed
// volumes must go before the cgroup they are charged to.
func (p *planner) release() {
	switch {
	case !p.VolumesGone:
		p.do(RemoveVolumes{})
	case !p.CgroupGone:
		p.do(RemoveCgroup{})
	case !p.Gone: // its containers stay to be looked at
	case p.Exists:
		p.do(RemoveSandbox{})
	case !p.Forgotten:
		p.do(Forget{})
	default:
		p.plan.Done = true
	}
}
