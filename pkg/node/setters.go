package node

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// setters each write one part of a status, and leave alone what is not theirs.
func setters() []func(*corev1.NodeStatus, *Facts, time.Time) {
	return []func(*corev1.NodeStatus, *Facts, time.Time){
		setAddresses, setResources, setInfo, setEndpoint, setImages, setRuntime, setMemoryPressure, setDiskPressure, setPIDPressure, setReady,
	}
}

// newStatus is what a node's status should be now, given what it is.
func newStatus(old *corev1.NodeStatus, f *Facts, now time.Time) *corev1.NodeStatus {
	s := old.DeepCopy()
	for _, set := range setters() {
		set(s, f, now)
	}
	return s
}

// differs says whether two statuses tell a reader different things: the time at
// which a condition was last confirmed does not count.
func differs(a, b *corev1.NodeStatus) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	for _, s := range []*corev1.NodeStatus{a, b} {
		for i := range s.Conditions {
			s.Conditions[i].LastHeartbeatTime = metav1.Time{}
		}
	}
	return !equality.Semantic.DeepEqual(a, b)
}

func setAddresses(s *corev1.NodeStatus, f *Facts, _ time.Time) {
	s.Addresses = nil
	for _, ip := range f.IPs {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: f.Hostname})
}

// setResources writes what is the machine's own. Extended resources are someone
// else's, who sets their capacity; all of it can be allocated.
func setResources(s *corev1.NodeStatus, f *Facts, _ time.Time) {
	capacity, allocatable := f.Capacity.DeepCopy(), f.Allocatable.DeepCopy()
	for name, q := range s.Capacity {
		if _, own := f.Capacity[name]; !own && isExtended(name) {
			capacity[name], allocatable[name] = q.DeepCopy(), q.DeepCopy()
		}
	}
	s.Capacity, s.Allocatable = keepEqual(s.Capacity, capacity), keepEqual(s.Allocatable, allocatable)
}

// isExtended says whether a resource is named by someone else than Kubernetes.
func isExtended(name corev1.ResourceName) bool {
	domain, _, has := strings.Cut(string(name), "/")
	return has && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io")
}

// keepEqual keeps the way in which an unchanged quantity is written.
func keepEqual(old, list corev1.ResourceList) corev1.ResourceList {
	for name, q := range list {
		if was, ok := old[name]; ok && was.Cmp(q) == 0 {
			list[name] = was
		}
	}
	return list
}

func setInfo(s *corev1.NodeStatus, f *Facts, _ time.Time) { s.NodeInfo = *f.Info.DeepCopy() }

func setEndpoint(s *corev1.NodeStatus, f *Facts, _ time.Time) {
	s.DaemonEndpoints.KubeletEndpoint.Port = f.Port
}

func setImages(s *corev1.NodeStatus, f *Facts, _ time.Time) { s.Images = f.Images }

func setRuntime(s *corev1.NodeStatus, f *Facts, _ time.Time) {
	s.RuntimeHandlers, s.Features, s.DeclaredFeatures = f.Handlers, f.Features, f.DeclaredFeatures
}

// maxImageNames is how many names of one image a status has room for.
const maxImageNames = 5

// TopImages are the largest images, at most so many, -1 for all of them.
func TopImages(images []corev1.ContainerImage, most int) []corev1.ContainerImage {
	out := slices.Clone(images)
	slices.SortFunc(out, func(a, b corev1.ContainerImage) int {
		if a.SizeBytes != b.SizeBytes {
			return int(min(max(b.SizeBytes-a.SizeBytes, -1), 1))
		}
		return slices.Compare(a.Names, b.Names)
	})
	if most >= 0 && len(out) > most {
		out = out[:most]
	}
	for i := range out {
		if len(out[i].Names) > maxImageNames {
			out[i].Names = out[i].Names[:maxImageNames]
		}
	}
	return out
}

// setCondition confirms a condition, or changes it. Whose time of transition is
// not known has changed now.
func setCondition(s *corev1.NodeStatus, c corev1.NodeCondition, now time.Time) {
	c.LastHeartbeatTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	i := slices.IndexFunc(s.Conditions, func(o corev1.NodeCondition) bool { return o.Type == c.Type })
	if i < 0 {
		s.Conditions = append(s.Conditions, c)
		return
	}
	if old := s.Conditions[i]; old.Status == c.Status && !old.LastTransitionTime.IsZero() {
		c.LastTransitionTime = old.LastTransitionTime
	}
	s.Conditions[i] = c
}

func setPressure(s *corev1.NodeStatus, f *Facts, now time.Time, yes, no corev1.NodeCondition) {
	c := no
	c.Status = corev1.ConditionFalse
	if f.Pressures[yes.Type] {
		c = yes
		c.Status = corev1.ConditionTrue
	}
	c.Type = yes.Type
	setCondition(s, c, now)
}

func setMemoryPressure(s *corev1.NodeStatus, f *Facts, now time.Time) {
	setPressure(s, f, now,
		corev1.NodeCondition{Type: corev1.NodeMemoryPressure, Reason: "KubeletHasInsufficientMemory", Message: "kubelet has insufficient memory available"},
		corev1.NodeCondition{Reason: "KubeletHasSufficientMemory", Message: "kubelet has sufficient memory available"})
}

func setDiskPressure(s *corev1.NodeStatus, f *Facts, now time.Time) {
	setPressure(s, f, now,
		corev1.NodeCondition{Type: corev1.NodeDiskPressure, Reason: "KubeletHasDiskPressure", Message: "kubelet has disk pressure"},
		corev1.NodeCondition{Reason: "KubeletHasNoDiskPressure", Message: "kubelet has no disk pressure"})
}

func setPIDPressure(s *corev1.NodeStatus, f *Facts, now time.Time) {
	setPressure(s, f, now,
		corev1.NodeCondition{Type: corev1.NodePIDPressure, Reason: "KubeletHasInsufficientPID", Message: "kubelet has insufficient PID available"},
		corev1.NodeCondition{Reason: "KubeletHasSufficientPID", Message: "kubelet has sufficient PID available"})
}

// setReady says whether pods can be started, and if not, why.
func setReady(s *corev1.NodeStatus, f *Facts, now time.Time) {
	c := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	if len(f.Causes) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "KubeletNotReady", f.Causes[0]
		if len(f.Causes) > 1 {
			c.Message = "[" + strings.Join(f.Causes, ", ") + "]"
		}
	}
	// A resource without which nothing can be counted, as with the kubelet.
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods} {
		if _, known := s.Capacity[name]; !known {
			c.Status, c.Reason, c.Message = corev1.ConditionFalse, "KubeletNotReady", "missing node capacity for resources: "+string(name)
		}
	}
	setCondition(s, c, now)
}
