package qos

import (
	"math"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

const (
	minShares = 2
	maxShares = 262144
	minQuota  = 1000 // microseconds
	// unlimitedHugetlb is what the QoS levels get: no limit of their own.
	unlimitedHugetlb = 1 << 62
)

// Resources is what one cgroup is set to. What is nil or zero is left alone, but
// for hugepages: a size that is not named is limited to nothing.
type Resources struct {
	CPUShares uint64 // 2 to 262144
	CPUQuota  int64  // microseconds per period; -1 is no quota
	CPUPeriod uint64 // microseconds
	CPUSet    string // a CPU list
	// Memory and its protections are in bytes; the latter exist on v2 only.
	Memory, MemoryMin, MemoryLow, MemoryHigh *int64
	Pids                                     *int64
	// Hugetlb maps a size such as 2MB to bytes.
	Hugetlb map[string]uint64
}

// sharesOf turns a request into CPU shares.
func sharesOf(cpu *resource.Quantity) uint64 {
	milli := cpu.MilliValue()
	if milli == 0 {
		return minShares
	}
	return uint64(min(max(milli*1024/1000, minShares), maxShares))
}

// quotaOf turns a limit into a quota for a period, in microseconds; 0 is none.
func quotaOf(cpu *resource.Quantity, period uint64) int64 {
	milli := cpu.MilliValue()
	if milli == 0 {
		return 0
	}
	return max(milli*int64(period)/1000, minQuota)
}

// weightOf is the cpu.weight that stands for shares at the levels this package
// writes. Container runtimes use another scale.
func weightOf(shares uint64) uint64 {
	if shares >= maxShares {
		return 10000
	}
	return 1 + (shares-minShares)*9999/(maxShares-minShares)
}

// podResources is what a pod's own cgroup is set to.
func (c *Config) podResources(pod *corev1.Pod) Resources {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	class := ComputeClass(pod)
	res := Resources{CPUShares: minShares, Hugetlb: hugepages(requests)}
	if c.PodPidsLimit > 0 {
		res.Pids = &c.PodPidsLimit
	}
	if class == corev1.PodQOSBestEffort {
		return res
	}
	res.CPUShares = sharesOf(requests.Cpu())
	period := uint64(c.CPUCFSQuotaPeriod / time.Microsecond)
	if quota := quotaOf(limits.Cpu(), period); quota > 0 && (class == corev1.PodQOSGuaranteed || limited(pod, corev1.ResourceCPU)) {
		res.CPUQuota, res.CPUPeriod = quota, period
		if !c.CPUCFSQuota {
			res.CPUQuota = -1
		}
	}
	memoryLimited := class == corev1.PodQOSGuaranteed || limited(pod, corev1.ResourceMemory)
	if limit := limits.Memory().Value(); limit > 0 && memoryLimited {
		res.Memory = &limit
	}
	c.protectPod(&res, pod, class, requests.Memory().Value(), limits.Memory().Value(), memoryLimited)
	return res
}

// protectPod adds what MemoryQoS gives a pod.
func (c *Config) protectPod(res *Resources, pod *corev1.Pod, class corev1.PodQOSClass, request, limit int64, memoryLimited bool) {
	if c.tiered() && request > 0 {
		if class == corev1.PodQOSGuaranteed {
			res.MemoryMin = &request
		} else {
			res.MemoryLow = &request
		}
	}
	if c.NoMemoryQoS || c.MemoryThrottlingFactor == nil || !resourcehelper.IsPodLevelResourcesSet(pod) || !memoryLimited || limit == 0 || request == limit {
		return
	}
	if high := throttleAt(request, limit, *c.MemoryThrottlingFactor); high > request {
		res.MemoryHigh = &high
	}
}

func (c *Config) tiered() bool {
	return !c.NoMemoryQoS && c.MemoryReservationPolicy == "TieredReservation"
}

// throttleAt is memory.high between a request and a limit, in whole pages.
func throttleAt(request, limit int64, factor float64) int64 {
	page := int64(os.Getpagesize())
	return int64(math.Floor((float64(request)+factor*float64(limit-request))/float64(page))) * page
}

// limited says whether a pod's limit of a resource binds: the pod has one
// itself, or every container has.
func limited(pod *corev1.Pod, r corev1.ResourceName) bool {
	if pod.Spec.Resources != nil {
		if q, set := pod.Spec.Resources.Limits[r]; set && !q.IsZero() {
			return true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if q := list[i].Resources.Limits[r]; q.IsZero() {
				return false
			}
		}
	}
	return true
}

// hugepages picks the huge page requests, named as the kernel names sizes.
func hugepages(list corev1.ResourceList) map[string]uint64 {
	out := map[string]uint64{}
	for r, q := range list {
		if size, isHuge := strings.CutPrefix(string(r), corev1.ResourceHugePagesPrefix); isHuge {
			if bytes, err := resource.ParseQuantity(size); err == nil {
				out[pageSizeName(bytes.Value())] = uint64(q.Value())
			}
		}
	}
	return out
}

// pageSizeName writes a size as hugetlb files do: 2MB, 1GB, with units of 1024.
func pageSizeName(bytes int64) string {
	units := []string{"B", "KB", "MB", "GB", "TB", "PB"}
	i := 0
	for bytes%1024 == 0 && bytes >= 1024 && i < len(units)-1 {
		bytes /= 1024
		i++
	}
	return resource.NewQuantity(bytes, resource.DecimalSI).AsDec().String() + units[i]
}

// tierTotals are the sums that the QoS levels are set from.
type tierTotals struct {
	burstableCPU                      resource.Quantity
	guaranteedMemory, burstableMemory int64
}

func totalsOf(pods []*corev1.Pod) tierTotals {
	var t tierTotals
	for _, pod := range pods {
		requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
		switch ComputeClass(pod) {
		case corev1.PodQOSGuaranteed:
			t.guaranteedMemory += requests.Memory().Value()
		case corev1.PodQOSBurstable:
			t.burstableCPU.Add(*requests.Cpu())
			t.burstableMemory += requests.Memory().Value()
		}
	}
	return t
}

// PodLimit is the limit of a resource that a pod's own cgroup has; zero is none.
func PodLimit(pod *corev1.Pod, r corev1.ResourceName) resource.Quantity {
	if !limited(pod, r) {
		return resource.Quantity{}
	}
	return resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})[r]
}
