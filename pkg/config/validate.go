package config

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
)

// Validate returns every problem, each named by its field.
func (c Config) Validate() []error {
	var errs []error
	problem := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{field}, args...)...))
	}
	k, a := c.Kubelet, c.Agent
	oneOf := func(field, value string, allowed ...string) {
		if !slices.Contains(allowed, value) {
			problem(field, "%q is not one of %s", value, strings.Join(allowed, ", "))
		}
	}
	absolute := func(field, path string) {
		if !filepath.IsAbs(path) {
			problem(field, "%q is not an absolute path", path)
		}
	}
	oneOf("cgroupDriver", k.CgroupDriver, "", "systemd", "cgroupfs")
	oneOf("memoryReservationPolicy", string(k.MemoryReservationPolicy), "None", "TieredReservation")
	oneOf("memorySwap.swapBehavior", k.MemorySwap.SwapBehavior, "", "NoSwap", "LimitedSwap")
	oneOf("runtime", a.Runtime, RuntimeAuto, RuntimeEmbedded, RuntimeExternal)
	for _, v := range k.EnforceNodeAllocatable {
		oneOf("enforceNodeAllocatable", v, "pods", "none")
	}
	if !ptr.Deref(k.CgroupsPerQOS, true) {
		problem("cgroupsPerQOS", "false is not possible: the hierarchy is what this agent is for")
	}
	for field, path := range map[string]string{
		"staticPodPath": k.StaticPodPath, "rootDir": a.RootDir, "stateDir": a.StateDir, "logDir": a.LogDir,
		"containerLogDir": a.ContainerLogDir, "runtimeDir": a.RuntimeDir, "cniConfDir": a.CNIConfDir,
	} {
		absolute(field, path)
	}
	if k.CgroupRoot != "" {
		absolute("cgroupRoot", k.CgroupRoot)
	}
	if k.MaxPods < 1 {
		problem("maxPods", "%d is less than 1", k.MaxPods)
	}
	if d := k.CPUCFSQuotaPeriod; d != nil && (d.Duration < time.Millisecond || d.Duration > time.Second) {
		problem("cpuCFSQuotaPeriod", "%s is not between 1ms and 1s", d.Duration)
	}
	if f := k.MemoryThrottlingFactor; f != nil && (*f <= 0 || *f > 1) {
		problem("memoryThrottlingFactor", "%g is not above 0 and at most 1", *f)
	}
	if ptr.Deref(k.ContainerLogMaxFiles, 5) < 2 {
		problem("containerLogMaxFiles", "%d is less than 2", *k.ContainerLogMaxFiles)
	}
	if _, err := resource.ParseQuantity(k.ContainerLogMaxSize); err != nil {
		problem("containerLogMaxSize", "%q: %v", k.ContainerLogMaxSize, err)
	}
	for field, reserved := range map[string]map[string]string{"kubeReserved": k.KubeReserved, "systemReserved": k.SystemReserved} {
		for r, v := range reserved {
			oneOf(field, r, "cpu", "memory", "ephemeral-storage", "pid")
			if q, err := resource.ParseQuantity(v); err != nil || q.Sign() < 0 {
				problem(field+"."+r, "%q is not a quantity of at least 0", v)
			}
		}
	}
	if _, _, err := net.ParseCIDR(a.PodCIDR); err != nil {
		problem("podCIDR", "%q is not a range such as 10.88.0.0/16", a.PodCIDR)
	}
	if a.NodeName != "" {
		for _, m := range validation.IsDNS1123Subdomain(a.NodeName) {
			problem("nodeName", "%q: %s", a.NodeName, m)
		}
	}
	if b := a.CrashLoopBackOff; b.Initial.Duration < 0 || b.Max.Duration < b.Initial.Duration {
		problem("crashLoopBackOff", "initial %s must be at least 0 and not above max %s", b.Initial.Duration, b.Max.Duration)
	}
	return errs
}
