package config

import (
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
)

// Validate returns every problem, each named by its field, in the order of the file.
func (c Config) Validate() []error {
	v := &validator{line: c.Line}
	v.pods(c)
	v.hierarchy(c)
	v.node(c)
	v.images(c)
	v.api(c)
	v.runtime(c.Agent)
	v.agreement(c)
	v.guest(c)
	slices.SortStableFunc(v.errs, func(a, b *FieldError) int { return a.Line - b.Line })
	out := make([]error, 0, len(v.errs))
	for _, err := range v.errs {
		out = append(out, err)
	}
	return out
}

type validator struct {
	line func(field string) int
	errs []*FieldError
}

func (v *validator) problem(field, format string, args ...any) {
	v.errs = append(v.errs, &FieldError{Field: field, Line: v.line(field), Err: fmt.Errorf(format, args...)})
}

func (v *validator) oneOf(field, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	if i := slices.Index(allowed, ""); i >= 0 {
		allowed = slices.Delete(slices.Clone(allowed), i, i+1)
	}
	v.problem(field, "%q is not one of %s", value, strings.Join(allowed, ", "))
}

func (v *validator) absolute(field, path string) {
	switch {
	case path == "":
		v.problem(field, "must be set")
	case !filepath.IsAbs(path):
		v.problem(field, "%q is not an absolute path", path)
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		v.problem(field, "%q contains control characters", path)
	}
}

func between[T int | int32 | int64](v *validator, field string, value, least, most T) {
	if value < least || value > most {
		v.problem(field, "%d is not between %d and %d", value, least, most)
	}
}

func (v *validator) notNegative(field string, d time.Duration) {
	if d < 0 {
		v.problem(field, "%s is negative", d)
	}
}

// pods is about where pods come from and what they see.
func (v *validator) pods(c Config) {
	k := c.Kubelet
	if k.StaticPodPath != "" || c.Agent.Profile != ProfileGuest { // a guest's pods come from the API server
		v.absolute("staticPodPath", k.StaticPodPath)
	}
	if k.FileCheckFrequency.Duration < time.Second {
		v.problem("fileCheckFrequency", "%s is less than 1s; changes are seen at once in any case", k.FileCheckFrequency.Duration)
	}
	for i, s := range k.ClusterDNS {
		if _, err := netip.ParseAddr(s); err != nil {
			v.problem(fmt.Sprintf("clusterDNS[%d]", i), "%q is not an IP address", s)
		}
	}
	if k.ClusterDomain != "" {
		for _, m := range validation.IsDNS1123Subdomain(strings.TrimSuffix(k.ClusterDomain, ".")) {
			v.problem("clusterDomain", "%q: %s", k.ClusterDomain, m)
		}
	}
	if path := ptr.Deref(k.ResolverConfig, ""); path != "" {
		v.absolute("resolvConf", path)
	}
	for i, s := range k.AllowedUnsafeSysctls {
		v.sysctl(fmt.Sprintf("allowedUnsafeSysctls[%d]", i), s)
	}
	if k.PodLogsDir != "" {
		v.absolute("podLogsDir", k.PodLogsDir)
	}
	if q, err := resource.ParseQuantity(k.ContainerLogMaxSize); err != nil || q.Sign() <= 0 {
		v.problem("containerLogMaxSize", "%q is not a size such as 10Mi", k.ContainerLogMaxSize)
	}
	between(v, "containerLogMaxFiles", ptr.Deref(k.ContainerLogMaxFiles, 5), 2, 1<<20)
	if d := k.CrashLoopBackOff.MaxContainerRestartPeriod; d != nil && (d.Duration < time.Second || d.Duration > 5*time.Minute) {
		v.problem("crashLoopBackOff.maxContainerRestartPeriod", "%s is not between 1s and 5m0s", d.Duration)
	}
}

// sysctl checks a pattern: only what has a namespace can be a pod's own.
func (v *validator) sysctl(field, s string) {
	name := strings.ReplaceAll(s, "/", ".")
	namespaced := slices.ContainsFunc([]string{"net.", "kernel.shm", "kernel.msg", "fs.mqueue."}, func(p string) bool { return strings.HasPrefix(name, p) })
	switch {
	case strings.Contains(strings.TrimSuffix(name, "*"), "*"):
		v.problem(field, "%q: a * is only possible at the end", s)
	case !namespaced && name != "kernel.sem":
		v.problem(field, "%q has no namespace: pods can only set net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.*", s)
	}
}

// hierarchy is about cgroups.
func (v *validator) hierarchy(c Config) {
	k := c.Kubelet
	v.oneOf("cgroupDriver", k.CgroupDriver, "", "systemd", "cgroupfs")
	if k.CgroupRoot != "" {
		v.absolute("cgroupRoot", k.CgroupRoot)
	}
	if !ptr.Deref(k.CgroupsPerQOS, true) {
		v.problem("cgroupsPerQOS", "false is not possible: the hierarchy is what this agent is for")
	}
	for i, e := range k.EnforceNodeAllocatable {
		field := fmt.Sprintf("enforceNodeAllocatable[%d]", i)
		v.oneOf(field, e, "none", "pods", "system-reserved", "kube-reserved", "system-reserved-compressible", "kube-reserved-compressible")
		switch {
		case e == "none" && len(k.EnforceNodeAllocatable) > 1:
			v.problem(field, "none excludes all others")
		case strings.HasPrefix(e, "system-reserved") && k.SystemReservedCgroup == "":
			v.problem("systemReservedCgroup", "must be set for enforceNodeAllocatable %s", e)
		case strings.HasPrefix(e, "kube-reserved") && k.KubeReservedCgroup == "":
			v.problem("kubeReservedCgroup", "must be set for enforceNodeAllocatable %s", e)
		}
	}
	v.reserved("systemReserved", k.SystemReserved)
	if k.ReservedSystemCPUs != "" && !cpuList(k.ReservedSystemCPUs) {
		v.problem("reservedSystemCPUs", "%q is not a list of CPUs such as 0-1,4", k.ReservedSystemCPUs)
	}
	if k.ReservedSystemCPUs != "" && (k.SystemReservedCgroup != "" || k.KubeReservedCgroup != "") {
		v.problem("reservedSystemCPUs", "cannot be set together with systemReservedCgroup or kubeReservedCgroup")
	}
	for _, r := range slices.Sorted(maps.Keys(k.QOSReserved)) {
		v.oneOf("qosReserved", r, "memory")
		number, isPercent := strings.CutSuffix(k.QOSReserved[r], "%")
		if n, err := strconv.ParseInt(number, 10, 64); err != nil || !isPercent || n < 0 || n > 100 {
			v.problem("qosReserved."+r, "%q is not between 0%% and 100%%", k.QOSReserved[r])
		}
	}
	v.reserved("kubeReserved", k.KubeReserved)
	v.oneOf("memorySwap.swapBehavior", k.MemorySwap.SwapBehavior, "", "NoSwap", "LimitedSwap")
	v.oneOf("memoryReservationPolicy", string(k.MemoryReservationPolicy), "None", "TieredReservation")
	if f := k.MemoryThrottlingFactor; f != nil && (*f <= 0 || *f > 1) {
		v.problem("memoryThrottlingFactor", "%g is not above 0 and at most 1", *f)
	}
	if d := k.CPUCFSQuotaPeriod; d != nil && (d.Duration < time.Millisecond || d.Duration > time.Second) {
		v.problem("cpuCFSQuotaPeriod", "%s is not between 1ms and 1s", d.Duration)
	}
	if n := ptr.Deref(k.PodPidsLimit, -1); n != -1 && n < 1 {
		v.problem("podPidsLimit", "%d is neither -1, for no limit, nor above 0", n)
	}
	between(v, "oomScoreAdj", ptr.Deref(k.OOMScoreAdj, -999), -1000, 1000)
}

func (v *validator) reserved(field string, list map[string]string) {
	for _, r := range slices.Sorted(maps.Keys(list)) {
		v.oneOf(field, r, "cpu", "memory", "ephemeral-storage", "pid")
		if q, err := resource.ParseQuantity(list[r]); err != nil || q.Sign() < 0 {
			v.problem(field+"."+r, "%q is not a quantity of at least 0", list[r])
		}
	}
}

// shares are parts of what the machine has.
func (v *validator) shares(field string, list map[string]string) {
	for _, r := range slices.Sorted(maps.Keys(list)) {
		v.oneOf(field, r, "cpu", "memory", "ephemeral-storage")
		if number, isPercent := strings.CutSuffix(list[r], "%"); isPercent {
			if p, err := strconv.ParseFloat(number, 64); err != nil || !(p > 0 && p <= 100) {
				v.problem(field+"."+r, "%q is not above 0%% and at most 100%%", list[r])
			}
			continue
		}
		if q, err := resource.ParseQuantity(list[r]); err != nil || q.Sign() <= 0 {
			v.problem(field+"."+r, "%q is neither a quantity above 0 nor a percentage", list[r])
		}
	}
}

// node is about what the machine offers, and when it defends itself.
func (v *validator) node(c Config) {
	k := c.Kubelet
	between(v, "maxPods", k.MaxPods, 1, 1<<20)
	between(v, "podsPerCore", k.PodsPerCore, 0, 1<<20)
	v.thresholds("evictionHard", k.EvictionHard)
	v.thresholds("evictionSoft", k.EvictionSoft)
	for _, signal := range slices.Sorted(maps.Keys(k.EvictionSoft)) {
		field := "evictionSoftGracePeriod." + signal
		if text, set := k.EvictionSoftGracePeriod[signal]; !set {
			v.problem(field, "must be set, as evictionSoft.%s is", signal)
		} else if d, err := time.ParseDuration(text); err != nil || d < 0 {
			v.problem(field, "%q is not a time such as 30s", text)
		}
	}
	v.notNegative("evictionPressureTransitionPeriod", k.EvictionPressureTransitionPeriod.Duration)
	v.notNegative("shutdownGracePeriod", k.ShutdownGracePeriod.Duration)
	if k.ShutdownGracePeriodCriticalPods.Duration > k.ShutdownGracePeriod.Duration {
		v.problem("shutdownGracePeriodCriticalPods", "%s is more than shutdownGracePeriod, %s", k.ShutdownGracePeriodCriticalPods.Duration, k.ShutdownGracePeriod.Duration)
	}
	v.membership(c)
	if c.Agent.NodeName != "" {
		for _, m := range validation.IsDNS1123Subdomain(c.Agent.NodeName) {
			v.problem("nodeName", "%q: %s", c.Agent.NodeName, m)
		}
	}
}

func (v *validator) thresholds(field string, list map[string]string) {
	signals := []string{
		"memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree",
		"containerfs.available", "containerfs.inodesFree", "allocatableMemory.available", "pid.available",
	}
	for _, signal := range slices.Sorted(maps.Keys(list)) {
		v.oneOf(field, signal, signals...)
		value := list[signal]
		if number, isPercent := strings.CutSuffix(value, "%"); isPercent {
			if p, err := strconv.ParseFloat(number, 64); err != nil || !(p >= 0 && p <= 100) {
				v.problem(field+"."+signal, "%q is not between 0%% and 100%%", value)
			}
			continue
		}
		if q, err := resource.ParseQuantity(value); err != nil || q.Sign() < 0 {
			v.problem(field+"."+signal, "%q is neither a quantity nor a percentage", value)
		}
	}
}

// images is about pulling and keeping images.
func (v *validator) images(c Config) {
	k := c.Kubelet
	high, low := ptr.Deref(k.ImageGCHighThresholdPercent, 85), ptr.Deref(k.ImageGCLowThresholdPercent, 80)
	between(v, "imageGCHighThresholdPercent", high, 0, 100)
	between(v, "imageGCLowThresholdPercent", low, 0, 100)
	if low >= high && high < 100 {
		v.problem("imageGCLowThresholdPercent", "%d is not less than imageGCHighThresholdPercent, %d", low, high)
	}
	v.notNegative("imageMinimumGCAge", k.ImageMinimumGCAge.Duration)
	if most := k.ImageMaximumGCAge.Duration; most != 0 && most <= k.ImageMinimumGCAge.Duration {
		v.problem("imageMaximumGCAge", "%s is not more than imageMinimumGCAge, %s", most, k.ImageMinimumGCAge.Duration)
	}
	if n := k.MaxParallelImagePulls; n != nil {
		between(v, "maxParallelImagePulls", *n, 1, 1<<20)
		if *n > 1 && ptr.Deref(k.SerializeImagePulls, false) {
			v.problem("maxParallelImagePulls", "%d has no meaning when serializeImagePulls is true", *n)
		}
	}
	between(v, "registryPullQPS", ptr.Deref(k.RegistryPullQPS, 5), 0, 1<<20)
	for i, dir := range c.Agent.HostsDirs {
		v.absolute(fmt.Sprintf("hostsDirs[%d]", i), dir)
	}
	if (c.Agent.ImageCredentialProviderConfig == "") != (c.Agent.ImageCredentialProviderBinDir == "") {
		v.problem("imageCredentialProviderConfig", "must be set together with imageCredentialProviderBinDir")
	}
	for field, path := range sortedPairs("imageCredentialProviderConfig", c.Agent.ImageCredentialProviderConfig, "imageCredentialProviderBinDir", c.Agent.ImageCredentialProviderBinDir,
		"kubeconfig", c.Agent.Kubeconfig, "dockerConfig", c.Agent.DockerConfig, "imageDir", c.Agent.ImageDir) {
		if path != "" {
			v.absolute(field, path)
		}
	}
}

// sortedPairs yields names and values in the order they are given.
func sortedPairs(namesAndValues ...string) func(func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for pair := range slices.Chunk(namesAndValues, 2) {
			if !yield(pair[0], pair[1]) {
				return
			}
		}
	}
}

// cpuList says whether s is a list of CPUs and of ranges of them.
func cpuList(s string) bool {
	const mostCPUs = 1 << 16 // of any kernel
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, isRange := strings.Cut(part, "-")
		if !isRange {
			hi = lo
		}
		first, err := strconv.ParseUint(lo, 10, 64)
		last, lastErr := strconv.ParseUint(hi, 10, 64)
		if err != nil || lastErr != nil || last < first || last >= mostCPUs {
			return false
		}
	}
	return true
}
