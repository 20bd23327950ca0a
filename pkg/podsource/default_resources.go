package podsource

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// defaultPodResources completes resources of the pod as a whole, where a pod has
// any, in the order of an API server's create path. A kubelet leaves this out for
// static pods, and so gives them another QoS class than their mirror shows.
func defaultPodResources(pod *corev1.Pod) {
	r := pod.Spec.Resources
	if r == nil {
		return
	}
	roundUp(r.Limits)
	roundUp(r.Requests)
	if len(r.Limits) == 0 && len(r.Requests) == 0 {
		return
	}
	options := resourcehelper.PodResourcesOptions{SkipPodLevelResources: true}
	limits := resourcehelper.AggregateContainerLimits(pod, options)
	requests := resourcehelper.AggregateContainerRequests(pod, options)
	everywhere := limitedEverywhere(pod)

	r.Limits = fill(r.Limits, filter(limits, isHugePages))
	r.Requests = fill(r.Requests, filter(requests, func(n corev1.ResourceName) bool {
		return resourcehelper.IsSupportedPodLevelResource(n) && !isHugePages(n)
	}))
	r.Requests = fill(r.Requests, filter(r.Limits, resourcehelper.IsSupportedPodLevelResource))
	for name, limit := range limits {
		if _, set := r.Limits[name]; set || !everywhere(name) || !resourcehelper.IsSupportedPodLevelResource(name) {
			continue
		}
		if request := r.Requests[name]; request.Cmp(limit) > 0 {
			limit = request
		}
		r.Limits = fill(r.Limits, corev1.ResourceList{name: limit})
	}
}

func isHugePages(n corev1.ResourceName) bool {
	return strings.HasPrefix(string(n), corev1.ResourceHugePagesPrefix)
}

func filter(list corev1.ResourceList, keep func(corev1.ResourceName) bool) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range list {
		if keep(name) {
			out[name] = q
		}
	}
	return out
}

// limitedEverywhere says of a resource whether every container limits it.
func limitedEverywhere(pod *corev1.Pod) func(corev1.ResourceName) bool {
	return func(name corev1.ResourceName) bool {
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if _, set := list[i].Resources.Limits[name]; !set {
					return false
				}
			}
		}
		return true
	}
}
