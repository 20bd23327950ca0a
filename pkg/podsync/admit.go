package podsync

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Rejection says why a pod may not run here.
type Rejection struct {
	Reason, Message string
}

// ofNode says whether it is about what the API says of the node.
func (r *Rejection) ofNode() bool { return r.Reason == reasonAffinity || r.Reason == reasonTaint }

// Room is what a node has to offer.
type Room struct {
	Allocatable   corev1.ResourceList
	UnsafeSysctls []string // allowed beside the safe ones; a trailing * matches the rest
	// Closed says why no pod is let in at all, nil while they are. It may be nil.
	Closed func() *Rejection
	// Node is this node in the API, or nil while that is not known.
	Node *corev1.Node
}

// Load is what the pods of a node hold together.
type Load struct {
	Pods     int
	Requests corev1.ResourceList
	Ports    []takenPort
}

// takenPort is a port of the node and who has it.
type takenPort struct {
	hostPort
	owner string
}

// Add counts a pod in.
func (l *Load) Add(pod *corev1.Pod) {
	l.Pods++
	if l.Requests == nil {
		l.Requests = corev1.ResourceList{}
	}
	for name, q := range requests(pod) {
		l.Requests[name] = sum(l.Requests[name], q)
	}
	for _, p := range hostPorts(pod) {
		l.Ports = append(l.Ports, takenPort{p, fullName(pod)})
	}
}

// Admit says whether pod fits beside the load of all pods that still hold
// resources. Nil means it does. Only the first obstacle is reported, as the
// kubelet does.
func Admit(pod *corev1.Pod, load Load, room Room) *Rejection {
	return cmp.Or(
		room.closed(),
		admitSysctls(pod, room.UnsafeSysctls),
		admitOS(pod),
		admitResources(pod, load, room.allocatable()),
		admitAffinity(pod, room.Node),
		admitPorts(pod, load.Ports),
		admitTaints(pod, room.Node),
	)
}

func (r *Room) closed() *Rejection {
	if r.Closed == nil {
		return nil
	}
	return r.Closed()
}

// allocatable adds what only the API knows: storage, and resources that somebody
// else has given to the node.
func (r *Room) allocatable() corev1.ResourceList {
	if r.Node == nil {
		return r.Allocatable
	}
	list := r.Node.Status.Allocatable.DeepCopy()
	if list == nil {
		return r.Allocatable
	}
	maps.Copy(list, r.Allocatable)
	return list
}

// admitResources compares requests only. A resource that the node does not list
// is left to whoever provides it, as the kubelet leaves extended resources;
// hugepages are always the node's own.
func admitResources(pod *corev1.Pod, load Load, allocatable corev1.ResourceList) *Rejection {
	if most, listed := allocatable[corev1.ResourcePods]; listed && int64(load.Pods)+1 > most.Value() {
		return insufficient(corev1.ResourcePods, 1, int64(load.Pods), most.Value())
	}
	want := requests(pod)
	for _, name := range slices.SortedFunc(maps.Keys(want), byImportance) {
		have, listed := allocatable[name]
		if q := want[name]; q.IsZero() || !listed && !strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix) {
			continue
		}
		used := load.Requests[name]
		if total := sum(want[name], used); total.Cmp(have) > 0 {
			return insufficient(name, amount(name, want[name]), amount(name, used), amount(name, have))
		}
	}
	return nil
}

// byImportance puts cpu before memory before the rest, so that the one obstacle
// reported is the one that people look for first.
func byImportance(a, b corev1.ResourceName) int {
	rank := func(n corev1.ResourceName) int {
		return 1 + slices.Index([]corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceCPU}, n)
	}
	return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(a, b))
}

func requests(pod *corev1.Pod) corev1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

func sum(a, b resource.Quantity) resource.Quantity {
	total := a.DeepCopy()
	total.Add(b)
	return total
}

// amount is in the unit of Kubernetes' own messages.
func amount(name corev1.ResourceName, q resource.Quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}

func insufficient(name corev1.ResourceName, requested, used, capacity int64) *Rejection {
	return &Rejection{
		Reason: "OutOf" + string(name),
		Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
			name, requested, used, capacity),
	}
}

type hostPort struct {
	ip       string // "" is every address
	protocol corev1.Protocol
	port     int32
}

func (p hostPort) conflicts(o hostPort) bool {
	return p.port == o.port && p.protocol == o.protocol && (p.ip == o.ip || p.ip == "" || o.ip == "")
}

// hostPorts lists the ports that pod takes on the node while it runs. Ordinary
// init containers take none: they serve nobody.
func hostPorts(pod *corev1.Pod) []hostPort {
	var ports []hostPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			ip := p.HostIP
			if ip == "0.0.0.0" || ip == "::" {
				ip = ""
			}
			ports = append(ports, hostPort{ip, cmp.Or(p.Protocol, corev1.ProtocolTCP), p.HostPort})
		}
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; isSidecar(c) {
			add(c)
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	return ports
}

func admitPorts(pod *corev1.Pod, taken []takenPort) *Rejection {
	want := hostPorts(pod)
	for _, t := range taken {
		if slices.ContainsFunc(want, t.conflicts) {
			return &Rejection{"NodePorts", fmt.Sprintf("Predicate NodePorts failed: host port %d/%s is taken by pod %s",
				t.port, t.protocol, t.owner)}
		}
	}
	return nil
}

// safeSysctls are namespaced and cannot harm the node or its neighbours.
func safeSysctls() []string {
	return []string{
		"kernel.shm_rmid_forced",
		"net.ipv4.ip_local_port_range",
		"net.ipv4.ip_local_reserved_ports",
		"net.ipv4.ip_unprivileged_port_start",
		"net.ipv4.ping_group_range",
		"net.ipv4.tcp_fin_timeout",
		"net.ipv4.tcp_keepalive_intvl",
		"net.ipv4.tcp_keepalive_probes",
		"net.ipv4.tcp_keepalive_time",
		"net.ipv4.tcp_notsent_lowat",
		"net.ipv4.tcp_rmem",
		"net.ipv4.tcp_slow_start_after_idle",
		"net.ipv4.tcp_syncookies",
		"net.ipv4.tcp_wmem",
	}
}

// admitSysctls refuses what would leave the pod: a sysctl without a namespace,
// or one whose namespace the pod shares with the host.
func admitSysctls(pod *corev1.Pod, unsafe []string) *Rejection {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := strings.ReplaceAll(s.Name, "/", ".")
		why := ""
		switch {
		case strings.HasPrefix(name, "net.") && pod.Spec.HostNetwork:
			why = "not allowed with host net enabled"
		case isIPCSysctl(name) && pod.Spec.HostIPC:
			why = "not allowed with host ipc enabled"
		case !isIPCSysctl(name) && !strings.HasPrefix(name, "net.") && name != "kernel.shm_rmid_forced":
			why = "not namespaced"
		case !slices.Contains(safeSysctls(), name) && !slices.ContainsFunc(unsafe, func(p string) bool { return matches(p, name) }):
			why = "not allowlisted"
		default:
			continue
		}
		return &Rejection{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q %s", s.Name, why)}
	}
	return nil
}

func isIPCSysctl(name string) bool {
	return slices.ContainsFunc([]string{"kernel.shm", "kernel.msg", "fs.mqueue."}, func(p string) bool {
		return strings.HasPrefix(name, p)
	}) || name == "kernel.sem"
}

func matches(pattern, name string) bool {
	pattern = strings.ReplaceAll(pattern, "/", ".")
	if prefix, wild := strings.CutSuffix(pattern, "*"); wild {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}
