package podsync

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// conditions are the pod's conditions in the kubelet's order. Those that the
// source brought and that are not ours are kept.
func conditions(pod *corev1.Pod, s corev1.PodStatus, h Have, plan Plan, old []corev1.PodCondition, now time.Time) []corev1.PodCondition {
	containersReady := containersReadyCondition(pod, s)
	list := []corev1.PodCondition{
		{Type: corev1.PodReadyToStartContainers, Status: truth(h.Pod.Sandbox != nil && h.Pod.Sandbox.Ready)},
		initializedCondition(pod, s),
		readyCondition(pod, containersReady),
		containersReady,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue},
	}
	if mayRestartAll(&pod.Spec) {
		list = append(list, restartingCondition(pod, s.Phase, h.Pod.Containers))
	}
	if e := plan.End; e != nil && e.Disruption {
		list = append(list, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: corev1.PodReasonTerminationByKubelet, Message: e.Message,
		})
	}
	for i := range list {
		list[i].ObservedGeneration = pod.Generation
	}
	list = append(list, resizeConditions(pod, s.Phase, &h)...)
	own := map[corev1.PodConditionType]bool{corev1.PodResizePending: true, corev1.PodResizeInProgress: true}
	for i := range list {
		c := &list[i]
		c.LastTransitionTime = metav1.NewTime(now).Rfc3339Copy()
		resize := own[c.Type]
		if before := findCondition(old, c.Type); before != nil && before.Status == c.Status && (!resize || before.Reason == c.Reason) {
			c.LastTransitionTime = before.LastTransitionTime
		}
	}
	for i := range list {
		own[list[i].Type] = true
	}
	for _, c := range pod.Status.Conditions {
		if !own[c.Type] {
			list = append(list, c)
		}
	}
	return list
}

func findCondition(list []corev1.PodCondition, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range list {
		if list[i].Type == t {
			return &list[i]
		}
	}
	return nil
}

func truth(b bool) corev1.ConditionStatus {
	if b {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

func initializedCondition(pod *corev1.Pod, s corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if s.Phase == corev1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	if len(s.InitContainerStatuses) == 0 && len(pod.Spec.InitContainers) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, "UnknownContainerStatuses"
		return c
	}
	if anyStarted(s.ContainerStatuses) && s.Phase != corev1.PodPending {
		return c // what has started proves that all before it was in order
	}
	var incomplete []string
	for i, cs := range s.InitContainerStatuses {
		if isSidecar(&pod.Spec.InitContainers[i]) {
			if cs.Started == nil || !*cs.Started {
				incomplete = append(incomplete, cs.Name)
			}
		} else if !cs.Ready {
			incomplete = append(incomplete, cs.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(incomplete, " "))
	}
	return c
}

func anyStarted(list []corev1.ContainerStatus) bool {
	for _, c := range list {
		if c.State.Waiting == nil {
			return true
		}
	}
	return false
}

func containersReadyCondition(pod *corev1.Pod, s corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionFalse}
	switch {
	case s.Phase == corev1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case s.Phase == corev1.PodFailed:
		c.Reason = "PodFailed"
		return c
	case len(s.ContainerStatuses) == 0:
		c.Reason = "UnknownContainerStatuses"
		return c
	}
	var unready []string
	for i, cs := range s.InitContainerStatuses {
		if isSidecar(&pod.Spec.InitContainers[i]) && !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	for _, cs := range s.ContainerStatuses {
		if !cs.Ready {
			unready = append(unready, cs.Name)
		}
	}
	if len(unready) > 0 {
		c.Reason = "ContainersNotReady"
		c.Message = fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " "))
		return c
	}
	c.Status = corev1.ConditionTrue
	return c
}

// mayRestartAll says whether the exit of a container can restart all of its pod's.
func mayRestartAll(spec *corev1.PodSpec) bool {
	return slices.ContainsFunc(slices.Concat(spec.InitContainers, spec.Containers), func(c corev1.Container) bool {
		return slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
			return r.Action == corev1.ContainerRestartRuleActionRestartAllContainers
		})
	})
}

// restartingCondition is true from such an exit until the first container is
// started again.
func restartingCondition(pod *corev1.Pod, phase corev1.PodPhase, attempts []cri.Container) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.AllContainersRestarting, Status: corev1.ConditionFalse}
	begun := 0
	for i := range attempts {
		begun = max(begun, parseOrigin(attempts[i].SpecHash).Round)
	}
	switch {
	case phase == corev1.PodSucceeded:
		c.Reason = "PodCompleted"
	case phase == corev1.PodFailed:
		c.Reason = "PodFailed"
	case currentRound(pod, attempts) > begun:
		c.Status, c.Reason = corev1.ConditionTrue, "RestartAllContainersStarted"
		c.Message = "a container's exit restarts all containers, by its restartPolicyRules"
	}
	return c
}

// readyCondition adds the pod's readiness gates to what its containers say.
func readyCondition(pod *corev1.Pod, containers corev1.PodCondition) corev1.PodCondition {
	c := containers
	c.Type = corev1.PodReady
	if c.Status != corev1.ConditionTrue {
		return c
	}
	var missing []string
	for _, gate := range pod.Spec.ReadinessGates {
		switch have := findCondition(pod.Status.Conditions, gate.ConditionType); {
		case have == nil:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case have.Status != corev1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", gate.ConditionType, have.Status))
		}
	}
	if len(missing) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}
	return c
}
