package config

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// What tells a guest from other nodes.
const (
	// GuestKey is the key of the taint that keeps pods off a guest, and of its label.
	GuestKey = "nodeagent.dev/guest"
	// HostKey is the key of the label with the name of the machine's own node.
	HostKey = "nodeagent.dev/host"
	// GuestSuffix is what a guest's name ends with.
	GuestSuffix = "-nodeagent"
	// guestCgroup is the cgroup that everything of a guest lies in; with systemd
	// nodeagent.slice.
	guestCgroup = "/nodeagent"
)

// beGuest changes the defaults to those of a guest: nothing that its host's
// kubelet owns, opens or tidies up. A kubelet removes logs and kills cgroups of
// pods that it does not know; it gives all images and containers of its namespace
// to the CRI.
func beGuest(c *Config) {
	k, a := &c.Kubelet, &c.Agent
	k.StaticPodPath = "" // the kubelet's directory is the kubelet's
	k.CgroupRoot = guestCgroup
	k.Port, k.HealthzPort = 10350, new(int32(10348))
	k.RegisterWithTaints = []corev1.Taint{{Key: GuestKey, Value: "true", Effect: corev1.TaintEffectNoSchedule}}
	a.Kubeconfig = "/var/lib/nodeagent/kubeconfig" // written when there is a certificate
	a.NodeLabels = map[string]string{GuestKey: "true"}
	a.Runtime = RuntimeExternal
	a.LogDir = "/var/log/nodeagent/pods"
	a.ContainerLogDir = "/var/log/nodeagent/containers"
}

// Host is the name of the node whose machine a guest is on.
func (a *NodeAgentConfiguration) Host() string { return strings.TrimSuffix(a.NodeName, GuestSuffix) }

// guest is about what a node on a machine that belongs to another one may not do.
func (v *validator) guest(c Config) {
	a := c.Agent
	v.oneOf("profile", a.Profile, "", ProfileStandalone, ProfileNode, ProfileGuest)
	if a.Profile == ProfileStandalone && a.Kubeconfig != "" {
		v.problem("kubeconfig", "%q makes a node of a machine that is to be standalone: leave out one of profile and kubeconfig", a.Kubeconfig)
	}
	v.shares("capacity", a.Capacity)
	if a.Profile != ProfileGuest {
		return
	}
	for _, r := range []string{"cpu", "memory"} {
		if a.Capacity[r] == "" {
			v.problem("capacity."+r, "must be set: a guest shares its machine, and what is not told apart is scheduled twice. Reserve the same in the kubelet's systemReserved")
		}
	}
	if a.Runtime != RuntimeExternal {
		v.problem("runtime", "%q is not possible: a guest uses the containerd of its machine (%s)", a.Runtime, RuntimeExternal)
	}
	if root := strings.Trim(c.Kubelet.CgroupRoot, "/"); root == "" {
		v.problem("cgroupRoot", "%q is the kubelet's", c.Kubelet.CgroupRoot)
	}
	if a.LogDir == defaultAgent().LogDir {
		v.problem("logDir", "%q is the kubelet's, which removes the logs of pods that it does not know", a.LogDir)
	}
}
