package podsync

import (
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// Phase is how far a pod has come. It only moves forward.
//
//	Syncing ──end decided──► Terminating ──nothing runs──► Terminated ──gone from its source──► forgotten
type Phase int

// The phases.
const (
	Syncing     Phase = iota // containers are started and restarted
	Terminating              // containers are stopped, none is started
	Terminated               // nothing runs; volumes and cgroup are given back
)

// End is the decision that a pod shall stop. It is taken once and never
// withdrawn; its grace may only shrink.
type End struct {
	At    time.Time
	Grace time.Duration
	// Phase that the pod ends in; empty means that its exit codes tell.
	Phase           corev1.PodPhase `json:",omitempty"`
	Reason, Message string          `json:",omitempty"`
	// Why is what the Killing events say.
	Why string `json:",omitempty"`
	// Disruption says that the node ends the pod for reasons of its own.
	Disruption bool `json:",omitempty"`
	// Rejected says that the pod was never let in; a new agent decides anew.
	Rejected bool `json:",omitempty"`
}

// Want is what should be.
type Want struct {
	Pod     *corev1.Pod
	End     *End // nil while the pod should run
	Gone    bool // no source has it any more: leave nothing behind
	BackOff BackOff
}

// Have is what was observed.
type Have struct {
	Pod     cri.Pod
	Exists  bool      // the runtime has something of this pod
	Started time.Time // when the agent first took the pod on
	NodeIPs []string

	Cgroup, Volumes         bool // are prepared
	CgroupGone, VolumesGone bool // are given back
	Stale                   bool // contents of volumes may have changed
	Forgotten               bool

	Images  map[string]int     // container to the attempt its image was made sure of for
	Pulling map[string]string  // container to the progress of its pull
	Probes  map[string]Health  // by container ID
	Busy    map[string]string  // slots with a step in flight, and its verb
	Held    map[string]Held    // by holdKey
	Series  map[string]int     // container to the attempt with which its crashes began
	Replace map[string]Replace // by container ID: asked to be restarted in place

	Sized    *Grant // what the pod's cgroup is set to, nil when that is its grant
	Resizing *int64
	Pending  *Pending

	// Restarts counts those of containers of which the runtime may know nothing.
	Restarts map[string]int

	PostStarted map[string]bool // by container ID: the hook is over
	PreStopped  map[string]bool // by container ID: the hook is over, or has begun
}

// Health is what probes say of a running container.
type Health struct {
	Started, Ready bool
	Failed         string // "liveness" or "startup" once that probe has given up
}

// Held says that a step failed and when it may be tried again.
type Held struct {
	Since, Until    time.Time
	Reason, Message string
}

// ReasonRequested is why a container ended that was restarted on request.
const ReasonRequested = "Requested"

// Replace is a request to restart a container in place.
type Replace struct {
	Why string
	// Resize says that nobody asked: the container's resize takes a restart.
	Resize bool `json:",omitempty"`
}

// Plan is the decision of one pass.
type Plan struct {
	Phase   Phase
	End     *End // as wanted, or decided now
	Steps   []Step
	Waiting map[string]corev1.ContainerStateWaiting // why containers are not started, where it is special
	Wake    time.Time                               // when to decide again even if nothing happens
	Done    bool                                    // nothing is left of the pod
}

// planner gathers a Plan.
type planner struct {
	Want
	Have
	now   time.Time
	round int
	plan  Plan
}

// Next decides what to do for a pod. It is the whole state machine: all inputs
// are arguments, and the same inputs give the same plan.
func Next(w Want, h Have, now time.Time) Plan {
	p := &planner{Want: w, Have: h, now: now, round: currentRound(w.Pod, h.Pod.Containers)}
	p.plan = Plan{End: w.End, Waiting: map[string]corev1.ContainerStateWaiting{}}
	if p.plan.End == nil {
		p.plan.End = p.ending()
	}
	if p.plan.End != nil {
		p.end()
	} else {
		p.sync()
	}
	return p.plan
}

// sync is a pass over a pod that should run.
func (p *planner) sync() {
	stopping := p.stopUnwanted()
	p.runHooks()
	p.removeOldAttempts()
	if p.Stale && (p.Volumes || len(p.up()) > 0) {
		p.do(UpdateVolumes{})
	}
	if !p.sandboxReady() {
		if !stopping {
			p.prepareSandbox()
		}
		return
	}
	if p.resize() {
		p.startContainers()
	}
}

// ending decides whether the pod comes to an end by itself.
func (p *planner) ending() *End {
	if limit := p.Want.Pod.Spec.ActiveDeadlineSeconds; limit != nil && !p.Started.IsZero() {
		at := p.Started.Add(time.Duration(*limit) * time.Second)
		if !p.now.Before(at) {
			return p.endNow(corev1.PodFailed, "DeadlineExceeded",
				"Pod was active on the node longer than the specified deadline")
		}
		p.wakeAt(at)
	}
	for i := range p.Want.Pod.Spec.InitContainers {
		c := &p.Want.Pod.Spec.InitContainers[i]
		a := p.Have.Pod.Container(c.Name)
		if !isSidecar(c) && p.isFinal(c, a) && a.ExitCode != 0 && !p.ranAfter(i) {
			return p.endNow(corev1.PodFailed, "", "")
		}
	}
	for i := range p.Want.Pod.Spec.Containers {
		c := &p.Want.Pod.Spec.Containers[i]
		if !p.isFinal(c, p.Have.Pod.Container(c.Name)) {
			return nil
		}
	}
	return p.endNow("", "", "")
}

func (p *planner) endNow(phase corev1.PodPhase, reason, message string) *End {
	return &End{At: p.now, Grace: gracePeriod(p.Want.Pod), Phase: phase, Reason: reason, Message: message}
}

// gracePeriod is how long a pod may take to stop.
func gracePeriod(pod *corev1.Pod) time.Duration {
	switch {
	case pod.DeletionGracePeriodSeconds != nil:
		return time.Duration(*pod.DeletionGracePeriodSeconds) * time.Second
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second
	default:
		return corev1.DefaultTerminationGracePeriodSeconds * time.Second
	}
}

// isFinal says whether the newest attempt of c is the last one it will have.
func (p *planner) isFinal(c *corev1.Container, a *cri.Container) bool {
	return a != nil && a.State == cri.Exited && !p.outdated(a) && !p.isReplaced(a) &&
		afterExit(p.Want.Pod, c, a.ExitCode) == final
}

func (p *planner) isReplaced(a *cri.Container) bool {
	_, asked := p.Replace[a.ID]
	return asked
}

// outdated says whether all containers were restarted since this attempt.
func (p *planner) outdated(a *cri.Container) bool {
	return parseOrigin(a.SpecHash).Round < p.round
}

// elsewhere says whether an attempt belongs to a sandbox that is no more.
func (p *planner) elsewhere(a *cri.Container) bool {
	s := p.Have.Pod.Sandbox
	return s == nil || parseOrigin(a.SpecHash).Sandbox != s.ID
}

// current is the newest attempt of a container in the present life of the pod.
func (p *planner) current(name string) *cri.Container {
	a := p.Have.Pod.Container(name)
	if a == nil || p.outdated(a) || p.elsewhere(a) {
		return nil
	}
	return a
}

func (p *planner) sandboxReady() bool {
	return p.Have.Pod.Sandbox != nil && p.Have.Pod.Sandbox.Ready
}

// do plans a step unless it failed a moment ago; then it says why it waits.
func (p *planner) do(s Step) *Held {
	if h, held := p.Held[holdKey(s)]; held && p.now.Before(h.Until) {
		p.wakeAt(h.Until)
		return &h
	}
	p.plan.Steps = append(p.plan.Steps, s)
	return nil
}

func (p *planner) wakeAt(t time.Time) {
	if p.plan.Wake.IsZero() || t.Before(p.plan.Wake) {
		p.plan.Wake = t
	}
}

func (p *planner) wait(container, reason, message string) {
	p.plan.Waiting[container] = corev1.ContainerStateWaiting{Reason: reason, Message: message}
}

// currentRound counts how often exits have restarted all containers of the pod.
func currentRound(pod *corev1.Pod, attempts []cri.Container) int {
	round := 0
	for i := range attempts {
		a := &attempts[i]
		r := parseOrigin(a.SpecHash).Round
		if restartsAll(pod, a) {
			r++
		}
		round = max(round, r)
	}
	return round
}

// restartsAll says whether an attempt ended in a way that restarts the whole pod.
func restartsAll(pod *corev1.Pod, a *cri.Container) bool {
	c := specOf(pod, a.Name)
	return c != nil && a.State == cri.Exited && afterExit(pod, c, a.ExitCode) == everything
}

// specOf finds a container of any kind by name; nil means the pod has none.
func specOf(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i]
		}
	}
	if e := ephemeralOf(pod, name); e != nil {
		c := corev1.Container(e.EphemeralContainerCommon)
		return &c
	}
	return nil
}

// ephemeralOf finds an ephemeral container by name, or nil.
func ephemeralOf(pod *corev1.Pod, name string) *corev1.EphemeralContainer {
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			return e
		}
	}
	return nil
}

// containerHash covers what a running container cannot take over: as in the
// kubelet that is its name and image, since nothing else of a pod may change.
func containerHash(c *corev1.Container) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s\x00%s", c.Name, c.Image)
	return fmt.Sprintf("%08x", h.Sum32())
}
