package qos

import (
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	kubectlqos "k8s.io/kubectl/pkg/util/qos"
)

const (
	// systemCritical is the lowest priority of a critical pod.
	systemCritical    = 2_000_000_000
	nodeCriticalClass = "system-node-critical"
	configSource      = "kubernetes.io/config.source"
	configMirror      = "kubernetes.io/config.mirror"
)

// The ends of the oom_score_adj scale.
const (
	guaranteedOOM = -997
	bestEffortOOM = 1000
)

// ComputeClass is the QoS class that a pod's spec gives it. The class in its
// status is not believed.
func ComputeClass(pod *corev1.Pod) corev1.PodQOSClass { return kubectlqos.ComputePodQOS(pod) }

// critical says whether a pod is critical to the node: static, a mirror, or of
// that priority.
func critical(pod *corev1.Pod) bool {
	source := pod.Annotations[configSource]
	_, mirror := pod.Annotations[configMirror]
	return (source != "" && source != "api") || mirror || pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical
}

// oomScoreAdj is how readily the kernel kills a container: the more a container
// requests of the machine's memory (bytes), the less.
func oomScoreAdj(pod *corev1.Pod, c *corev1.Container, memory int64) int {
	if critical(pod) && pod.Spec.PriorityClassName == nodeCriticalClass {
		return guaranteedOOM
	}
	switch ComputeClass(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteedOOM
	case corev1.PodQOSBestEffort:
		return bestEffortOOM
	}
	if memory <= 0 {
		return bestEffortOOM - 1
	}
	share := podLevelShare(pod)
	score := func(request int64) int { return int(1000 - 1000*(request+share)/memory) }
	adj := score(c.Resources.Requests.Memory().Value())
	if isSidecar(c) { // what the pod's work needs must not die after its helper
		smallest := int64(-1)
		for i := range pod.Spec.Containers {
			if r := pod.Spec.Containers[i].Resources.Requests.Memory().Value(); smallest < 0 || r < smallest {
				smallest = r
			}
		}
		adj = min(adj, score(max(smallest, 0)))
	}
	switch {
	case adj < 1000+guaranteedOOM:
		return 1000 + guaranteedOOM // always killed before a Guaranteed container
	case adj == bestEffortOOM:
		return bestEffortOOM - 1 // never before a BestEffort one
	default:
		return adj
	}
}

// podLevelShare is each container's part (bytes) of the memory that is requested
// for the pod and for none of its containers.
func podLevelShare(pod *corev1.Pod) int64 {
	if !resourcehelper.IsPodLevelRequestsSet(pod) {
		return 0
	}
	requested := pod.Spec.Resources.Requests.Memory().Value()
	if requested == 0 {
		return 0
	}
	of := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})
	return max(0, requested-of.Memory().Value()) / int64(len(pod.Spec.InitContainers)+len(pod.Spec.Containers))
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}
