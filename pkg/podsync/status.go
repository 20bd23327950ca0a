package podsync

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
	"github.com/nodeagent/nodeagent/pkg/qos"
)

// Status is what the world is told of a pod: a function of what was wanted, what
// was observed and what was decided. old is the status told before; it lends the
// times of transitions, and a terminal phase which is in it stays.
func Status(w Want, h Have, plan Plan, old corev1.PodStatus, now time.Time) corev1.PodStatus {
	pod := w.Pod
	s := corev1.PodStatus{
		ObservedGeneration: pod.Generation,
		QOSClass:           qos.ComputeClass(pod),
	}
	if pod.Status.QOSClass != "" {
		s.QOSClass = pod.Status.QOSClass
	}
	if !h.Started.IsZero() {
		s.StartTime = new(metav1.NewTime(h.Started).Rfc3339Copy())
	}
	if plan.End != nil {
		s.Reason, s.Message = plan.End.Reason, plan.End.Message
	}
	setAddresses(&s, pod, h, old)
	st := statusOf{Want: w, Have: h, plan: plan}
	if rejected := plan.End != nil && !h.Exists && plan.End.Phase == corev1.PodFailed; !rejected {
		st.setContainers(&s)
		keepEnds(pod, old.InitContainerStatuses, s.InitContainerStatuses)
		keepEnds(pod, old.ContainerStatuses, s.ContainerStatuses)
	}
	s.Phase = st.phase(s)
	if terminal(old.Phase) {
		s.Phase, s.Reason, s.Message = old.Phase, old.Reason, old.Message
		if !h.Exists { // its source alone remembers how it ended
			s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses = old.InitContainerStatuses, old.ContainerStatuses, old.EphemeralContainerStatuses
		}
	}
	setPodResources(&s, pod, h.Sized)
	s.Conditions = conditions(pod, s, h, plan, old.Conditions, now)
	return s
}

func terminal(p corev1.PodPhase) bool {
	return p == corev1.PodSucceeded || p == corev1.PodFailed
}

func setAddresses(s *corev1.PodStatus, pod *corev1.Pod, h Have, old corev1.PodStatus) {
	for _, ip := range h.NodeIPs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(h.NodeIPs) > 0 {
		s.HostIP = h.NodeIPs[0]
	}
	ips := podIPs(pod, h.Pod.Sandbox, h.NodeIPs)
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
	if len(ips) == 0 { // a pod that has ended is still known by the address it had
		s.PodIPs = old.PodIPs
	}
	if len(s.PodIPs) > 0 {
		s.PodIP = s.PodIPs[0].IP
	}
}

func podIPs(pod *corev1.Pod, sandbox *cri.Sandbox, nodeIPs []string) []string {
	switch {
	case sandbox == nil || !sandbox.Ready:
		return nil
	case pod.Spec.HostNetwork:
		return nodeIPs
	default:
		return sandbox.IPs
	}
}

// statusOf computes the parts of one status.
type statusOf struct {
	Want
	Have
	plan Plan
}

func (st *statusOf) setContainers(s *corev1.PodStatus) {
	spec := &st.Want.Pod.Spec
	for i := range spec.InitContainers {
		s.InitContainerStatuses = append(s.InitContainerStatuses, st.container(&spec.InitContainers[i]))
	}
	for i := range spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, st.container(&spec.Containers[i]))
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		status := st.container(&c)
		status.Started, status.Ready = nil, false // nobody waits for it
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, status)
	}
}

// container is the status of one container.
func (st *statusOf) container(c *corev1.Container) corev1.ContainerStatus {
	s := corev1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(false)}
	attempts := st.Have.Pod.Attempts(c.Name)
	if len(attempts) == 0 {
		s.RestartCount = int32(st.Restarts[c.Name])
		s.State.Waiting = st.waiting(c.Name)
		return s
	}
	a := &attempts[0]
	s.RestartCount = int32(a.Attempt)
	s.ImageID = a.ImageRef
	if s.ImageID == "" {
		s.ImageID = a.ImageID
	}
	s.ContainerID = containerID(a)
	s.AllocatedResources, s.Resources = c.Resources.Requests.DeepCopy(), c.Resources.DeepCopy()
	if a.User != nil {
		s.User = &corev1.ContainerUser{Linux: a.User.DeepCopy()}
	}
	if a.StopSignal != "" {
		s.StopSignal = new(corev1.Signal(a.StopSignal))
	}
	previous := attempts[1:]
	switch {
	case a.State == cri.Running:
		s.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(a.StartedAt).Rfc3339Copy()}
		st.setRunning(&s, c, a)
	case a.State == cri.Exited && !st.isWaiting(c.Name) && !st.isReplaced(a):
		s.State.Terminated = st.terminated(a)
		s.Ready = a.ExitCode == 0 && st.isOrdinaryInit(c.Name)
	default:
		s.State.Waiting = st.waiting(c.Name)
		previous = attempts
	}
	if i := slices.IndexFunc(previous, func(a cri.Container) bool { return a.State == cri.Exited }); i >= 0 {
		s.LastTerminationState.Terminated = st.terminated(&previous[i])
	}
	return s
}

// setRunning adds what only a running container has.
func (st *statusOf) setRunning(s *corev1.ContainerStatus, c *corev1.Container, a *cri.Container) {
	health := st.Probes[a.ID]
	started := health.Started && !st.starting(c, a)
	s.Started = &started
	s.Ready = started && health.Ready && !st.isOrdinaryInit(c.Name)
	s.Resources = a.Resources.DeepCopy()
	for _, m := range c.VolumeMounts {
		vs := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			vs.RecursiveReadOnly = new(corev1.RecursiveReadOnlyDisabled)
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != corev1.RecursiveReadOnlyDisabled {
				vs.RecursiveReadOnly = new(corev1.RecursiveReadOnlyEnabled)
			}
		}
		s.VolumeMounts = append(s.VolumeMounts, vs)
	}
}

const containerIDScheme = "containerd://"

func containerID(a *cri.Container) string { return containerIDScheme + a.ID }

// bareID is the runtime's own ID out of that of a status.
func bareID(id string) string { return strings.TrimPrefix(id, containerIDScheme) }

// isReplaced says whether an exited container is started again although its exit
// may not ask for it. It counts as waiting: an API server lets no container that
// ended for good return.
func (st *statusOf) isReplaced(a *cri.Container) bool {
	_, asked := st.Replace[a.ID]
	return asked && st.plan.End == nil
}

// isWaiting says whether an exited container is on its way to its next attempt.
func (st *statusOf) isWaiting(name string) bool {
	_, waits := st.plan.Waiting[name]
	return waits
}

func (st *statusOf) waiting(name string) *corev1.ContainerStateWaiting {
	if w, ok := st.plan.Waiting[name]; ok {
		return &w
	}
	if len(st.Want.Pod.Spec.InitContainers) > 0 {
		return &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	}
	return &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}
}

func (st *statusOf) terminated(a *cri.Container) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: a.ExitCode, Signal: a.Signal, Reason: a.Reason, Message: a.Message,
		StartedAt:   metav1.NewTime(a.StartedAt).Rfc3339Copy(),
		FinishedAt:  metav1.NewTime(a.FinishedAt).Rfc3339Copy(),
		ContainerID: containerID(a),
	}
	if r, asked := st.Replace[a.ID]; asked && !r.Resize {
		t.Reason = ReasonRequested
	}
	return t
}

// isOrdinaryInit says whether a container is an init container that must end.
func (st *statusOf) isOrdinaryInit(name string) bool {
	spec := &st.Want.Pod.Spec
	i := slices.IndexFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	return i >= 0 && !isSidecar(&spec.InitContainers[i])
}

// phase derives the pod's phase from its containers. It becomes terminal only
// when nothing runs any more, so that who sees it may reuse what the pod had.
func (st *statusOf) phase(s corev1.PodStatus) corev1.PodPhase {
	if st.plan.End != nil && st.plan.Phase == Terminated {
		return st.lastPhase()
	}
	running, waiting := 0, 0
	for _, c := range s.ContainerStatuses {
		switch {
		case c.State.Running != nil, c.State.Terminated != nil, c.LastTerminationState.Terminated != nil:
			running++
		default:
			waiting++
		}
	}
	if waiting > 0 || running == 0 {
		return corev1.PodPending
	}
	for _, c := range s.InitContainerStatuses { // a new sandbox has them run again
		if st.isOrdinaryInit(c.Name) && c.State.Terminated == nil {
			return corev1.PodPending
		}
	}
	return corev1.PodRunning
}

func (st *statusOf) lastPhase() corev1.PodPhase {
	if st.plan.End.Phase != "" {
		return st.plan.End.Phase
	}
	for i := range st.Want.Pod.Spec.Containers {
		a := st.Have.Pod.Container(st.Want.Pod.Spec.Containers[i].Name)
		if a == nil || a.State != cri.Exited || a.ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}
