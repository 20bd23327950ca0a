package podsync

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Grant is what a pod may use: its containers' resources, and its own as a whole.
// What its source asks for becomes its grant when it is let in; what the source
// asks for later does when there is room. Every pod that this package hands on
// carries its grant in place of what was asked.
type Grant struct {
	Pod        *corev1.ResourceRequirements           `json:",omitempty"`
	Containers map[string]corev1.ResourceRequirements `json:",omitempty"`
}

// grantOf reads the resources in a pod's spec.
func grantOf(pod *corev1.Pod) Grant {
	g := Grant{Pod: pod.Spec.Resources, Containers: map[string]corev1.ResourceRequirements{}}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			g.Containers[list[i].Name] = list[i].Resources
		}
	}
	return g
}

// toldGrant is the grant of a pod of which no record is left, where its source
// still tells what it had: one whose newest wish was not granted.
func toldGrant(pod *corev1.Pod) Grant {
	g := grantOf(pod)
	if findCondition(pod.Status.Conditions, corev1.PodResizePending) == nil {
		return g
	}
	if pod.Spec.Resources != nil && pod.Status.Resources != nil {
		g.Pod = pod.Status.Resources
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if c.Resources != nil {
			g.Containers[c.Name] = *c.Resources
		}
	}
	return g
}

// apply puts the grant into a pod; one that asks for just that is returned as it is.
// A container that the grant does not know keeps what it asks for.
func (g Grant) apply(pod *corev1.Pod) *corev1.Pod {
	if g.equals(pod) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Spec.Resources = g.Pod.DeepCopy()
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if r, known := g.Containers[list[i].Name]; known {
				list[i].Resources = *r.DeepCopy()
			}
		}
	}
	return pod
}

// equals says whether a pod asks for what it was granted.
func (g Grant) equals(pod *corev1.Pod) bool {
	if !equality.Semantic.DeepEqual(g.Pod, pod.Spec.Resources) {
		return false
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if r, known := g.Containers[list[i].Name]; known && !equality.Semantic.DeepEqual(r, list[i].Resources) {
				return false
			}
		}
	}
	return true
}

// size is what the limits of a container are made of, in thousandths of a CPU and
// in bytes. A limit that it does not have itself is its pod's.
type size struct {
	cpuRequest, cpuLimit, memoryRequest, memoryLimit int64
}

func sizeOf(pod, own *corev1.ResourceRequirements) size {
	s := size{
		cpuRequest: own.Requests.Cpu().MilliValue(), memoryRequest: own.Requests.Memory().Value(),
		cpuLimit: own.Limits.Cpu().MilliValue(), memoryLimit: own.Limits.Memory().Value(),
	}
	if pod != nil && s.cpuLimit == 0 {
		s.cpuLimit = pod.Limits.Cpu().MilliValue()
	}
	if pod != nil && s.memoryLimit == 0 {
		s.memoryLimit = pod.Limits.Memory().Value()
	}
	return s
}

// lowers says whether a limit of memory becomes less than it was.
func lowers(before, after int64) bool { return after != 0 && (before == 0 || after < before) }
