package podsync

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/nodeagent/nodeagent/pkg/qos"
)

// resizeConditions tell of a resize that is not over. There are none of a pod
// that has ended.
func resizeConditions(pod *corev1.Pod, phase corev1.PodPhase, h *Have) []corev1.PodCondition {
	var list []corev1.PodCondition
	if terminal(phase) {
		return nil
	}
	if p := h.Pending; p != nil {
		list = append(list, corev1.PodCondition{
			Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: p.Reason, Message: p.Message, ObservedGeneration: p.Generation,
		})
	}
	if h.resizing(pod) {
		c := corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, ObservedGeneration: pod.Generation}
		if h.Resizing != nil {
			c.ObservedGeneration = *h.Resizing
		}
		if held, failed := h.Held[holdKey(ResizePod{})]; failed && held.Message != "" {
			c.Reason, c.Message = corev1.PodReasonError, held.Message
		}
		list = append(list, c)
	}
	return list
}

// tellResize makes events of how a resize goes on: each error once, and its end.
func (w *worker) tellResize(pod *corev1.Pod, h *Have) {
	failed := h.Held[holdKey(ResizePod{})].Message
	if failed != w.resizeError && failed != "" {
		w.warn("ResizeError", "%s", resizeMessage("Pod resize error", pod, pod.Generation, failed))
	}
	w.resizeError = failed
	if h.Resizing == nil || h.resizing(pod) {
		return
	}
	w.mu.Lock()
	over := w.rec.Resizing != nil && *w.rec.Resizing == *h.Resizing
	if over {
		w.rec.Resizing, w.dirty = nil, true
	}
	w.mu.Unlock()
	if over {
		w.note("ResizeCompleted", "%s", resizeMessage("Pod resize completed", pod, *h.Resizing, ""))
	}
}

// resizeMessage adds the resources in question, in the kubelet's form.
func resizeMessage(what string, pod *corev1.Pod, generation int64, problem string) string {
	type container struct {
		Name      string                      `json:"name"`
		Resources corev1.ResourceRequirements `json:"resources"`
	}
	list := func(containers []corev1.Container) (out []container) {
		for i := range containers {
			out = append(out, container{containers[i].Name, containers[i].Resources})
		}
		return out
	}
	summary, err := json.Marshal(struct {
		InitContainers []container `json:"initContainers,omitempty"`
		Containers     []container `json:"containers,omitempty"`
		Generation     int64       `json:"generation"`
		Error          string      `json:"error,omitempty"`
	}{list(pod.Spec.InitContainers), list(pod.Spec.Containers), generation, problem})
	if err != nil {
		return what
	}
	return what + ": " + string(summary)
}

// setPodResources tells what the pod as a whole was granted, and what it runs with:
// its requests, and the limits that its cgroup has.
func setPodResources(s *corev1.PodStatus, pod *corev1.Pod, sized *Grant) {
	s.AllocatedResources = resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	if s.Phase != corev1.PodRunning {
		s.Resources = pod.Spec.Resources.DeepCopy()
		if s.Resources == nil {
			s.Resources = &corev1.ResourceRequirements{}
		}
		s.Resources.Requests = s.AllocatedResources.DeepCopy()
		s.Resources.Limits = resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
		return
	}
	if sized != nil {
		pod = sized.apply(pod)
	}
	s.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	if own := pod.Spec.Resources; own != nil {
		own.DeepCopyInto(s.Resources)
	}
	if s.Resources.Requests == nil {
		s.Resources.Requests = corev1.ResourceList{}
	}
	if s.Resources.Limits == nil {
		s.Resources.Limits = corev1.ResourceList{}
	}
	for name, q := range resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{}) {
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory {
			s.Resources.Requests[name] = q
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if limit := qos.PodLimit(pod, name); !limit.IsZero() {
			s.Resources.Limits[name] = limit
		}
	}
}
