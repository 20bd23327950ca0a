package network

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func basePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
	}
}

func TestRequest(t *testing.T) {
	baseArgs := [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", "shop"},
		{"K8S_POD_NAME", "web"},
		{"K8S_POD_INFRA_CONTAINER_ID", "box"},
		{"K8S_POD_UID", "uid-1"},
	}
	cases := map[string]struct {
		reason string
		pod    func(*corev1.Pod)
		cgroup string
		want   map[string]any
	}{
		"Plain": {
			reason: "a pod that asks for nothing gives no capability, so that optional plugins can be left out",
			want:   map[string]any{},
		},
		"HostPorts": {
			reason: "only ports with a host port are mapped, with protocols as CNI spells them",
			pod: func(p *corev1.Pod) {
				p.Spec.Containers[0].Ports = []corev1.ContainerPort{
					{ContainerPort: 80, HostPort: 8080},
					{ContainerPort: 53, HostPort: 53, Protocol: corev1.ProtocolUDP, HostIP: "127.0.0.1"},
					{ContainerPort: 9090},
				}
			},
			want: map[string]any{capPortMappings: []portMapping{
				{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
				{HostPort: 53, ContainerPort: 53, Protocol: "udp", HostIP: "127.0.0.1"},
			}},
		},
		"SidecarPorts": {
			reason: "a sidecar serves as long as the pod does, an init container never",
			pod: func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{
					{Name: "init", Ports: []corev1.ContainerPort{{ContainerPort: 1, HostPort: 1}}},
					{
						Name: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
						Ports: []corev1.ContainerPort{{ContainerPort: 2, HostPort: 2}},
					},
				}
			},
			want: map[string]any{capPortMappings: []portMapping{{HostPort: 2, ContainerPort: 2, Protocol: "tcp"}}},
		},
		"DNSAndCgroup": {
			reason: "options with values are joined as resolv.conf has them",
			pod: func(p *corev1.Pod) {
				p.Spec.DNSConfig = &corev1.PodDNSConfig{
					Nameservers: []string{"10.0.0.10"},
					Searches:    []string{"example.org"},
					Options:     []corev1.PodDNSConfigOption{{Name: "ndots", Value: new("2")}, {Name: "edns0"}},
				}
			},
			cgroup: "/kubepods/poduid-1",
			want: map[string]any{
				capDNS:        &dns{Servers: []string{"10.0.0.10"}, Searches: []string{"example.org"}, Options: []string{"ndots:2", "edns0"}},
				capCgroupPath: "/kubepods/poduid-1",
			},
		},
		"Bandwidth": {
			reason: "rates are bits per second, each side on its own",
			pod: func(p *corev1.Pod) {
				p.Annotations = map[string]string{ingressAnnotation: "100M"}
			},
			want: map[string]any{
				capBandwidth:      bandwidth{IngressRate: 100e6, IngressBurst: 10e6},
				capPodAnnotations: map[string]string{ingressAnnotation: "100M"},
			},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			if tc.pod != nil {
				tc.pod(pod)
			}
			got, err := request("box", "/ns/net", tc.cgroup, pod)
			if err != nil {
				t.Fatalf("request: %v", err)
			}
			want := &libcni.RuntimeConf{
				ContainerID: "box", NetNS: "/ns/net", IfName: "eth0", Args: baseArgs, CapabilityArgs: tc.want,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func TestParseRate(t *testing.T) {
	cases := map[string]struct {
		reason, value string
		want          uint64
		wantErr       bool
	}{
		"Smallest": {reason: "1k is the lower bound", value: "1k", want: 1000},
		"Largest":  {reason: "1P is the upper bound", value: "1P", want: 1e15},
		"Below":    {reason: "one under the lower bound", value: "999", wantErr: true},
		"Above":    {reason: "one over the upper bound", value: "1000000000000001", wantErr: true},
		"Word":     {reason: "not a quantity", value: "fast", wantErr: true},
		"Negative": {reason: "no rate is negative", value: "-5M", wantErr: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := parseRate(tc.value)
			if got != tc.want || (err != nil) != tc.wantErr {
				t.Errorf("%s: parseRate(%q) = %d, %v; want %d, error %t", tc.reason, tc.value, got, err, tc.want, tc.wantErr)
			}
		})
	}
}

func TestBadAnnotationIsNamed(t *testing.T) {
	pod := basePod()
	pod.Annotations = map[string]string{egressAnnotation: "12 apples"}
	_, err := request("box", "/ns/net", "", pod)
	var bad *AnnotationError
	if !errors.As(err, &bad) || bad.Key != egressAnnotation {
		t.Errorf("a limit that cannot be honoured must say which: got %v", err)
	}
}

func TestBurst(t *testing.T) {
	cases := map[string]struct {
		reason string
		rate   uint64
		want   uint64
	}{
		"Slow":   {reason: "a bucket below some packets would stall TCP", rate: 1e6, want: 4 * 64 * 1024 * 8},
		"Middle": {reason: "a tenth of a second", rate: 1e9, want: 1e8},
		"Fast":   {reason: "the plugin's field ends here", rate: 1e15, want: math.MaxUint32},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := burst(tc.rate); got != tc.want {
				t.Errorf("%s: burst(%d) = %d, want %d", tc.reason, tc.rate, got, tc.want)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	const bridge = `{"type":"bridge","bridge":"br0"}`
	const portmap = `{"type":"portmap","capabilities":{"portMappings":true}}`
	const bandwidthConf = `{"type":"bandwidth","capabilities":{"bandwidth":true}}`
	cases := map[string]struct {
		reason  string
		plugins []string
		caps    map[string]any
		want    []string
	}{
		"Nothing asked": {
			reason:  "plugins without work are processes for nothing",
			plugins: []string{bridge, portmap, bandwidthConf},
			want:    []string{"bridge"},
		},
		"Ports": {
			reason:  "what is asked for runs",
			plugins: []string{bridge, portmap, bandwidthConf},
			caps:    map[string]any{capPortMappings: true},
			want:    []string{"bridge", "portmap"},
		},
		"Static limit": {
			reason:  "a limit in the configuration holds for every pod",
			plugins: []string{bridge, `{"type":"bandwidth","ingressRate":1000,"ingressBurst":1000}`},
			want:    []string{"bridge", "bandwidth"},
		},
		"Unknown plugin": {
			reason:  "only plugins known to pass through are left out",
			plugins: []string{bridge, `{"type":"tuning","capabilities":{"mac":true}}`},
			want:    []string{"bridge", "tuning"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			raw := make([]json.RawMessage, 0, len(tc.plugins))
			for _, p := range tc.plugins {
				raw = append(raw, json.RawMessage(p))
			}
			source, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "test", "plugins": raw})
			if err != nil {
				t.Fatal(err)
			}
			list, err := libcni.NetworkConfFromBytes(source)
			if err != nil {
				t.Fatal(err)
			}
			pruned, err := prune(list, tc.caps)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, pluginTypes(pruned)); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
			stored, err := libcni.NetworkConfFromBytes(pruned.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, pluginTypes(stored)); diff != "" {
				t.Errorf("what is stored for Del must be what ran\n-want +got:\n%s", diff)
			}
		})
	}
}

func pluginTypes(list *libcni.NetworkConfigList) []string {
	var out []string
	for _, p := range list.Plugins {
		out = append(out, p.Network.Type)
	}
	return out
}
