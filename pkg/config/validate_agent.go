package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// maxSocketPath is what the kernel takes for the path of a unix socket.
const maxSocketPath = 107

// runtime is about our own document.
func (v *validator) runtime(a NodeAgentConfiguration) {
	v.oneOf("runtime", a.Runtime, RuntimeAuto, RuntimeEmbedded, RuntimeExternal)
	for field, path := range sortedPairs(
		"rootDir", a.RootDir, "stateDir", a.StateDir, "logDir", a.LogDir, "containerLogDir", a.ContainerLogDir,
		"runtimeDir", a.RuntimeDir, "cniConfDir", a.CNIConfDir,
	) {
		v.absolute(field, path)
	}
	for i, dir := range a.RuntimeBinDirs {
		v.absolute(fmt.Sprintf("runtimeBinDirs[%d]", i), dir)
	}
	for i, dir := range a.CNIBinDirs {
		v.absolute(fmt.Sprintf("cniBinDirs[%d]", i), dir)
	}
	for i, ip := range a.NodeIPs {
		if _, err := netip.ParseAddr(ip); err != nil {
			v.problem(fmt.Sprintf("nodeIPs[%d]", i), "%q is not an IP address", ip)
		}
	}
	if a.Runtime != RuntimeEmbedded {
		v.absolute("containerdAddress", strings.TrimPrefix(a.ContainerdAddress, "unix://"))
	}
	if socket := filepath.Join(a.StateDir, "agent.sock"); len(socket) > maxSocketPath {
		v.problem("stateDir", "%q is too long: the path of a socket in it would have %d characters, and %d are possible", a.StateDir, len(socket), maxSocketPath)
	}
	for _, m := range validation.IsDNS1123Label(a.ContainerdNamespace) {
		v.problem("containerdNamespace", "%q: %s", a.ContainerdNamespace, m)
	}
	if a.Snapshotter == "" {
		v.problem("snapshotter", "must be set")
	}
	if p, err := netip.ParsePrefix(a.PodCIDR); err != nil {
		v.problem("podCIDR", "%q is not a range such as 10.88.0.0/16", a.PodCIDR)
	} else if p.Addr().BitLen()-p.Bits() < 3 {
		v.problem("podCIDR", "%q has no room for pods beside the bridge", a.PodCIDR)
	}
	if b := a.CrashLoopBackOff; b.Initial.Duration < 0 || b.Max.Duration < b.Initial.Duration {
		v.problem("crashLoopBackOff", "initial %s must be at least 0 and not above max %s", b.Initial.Duration, b.Max.Duration)
	}
}

// agreement is about what both documents have a field for.
func (v *validator) agreement(c Config) {
	if dir := c.Kubelet.PodLogsDir; dir != "" && filepath.Clean(dir) != filepath.Clean(c.Agent.LogDir) {
		v.problem("logDir", "%q is not what podLogsDir says, %q: set one of them", c.Agent.LogDir, dir)
	}
	if d := c.Kubelet.CrashLoopBackOff.MaxContainerRestartPeriod; d != nil && *d != c.Agent.CrashLoopBackOff.Max {
		v.problem("crashLoopBackOff.max", "%s is not what maxContainerRestartPeriod of the kubelet's document says, %s: set one of them", c.Agent.CrashLoopBackOff.Max.Duration, d.Duration)
	}
}
