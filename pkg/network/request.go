package network

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"github.com/containernetworking/cni/libcni"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	ingressAnnotation = "kubernetes.io/ingress-bandwidth"
	egressAnnotation  = "kubernetes.io/egress-bandwidth"

	capPortMappings   = "portMappings"
	capBandwidth      = "bandwidth"
	capDNS            = "dns"
	capCgroupPath     = "cgroupPath"
	capPodAnnotations = "io.kubernetes.cri.pod-annotations"

	// ifName is the interface every Kubernetes pod has.
	ifName = "eth0"
)

// The JSON forms below are fixed by the CNI conventions document.

type portMapping struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

type bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

type dns struct {
	Servers  []string `json:"servers,omitempty"`
	Searches []string `json:"searches,omitempty"`
	Options  []string `json:"options,omitempty"`
}

// request returns what the plugins are told about the pod.
func request(sandboxID, netnsPath, cgroupPath string, pod *corev1.Pod) (*libcni.RuntimeConf, error) {
	rt := &libcni.RuntimeConf{
		ContainerID: sandboxID,
		NetNS:       netnsPath,
		IfName:      ifName,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", pod.Namespace},
			{"K8S_POD_NAME", pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", sandboxID},
			{"K8S_POD_UID", string(pod.UID)},
		},
		CapabilityArgs: map[string]any{},
	}
	if ports := portMappings(pod); len(ports) > 0 {
		rt.CapabilityArgs[capPortMappings] = ports
	}
	bw, err := podBandwidth(pod.Annotations)
	if err != nil {
		return nil, err
	}
	if bw != (bandwidth{}) {
		rt.CapabilityArgs[capBandwidth] = bw
	}
	if d := podDNS(pod.Spec.DNSConfig); d != nil {
		rt.CapabilityArgs[capDNS] = d
	}
	if cgroupPath != "" {
		rt.CapabilityArgs[capCgroupPath] = cgroupPath
	}
	if len(pod.Annotations) > 0 {
		rt.CapabilityArgs[capPodAnnotations] = pod.Annotations
	}
	return rt, nil
}

// portMappings lists the host ports of the containers which run for the pod's
// whole life, sidecars included.
func portMappings(pod *corev1.Pod) []portMapping {
	var out []portMapping
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			protocol := strings.ToLower(string(p.Protocol))
			if protocol == "" {
				protocol = "tcp"
			}
			out = append(out, portMapping{
				HostPort: p.HostPort, ContainerPort: p.ContainerPort, Protocol: protocol, HostIP: p.HostIP,
			})
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	return out
}

func podBandwidth(annotations map[string]string) (bandwidth, error) {
	var bw bandwidth
	for _, side := range []struct {
		key         string
		rate, burst *uint64
	}{
		{ingressAnnotation, &bw.IngressRate, &bw.IngressBurst},
		{egressAnnotation, &bw.EgressRate, &bw.EgressBurst},
	} {
		value, ok := annotations[side.key]
		if !ok {
			continue
		}
		rate, err := parseRate(value)
		if err != nil {
			return bandwidth{}, &AnnotationError{Key: side.key, Value: value, Err: err}
		}
		*side.rate, *side.burst = rate, burst(rate)
	}
	return bw, nil
}

// parseRate reads bits per second, in the range every Kubernetes network has.
func parseRate(value string) (uint64, error) {
	q, err := resource.ParseQuantity(value)
	if err != nil {
		return 0, fmt.Errorf("parse bits per second: %w", err)
	}
	low, high := resource.MustParse("1k"), resource.MustParse("1P")
	if q.Cmp(low) < 0 || q.Cmp(high) > 0 {
		return 0, fmt.Errorf("must be between %s and %s bits per second", low.String(), high.String())
	}
	return uint64(q.Value()), nil
}

// burst is a tenth of a second at full rate, at least four maximal GSO packets.
// The token bucket starts full, so that the usual "as large as fits" would let
// the first half gigabyte of each pod pass unlimited.
func burst(rate uint64) uint64 {
	const fourPackets = 4 * 64 * 1024 * 8
	return min(max(rate/10, fourPackets), math.MaxUint32)
}

func podDNS(c *corev1.PodDNSConfig) *dns {
	if c == nil {
		return nil
	}
	d := &dns{Servers: c.Nameservers, Searches: c.Searches}
	for _, o := range c.Options {
		if o.Value == nil {
			d.Options = append(d.Options, o.Name)
			continue
		}
		d.Options = append(d.Options, o.Name+":"+*o.Value)
	}
	return d
}

// prune drops the plugins which have nothing to do for this request. Both are
// defined to pass their input through when their capability is absent, and
// bandwidth is kept if its configuration limits pods by itself.
func prune(list *libcni.NetworkConfigList, caps map[string]any) (*libcni.NetworkConfigList, error) {
	pruned := *list
	pruned.Plugins = nil
	for i, p := range list.Plugins {
		if i > 0 && idle(p, caps) {
			continue
		}
		pruned.Plugins = append(pruned.Plugins, p)
	}
	if len(pruned.Plugins) == len(list.Plugins) {
		return list, nil
	}
	return withBytes(&pruned)
}

func idle(p *libcni.PluginConfig, caps map[string]any) bool {
	capability := map[string]string{"portmap": capPortMappings, "bandwidth": capBandwidth}[p.Network.Type]
	if _, asked := caps[capability]; capability == "" || asked {
		return false
	}
	var own struct {
		IngressRate uint64 `json:"ingressRate"`
		EgressRate  uint64 `json:"egressRate"`
	}
	if err := json.Unmarshal(p.Bytes, &own); err != nil {
		return false
	}
	return own.IngressRate == 0 && own.EgressRate == 0
}

// withBytes rewrites the list's source to match its plugins: libcni stores the
// source beside the result, and Del runs what was stored.
func withBytes(list *libcni.NetworkConfigList) (*libcni.NetworkConfigList, error) {
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(list.Bytes, &raw); err != nil {
		return nil, fmt.Errorf("decode network %s: %w", list.Name, err)
	}
	plugins := make([]json.RawMessage, 0, len(list.Plugins))
	for _, p := range list.Plugins {
		plugins = append(plugins, p.Bytes)
	}
	var err error
	if raw["plugins"], err = json.Marshal(plugins); err != nil {
		return nil, fmt.Errorf("encode network %s: %w", list.Name, err)
	}
	// Plugins of a folder beside the file are inlined above.
	raw["loadOnlyInlinedPlugins"] = json.RawMessage("true")
	if list.Bytes, err = json.Marshal(raw); err != nil {
		return nil, fmt.Errorf("encode network %s: %w", list.Name, err)
	}
	return list, nil
}

// unmet lists the capabilities a pod needs and no plugin of the list offers.
func unmet(list *libcni.NetworkConfigList, caps map[string]any) []string {
	var out []string
	for _, want := range []string{capPortMappings, capBandwidth} {
		if _, asked := caps[want]; !asked {
			continue
		}
		offered := false
		for _, p := range list.Plugins {
			offered = offered || p.Network.Capabilities[want]
		}
		if !offered {
			out = append(out, want)
		}
	}
	return out
}
