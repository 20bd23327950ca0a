package qos

import (
	"maps"
	"strconv"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// ContainerResources is what a container runtime is to enforce.
type ContainerResources struct {
	Linux       *specs.LinuxResources
	OOMScoreAdj int
}

// Container is what c, a container of pod, is limited to. It writes nothing.
func (t *Tree) Container(pod *corev1.Pod, c *corev1.Container) ContainerResources {
	limits := effectiveLimits(pod, c)
	res := &specs.LinuxResources{CPU: t.containerCPU(c, limits.Cpu()), Memory: &specs.LinuxMemory{}}
	if limit := limits.Memory().Value(); limit > 0 {
		res.Memory.Limit = &limit
		if t.version == 1 && t.v1Swap {
			res.Memory.Swap = &limit // together with the limit: no swap
		}
	}
	res.HugepageLimits = t.containerHugepages(pod, c)
	if t.version == 2 {
		res.Unified = t.unified(pod, c, limits.Memory().Value())
	}
	return ContainerResources{Linux: res, OOMScoreAdj: t.clampOOM(oomScoreAdj(pod, c, t.capacity.Memory().Value()))}
}

// effectiveLimits are a container's limits, or its pod's where it has none.
func effectiveLimits(pod *corev1.Pod, c *corev1.Container) corev1.ResourceList {
	out := corev1.ResourceList{}
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		q := c.Resources.Limits[r]
		if q.IsZero() && resourcehelper.IsPodLevelResourcesSet(pod) {
			q = pod.Spec.Resources.Limits[r]
		}
		if !q.IsZero() {
			out[r] = q
		}
	}
	return out
}

func (t *Tree) containerCPU(c *corev1.Container, limit *resource.Quantity) *specs.LinuxCPU {
	base := limit // a container that only has a limit requests as much
	if q, set := c.Resources.Requests[corev1.ResourceCPU]; set {
		base = &q
	}
	shares := sharesOf(base)
	cpu := &specs.LinuxCPU{Shares: &shares}
	if t.cfg.CPUCFSQuota {
		period := uint64(t.cfg.CPUCFSQuotaPeriod / time.Microsecond)
		quota := quotaOf(limit, period)
		cpu.Period = &period
		if quota > 0 {
			cpu.Quota = &quota
		}
	}
	return cpu
}

// containerHugepages limits every size the machine has, to nothing unless the
// pod or the container says otherwise.
func (t *Tree) containerHugepages(pod *corev1.Pod, c *corev1.Container) []specs.LinuxHugepageLimit {
	if !t.fs.has("hugetlb") {
		return nil // a runtime refuses limits that it cannot set
	}
	want := map[string]uint64{}
	if pod.Spec.Resources != nil {
		want = hugepages(pod.Spec.Resources.Limits)
	}
	maps.Copy(want, hugepages(c.Resources.Limits))
	var out []specs.LinuxHugepageLimit
	for _, size := range t.pageSizes {
		out = append(out, specs.LinuxHugepageLimit{Pagesize: size, Limit: want[size]})
	}
	return out
}

// unified are the v2 settings that the OCI spec has no other field for.
func (t *Tree) unified(pod *corev1.Pod, c *corev1.Container, limit int64) map[string]string {
	u := map[string]string{}
	if t.cfg.SingleProcessOOMKill == nil || !*t.cfg.SingleProcessOOMKill {
		u["memory.oom.group"] = "1"
	}
	if t.v2Swap {
		u["memory.swap.max"] = strconv.FormatInt(t.swapLimit(pod, c), 10)
	}
	if t.cfg.NoMemoryQoS {
		u["memory.high"] = "max"
		return u
	}
	request := c.Resources.Requests.Memory().Value()
	number := strconv.FormatInt(request, 10)
	switch {
	case !t.cfg.tiered() || request == 0:
		u["memory.min"], u["memory.low"] = "0", "0"
	case ComputeClass(pod) == corev1.PodQOSGuaranteed:
		u["memory.min"] = number
	default:
		u["memory.low"] = number
	}
	if high := t.containerHigh(pod, c, request, limit); high > 0 {
		u["memory.high"] = strconv.FormatInt(high, 10)
	}
	return u
}

// containerHigh is a container's memory.high in bytes, or 0.
func (t *Tree) containerHigh(pod *corev1.Pod, c *corev1.Container, request, limit int64) int64 {
	own := c.Resources.Limits.Memory().Value()
	if t.cfg.MemoryThrottlingFactor == nil || request == own && request != 0 {
		return 0
	}
	if own == 0 {
		if resourcehelper.IsPodLevelLimitsSet(pod) && !pod.Spec.Resources.Limits.Memory().IsZero() {
			return 0
		}
		limit = t.absolute.Memory().Value()
	}
	if high := throttleAt(request, limit, *t.cfg.MemoryThrottlingFactor); high > request {
		return high
	}
	return 0
}

// swapLimit is what a container may swap, in bytes.
func (t *Tree) swapLimit(pod *corev1.Pod, c *corev1.Container) int64 {
	request, limit := c.Resources.Requests.Memory().Value(), c.Resources.Limits.Memory().Value()
	if t.cfg.SwapBehavior != "LimitedSwap" || ComputeClass(pod) != corev1.PodQOSBurstable || critical(pod) ||
		request == limit || request > t.capacity.Memory().Value() || t.capacity.Memory().IsZero() {
		return 0
	}
	return int64(float64(request) / float64(t.capacity.Memory().Value()) * float64(t.swap))
}
