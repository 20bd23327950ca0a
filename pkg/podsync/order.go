package podsync

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// errImagePullShown is how long a failed pull is shown as such before the status
// turns to waiting for the next one.
const errImagePullShown = 2 * time.Second

// stopUnwanted stops attempts which may not go on as they are, and says whether
// anything of the pod still runs in a sandbox that is gone.
func (p *planner) stopUnwanted() (stopping bool) {
	seen := map[string]bool{}
	for i := range p.Have.Pod.Containers {
		a := &p.Have.Pod.Containers[i]
		newest := !seen[a.Name]
		seen[a.Name] = true
		switch a.State {
		case cri.Exited:
			continue
		case cri.Created: // an earlier agent died between create and start
			if p.Busy[containerSlot(a.Name)] == "" {
				p.do(RemoveContainer{ID: a.ID})
			}
		default:
			if why, grace := p.unwanted(a, newest); why != "" {
				p.do(StopContainer{Container: a.Name, ID: a.ID, Grace: grace, Why: why, Resize: p.restartsToResize(a)})
			}
		}
		stopping = stopping || !p.sandboxReady()
	}
	return stopping
}

// unwanted says why a running attempt must stop; "" means that it may go on.
func (p *planner) unwanted(a *cri.Container, newest bool) (why string, grace time.Duration) {
	grace = gracePeriod(p.Want.Pod)
	c := specOf(p.Want.Pod, a.Name)
	health := p.Probes[a.ID]
	replace, asked := p.Replace[a.ID]
	switch {
	case !newest:
		return fmt.Sprintf("Container %s has a newer attempt", a.Name), grace
	case c == nil:
		return fmt.Sprintf("Container %s is not in the pod any more", a.Name), grace
	case !p.sandboxReady() || p.elsewhere(a):
		return "Pod sandbox changed, it will be killed and re-created.", grace
	case p.outdated(a):
		return fmt.Sprintf("Container %s is restarted together with the whole pod", a.Name), grace
	case a.State != cri.Running:
		return fmt.Sprintf("Container %s is in unknown state, try killing it before restart", a.Name), grace
	case asked:
		return fmt.Sprintf("Container %s %s, will be restarted", a.Name, replace.Why), grace
	case p.restartsToResize(a):
		return fmt.Sprintf("Container %s resize requires restart", a.Name), grace
	case parseOrigin(a.SpecHash).Hash != containerHash(c):
		return fmt.Sprintf("Container %s definition changed, will be restarted", a.Name), grace
	case health.Failed != "":
		return p.probeFailure(c, health.Failed)
	default:
		return "", 0
	}
}

func (p *planner) probeFailure(c *corev1.Container, kind string) (why string, grace time.Duration) {
	grace = gracePeriod(p.Want.Pod)
	probe := c.LivenessProbe
	if kind == "startup" {
		probe = c.StartupProbe
	}
	if probe != nil && probe.TerminationGracePeriodSeconds != nil {
		grace = time.Duration(*probe.TerminationGracePeriodSeconds) * time.Second
	}
	why = fmt.Sprintf("Container %s failed %s probe", c.Name, kind)
	if afterExit(p.Want.Pod, c, 137) != final {
		why += ", will be restarted"
	}
	return why, grace
}

// removeOldAttempts keeps two attempts of each container: what runs or ran last,
// and the one before it for its exit code and log.
func (p *planner) removeOldAttempts() {
	count := map[string]int{}
	for i := range p.Have.Pod.Containers {
		a := &p.Have.Pod.Containers[i]
		count[a.Name]++
		if count[a.Name] > 2 && a.State == cri.Exited {
			p.do(RemoveContainer{ID: a.ID})
		}
	}
}

// prepareSandbox makes all that containers need, as much of it at once as the
// order allows: the sandbox needs the cgroup, the rest needs nothing.
func (p *planner) prepareSandbox() {
	failed := p.prepare()
	for _, c := range p.firstContainers() {
		p.pull(c, p.nextAttempt(c.Name, p.Have.Pod.Container(c.Name)))
	}
	if !p.Cgroup {
		return
	}
	if h := p.do(StartSandbox{}); h != nil {
		failed = h
	}
	if failed == nil {
		return
	}
	for _, c := range p.firstContainers() {
		if _, told := p.plan.Waiting[c.Name]; !told {
			p.wait(c.Name, p.creating(), failed.Message)
		}
	}
}

// prepare plans cgroup and volumes where they are missing.
func (p *planner) prepare() (failed *Held) {
	if !p.Cgroup {
		failed = p.do(EnsureCgroup{})
	}
	if !p.Volumes {
		if h := p.do(SetupVolumes{}); h != nil {
			failed = h
		}
	}
	return failed
}

// firstContainers are those that a new sandbox starts with.
func (p *planner) firstContainers() []*corev1.Container {
	spec := &p.Want.Pod.Spec
	if len(spec.InitContainers) > 0 {
		return []*corev1.Container{&spec.InitContainers[0]}
	}
	var list []*corev1.Container
	for i := range spec.Containers {
		if c := &spec.Containers[i]; !p.isFinal(c, p.Have.Pod.Container(c.Name)) {
			list = append(list, c)
		}
	}
	return list
}

// startContainers walks the containers in order, up to the first that must get
// further before the next may start.
func (p *planner) startContainers() {
	spec := &p.Want.Pod.Spec
	p.startEphemeral()
	for i := range spec.InitContainers {
		if !p.passInit(i) {
			return
		}
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		if a := p.Have.Pod.Container(c.Name); !isUp(a) && !p.isFinal(c, a) {
			p.start(c, a)
		}
	}
}

// startEphemeral starts the ephemeral containers that never were. They wait for
// no other container: an init container that gets nowhere may be just what is
// looked into. What has ended has ended.
func (p *planner) startEphemeral() {
	for i := range p.Want.Pod.Spec.EphemeralContainers {
		e := &p.Want.Pod.Spec.EphemeralContainers[i]
		if p.Have.Pod.Container(e.Name) == nil {
			c := corev1.Container(e.EphemeralContainerCommon)
			p.start(&c, nil)
		}
	}
}

// passInit takes the ith init container as far as it goes and says whether the
// next container may start. What has once let others start never holds them up
// again: a finished init container owes nothing, a crashed sidecar just restarts.
func (p *planner) passInit(i int) bool {
	c := &p.Want.Pod.Spec.InitContainers[i]
	a := p.current(c.Name)
	passed := p.ranAfter(i)
	if isSidecar(c) {
		if !isUp(a) {
			if !isUp(p.Have.Pod.Container(c.Name)) {
				p.start(c, p.Have.Pod.Container(c.Name))
			}
			return passed
		}
		return passed || p.hasStarted(a)
	}
	switch {
	case passed, a != nil && a.State == cri.Exited && a.ExitCode == 0 && !p.isReplaced(a):
		return true
	case !isUp(p.Have.Pod.Container(c.Name)):
		p.start(c, p.Have.Pod.Container(c.Name))
	}
	return false
}

// ranAfter says whether any container behind the ith init container has been
// started in this life of the pod.
func (p *planner) ranAfter(i int) bool {
	spec := &p.Want.Pod.Spec
	for j := i + 1; j < len(spec.InitContainers); j++ {
		if p.current(spec.InitContainers[j].Name) != nil {
			return true
		}
	}
	for j := range spec.Containers {
		if p.current(spec.Containers[j].Name) != nil {
			return true
		}
	}
	return false
}

// hasStarted says whether a sidecar has come so far that the next may start: its
// postStart hook is over and its startup probe, if any, has succeeded.
func (p *planner) hasStarted(a *cri.Container) bool {
	return a.State == cri.Running && !p.starting(specOf(p.Want.Pod, a.Name), a) && p.Probes[a.ID].Started
}

// starting says whether a container's start is still going on, which includes
// its postStart hook.
func (h *Have) starting(c *corev1.Container, a *cri.Container) bool {
	return h.Busy[containerSlot(a.Name)] == StartContainer{}.verb() || h.owesPostStart(c, a)
}

// owesPostStart says whether the postStart hook of a running attempt is not over.
func (h *Have) owesPostStart(c *corev1.Container, a *cri.Container) bool {
	return c != nil && c.Lifecycle != nil && c.Lifecycle.PostStart != nil && a.State == cri.Running && !h.PostStarted[a.ID]
}

// runHooks has the postStart hooks run that are due; also one that an agent
// which was killed has left in the middle, since a hook runs at least once.
func (p *planner) runHooks() {
	for i := range p.Have.Pod.Containers {
		if a := &p.Have.Pod.Containers[i]; p.owesPostStart(specOf(p.Want.Pod, a.Name), a) {
			p.do(PostStart{Container: a.Name, ID: a.ID})
		}
	}
}

// isUp says whether an attempt is there and has not exited.
func isUp(a *cri.Container) bool {
	return a != nil && a.State != cri.Exited
}

func (p *planner) nextAttempt(name string, last *cri.Container) int {
	if last != nil {
		return last.Attempt + 1
	}
	if n, ran := p.Restarts[name]; ran {
		return n + 1
	}
	return 0
}

// restarts counts those of the containers which a status says have run.
func restarts(s corev1.PodStatus) map[string]int {
	counts := map[string]int{}
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		if c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil {
			counts[c.Name] = int(c.RestartCount)
		}
	}
	return counts
}

// start plans the next attempt of c after last, or tells what it waits for.
func (p *planner) start(c *corev1.Container, last *cri.Container) {
	attempt := p.nextAttempt(c.Name, last)
	series := p.Series[c.Name]
	if last != nil {
		// An exit counts as a crash unless someone else ended the container: a
		// request, a new sandbox, or another container that restarted them all.
		crashed := !p.isReplaced(last) && !p.elsewhere(last) && (!p.outdated(last) || restartsAll(p.Want.Pod, last))
		switch {
		case !crashed:
			series = attempt
		case p.crashLoops(c, last):
			return
		case ranLong(last):
			series = last.Attempt
		}
	}
	if !p.pull(c, attempt) {
		return
	}
	if !p.Cgroup || !p.Volumes {
		if h := p.prepare(); h != nil {
			p.wait(c.Name, p.creating(), h.Message)
		}
		return
	}
	o := origin{Sandbox: p.Have.Pod.Sandbox.ID, Round: p.round, Hash: containerHash(c)}
	if h := p.do(StartContainer{Container: c.Name, Attempt: attempt, Series: series, Origin: o.String()}); h != nil {
		p.wait(c.Name, h.Reason, h.Message)
	}
}

// crashLoops says whether c must wait before it is started again.
func (p *planner) crashLoops(c *corev1.Container, last *cri.Container) bool {
	at, delay := restartAt(last, p.Series[c.Name], p.BackOff)
	if !p.now.Before(at) {
		return false
	}
	p.wakeAt(at)
	p.wait(c.Name, "CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s, next try at %s",
		delay, c.Name, podFullName(p.Want.Pod), at.Local().Format(time.TimeOnly)))
	return true
}

// pull says whether the image for this attempt is there, and sees to it if not.
func (p *planner) pull(c *corev1.Container, attempt int) bool {
	if sure, ok := p.Images[c.Name]; ok && sure == attempt {
		return true
	}
	h := p.do(PullImage{Container: c.Name, Attempt: attempt})
	switch {
	case h == nil:
		if progress := p.Pulling[c.Name]; progress != "" {
			p.wait(c.Name, p.creating(), progress)
		}
	case h.Reason == "ErrImageNeverPull" || h.Reason == "InvalidImageName":
		p.wait(c.Name, h.Reason, h.Message)
	case p.now.Sub(h.Since) < errImagePullShown:
		p.wait(c.Name, h.Reason, h.Message)
		p.wakeAt(h.Since.Add(errImagePullShown))
	default:
		p.wait(c.Name, "ImagePullBackOff", fmt.Sprintf("Back-off pulling image %q: %s: %s, next try at %s",
			c.Image, h.Reason, h.Message, h.Until.Local().Format(time.TimeOnly)))
	}
	return false
}

// creating is the reason of a container that is simply on its way.
func (p *planner) creating() string {
	if len(p.Want.Pod.Spec.InitContainers) > 0 {
		return "PodInitializing"
	}
	return "ContainerCreating"
}
