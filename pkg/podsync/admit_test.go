package podsync

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func list(kv ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		out[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return out
}

func TestAdmit(t *testing.T) {
	ask := func(kv ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list(kv...) }
	}
	port := func(ip string, proto corev1.Protocol) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 8080, HostIP: ip, Protocol: proto}}
		}
	}
	sysctl := func(name string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: name, Value: "1"}}}
		}
	}
	selector := func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"disk": "ssd"} }
	affinity := func(op corev1.NodeSelectorOperator, values ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
				RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
					MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: op, Values: values}},
				}}},
			}}
		}
	}
	labelled := func(kv ...string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Labels = map[string]string{kv[0]: kv[1]} }
	}
	tainted := func(effect corev1.TaintEffect) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: "broken", Value: "yes", Effect: effect}}
		}
	}
	fromAPI := func(tolerations ...corev1.Toleration) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Annotations["kubernetes.io/config.source"] = "api"
			p.Spec.Tolerations = tolerations
		}
	}
	elsewhere := &Rejection{"NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
	untolerated := &Rejection{"TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"}
	cases := map[string]struct {
		reason string
		pod    func(*corev1.Pod)
		other  func(*corev1.Pod)
		room   func(*Room)
		node   func(*corev1.Node)
		want   *Rejection
	}{
		"Fits":       {reason: "a pod that asks for nothing fits"},
		"ExactlyCPU": {reason: "the last millicore may be used", pod: ask("cpu", "1500m"), other: ask("cpu", "500m")},
		"OverCPU": {
			reason: "one more may not", pod: ask("cpu", "1501m"), other: ask("cpu", "500m"),
			want: &Rejection{"OutOfcpu", "Node didn't have enough resource: cpu, requested: 1501, used: 500, capacity: 2000"},
		},
		"CPUBeforeMemory": {
			reason: "the first obstacle is reported, cpu before memory", pod: ask("memory", "2Gi", "cpu", "3"),
			want: &Rejection{"OutOfcpu", "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000"},
		},
		"OverMemory": {
			reason: "memory is counted in bytes", pod: ask("memory", "2Gi"),
			want: &Rejection{"OutOfmemory", "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824"},
		},
		"OverPods": {
			reason: "even a pod that asks for nothing takes a place", other: func(*corev1.Pod) {},
			room: func(r *Room) { r.Allocatable["pods"] = resource.MustParse("1") },
			want: &Rejection{"OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1"},
		},
		"Overhead": {
			reason: "overhead counts", pod: func(p *corev1.Pod) { p.Spec.Overhead = list("cpu", "3") },
			want: &Rejection{"OutOfcpu", "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000"},
		},
		"Extended":  {reason: "what the node does not list is left to its provider", pod: ask("example.com/gpu", "1")},
		"Ephemeral": {reason: "so is storage that nobody measures", pod: ask("ephemeral-storage", "1Ti")},
		"Hugepages": {
			reason: "hugepages are the node's own", pod: ask("hugepages-2Mi", "4Mi"),
			want: &Rejection{"OutOfhugepages-2Mi", "Node didn't have enough resource: hugepages-2Mi, requested: 4194304, used: 0, capacity: 0"},
		},
		"PortTaken": {
			reason: "a host port serves one pod", pod: port("", ""), other: port("127.0.0.1", corev1.ProtocolTCP),
			want: &Rejection{"NodePorts", "Predicate NodePorts failed: host port 80/TCP is taken by pod default/other"},
		},
		"OtherAddress":  {reason: "on one address", pod: port("192.0.2.1", ""), other: port("127.0.0.1", "")},
		"OtherProtocol": {reason: "and for one protocol", pod: port("", corev1.ProtocolUDP), other: port("", corev1.ProtocolTCP)},
		"Wildcard": {
			reason: "a wildcard address is every address", pod: port("0.0.0.0", ""), other: port("192.0.2.1", ""),
			want: &Rejection{"NodePorts", "Predicate NodePorts failed: host port 80/TCP is taken by pod default/other"},
		},
		"Windows": {
			reason: "this is no Windows node", pod: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} },
			want: &Rejection{"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"},
		},
		"WindowsByLabel": {
			reason: "nor when a label says so", pod: func(p *corev1.Pod) { p.Labels = map[string]string{corev1.LabelOSStable: "windows"} },
			want: &Rejection{"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"},
		},
		"Selected":          {reason: "the node has the label", pod: selector, node: labelled("disk", "ssd")},
		"NotSelected":       {reason: "it has another", pod: selector, node: labelled("disk", "hdd"), want: elsewhere},
		"SelectedUnknown":   {reason: "a node that is not known refuses nobody", pod: selector},
		"Affine":            {reason: "affinity is heard, too", pod: affinity("In", "ssd", "nvme"), node: labelled("disk", "nvme")},
		"NotAffine":         {reason: "and must fit", pod: affinity("NotIn", "hdd"), node: labelled("disk", "hdd"), want: elsewhere},
		"AffinityNotParsed": {reason: "what nobody understands fits nowhere", pod: affinity("Near", "hdd"), node: labelled("disk", "hdd"), want: elsewhere},
		"Storage": {
			reason: "storage is what the API says the node has", pod: ask("ephemeral-storage", "2Gi"),
			node: func(n *corev1.Node) { n.Status.Allocatable = list("ephemeral-storage", "1Gi", "cpu", "0") },
			want: &Rejection{"OutOfephemeral-storage", "Node didn't have enough resource: ephemeral-storage, requested: 2147483648, used: 0, capacity: 1073741824"},
		},
		"Given": {
			reason: "so is what somebody else gave to the node", pod: ask("example.com/gpu", "2"), other: ask("example.com/gpu", "1"),
			node: func(n *corev1.Node) { n.Status.Allocatable = list("example.com/gpu", "2") },
			want: &Rejection{"OutOfexample.com/gpu", "Node didn't have enough resource: example.com/gpu, requested: 2, used: 1, capacity: 2"},
		},
		"Tainted":        {reason: "a NoExecute taint would drive it away at once", pod: fromAPI(), node: tainted(corev1.TaintEffectNoExecute), want: untolerated},
		"TaintedStatic":  {reason: "static pods are not asked", node: tainted(corev1.TaintEffectNoExecute)},
		"TaintedToStart": {reason: "the other taints are the scheduler's", pod: fromAPI(), node: tainted(corev1.TaintEffectNoSchedule)},
		"Tolerates": {
			reason: "the taint is tolerated", node: tainted(corev1.TaintEffectNoExecute),
			pod: fromAPI(corev1.Toleration{Key: "broken", Value: "yes", Effect: corev1.TaintEffectNoExecute}),
		},
		"ToleratesAll": {
			reason: "as any would be", node: tainted(corev1.TaintEffectNoExecute), pod: fromAPI(corev1.Toleration{Operator: corev1.TolerationOpExists}),
		},
		"ToleratesOther": {
			reason: "another value is another taint", node: tainted(corev1.TaintEffectNoExecute),
			pod: fromAPI(corev1.Toleration{Key: "broken", Operator: corev1.TolerationOpEqual, Value: "no"}), want: untolerated,
		},
		"SafeSysctl":    {reason: "safe sysctls need no leave", pod: sysctl("net.ipv4.ip_unprivileged_port_start")},
		"SlashedSysctl": {reason: "in either spelling", pod: sysctl("net/ipv4/tcp_syncookies")},
		"UnsafeSysctl": {
			reason: "unsafe ones do", pod: sysctl("net.core.somaxconn"),
			want: &Rejection{"SysctlForbidden", `forbidden sysctl: "net.core.somaxconn" not allowlisted`},
		},
		"AllowedSysctl": {
			reason: "which the node may give", pod: sysctl("net.core.somaxconn"),
			room: func(r *Room) { r.UnsafeSysctls = []string{"net.core.*"} },
		},
		"HostSysctl": {
			reason: "but never for what would change the host", pod: sysctl("vm.overcommit_memory"),
			room: func(r *Room) { r.UnsafeSysctls = []string{"vm.*"} },
			want: &Rejection{"SysctlForbidden", `forbidden sysctl: "vm.overcommit_memory" not namespaced`},
		},
		"HostNetSysctl": {
			reason: "nor for a namespace that is the host's",
			pod: func(p *corev1.Pod) {
				sysctl("net.ipv4.tcp_syncookies")(p)
				p.Spec.HostNetwork = true
			},
			want: &Rejection{"SysctlForbidden", `forbidden sysctl: "net.ipv4.tcp_syncookies" not allowed with host net enabled`},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			if tc.pod != nil {
				tc.pod(pod)
			}
			var load Load
			if tc.other != nil {
				o := basePod()
				o.Name, o.UID = "other", "uid-other"
				tc.other(o)
				load.Add(o)
			}
			room := Room{Allocatable: list("cpu", "2", "memory", "1Gi", "pods", "10")}
			if tc.room != nil {
				tc.room(&room)
			}
			if tc.node != nil {
				room.Node = &corev1.Node{}
				tc.node(room.Node)
			}
			if d := cmp.Diff(tc.want, Admit(pod, load, room)); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}
