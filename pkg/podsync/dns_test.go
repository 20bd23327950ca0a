package podsync

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestResolv(t *testing.T) {
	host := cri.Resolv{Servers: []string{"192.0.2.53"}, Searches: []string{"example.com"}, Options: []string{"timeout:2"}}
	cluster := cri.Resolv{
		Servers:  []string{"10.96.0.10"},
		Searches: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"},
		Options:  []string{"ndots:5"},
	}
	cases := map[string]struct {
		reason   string
		pod      func(*corev1.PodSpec)
		node     func(*DNS)
		want     cri.Resolv
		warnings int
	}{
		"ClusterFirst":        {reason: "the cluster's servers, its domains before the host's", want: cluster},
		"ClusterFirstHostNet": {reason: "in the host's network it means the host's", pod: func(s *corev1.PodSpec) { s.HostNetwork = true }, want: host},
		"WithHostNet": {
			reason: "unless it is said twice",
			pod:    func(s *corev1.PodSpec) { s.HostNetwork, s.DNSPolicy = true, corev1.DNSClusterFirstWithHostNet },
			want:   cluster,
		},
		"Default": {reason: "the host's", pod: func(s *corev1.PodSpec) { s.DNSPolicy = corev1.DNSDefault }, want: host},
		"NoCluster": {
			reason: "without cluster DNS the host's has to do", node: func(d *DNS) { d.ClusterServers = nil }, want: host,
		},
		"NoDomain": {
			reason: "without a cluster domain there is nothing to search in", node: func(d *DNS) { d.ClusterDomain = "" },
			want: cri.Resolv{Servers: cluster.Servers, Searches: host.Searches, Options: cluster.Options},
		},
		"None": {
			reason: "only what the pod brings",
			pod: func(s *corev1.PodSpec) {
				s.DNSPolicy = corev1.DNSNone
				s.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"a.b"}}
			},
			want: cri.Resolv{Servers: []string{"1.1.1.1"}, Searches: []string{"a.b"}},
		},
		"Merge": {
			reason: "what the pod brings is added; its options win; nothing is there twice",
			pod: func(s *corev1.PodSpec) {
				s.DNSConfig = &corev1.PodDNSConfig{
					Nameservers: []string{"1.1.1.1", "10.96.0.10"}, Searches: []string{"example.com", "x.y"},
					Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: new("2")}, {Name: "edns0"}},
				}
			},
			want: cri.Resolv{
				Servers: []string{"10.96.0.10", "1.1.1.1"}, Searches: append(append([]string{}, cluster.Searches...), "x.y"),
				Options: []string{"ndots:2", "edns0"},
			},
		},
		"TooMany": {
			reason: "what no resolver reads is left out, and told",
			pod: func(s *corev1.PodSpec) {
				s.DNSPolicy = corev1.DNSNone
				s.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"}}
				for i := range 33 {
					s.DNSConfig.Searches = append(s.DNSConfig.Searches, fmt.Sprintf("s%d", i))
				}
			},
			want: cri.Resolv{
				Servers: []string{"1.1.1.1", "2.2.2.2", "3.3.3.3"},
				Searches: func() (l []string) {
					for i := range 32 {
						l = append(l, fmt.Sprintf("s%d", i))
					}
					return l
				}(),
			},
			warnings: 2,
		},
		"TooLong": {
			reason: "so is what does not fit into the line",
			pod: func(s *corev1.PodSpec) {
				s.DNSPolicy = corev1.DNSNone
				s.DNSConfig = &corev1.PodDNSConfig{Searches: []string{"short", strings.Repeat("x", 2048)}}
			},
			want:     cri.Resolv{Searches: []string{"short"}},
			warnings: 1,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Spec.DNSPolicy = corev1.DNSClusterFirst
			dns := DNS{ClusterServers: []string{"10.96.0.10"}, ClusterDomain: "cluster.local", Host: host}
			if tc.pod != nil {
				tc.pod(&pod.Spec)
			}
			if tc.node != nil {
				tc.node(&dns)
			}
			got, warnings := resolv(pod, dns)
			if d := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); d != "" || len(warnings) != tc.warnings {
				t.Errorf("%s: warnings %q (-want +got):\n%s", tc.reason, warnings, d)
			}
			if host.Servers[0] != "192.0.2.53" || len(host.Searches) != 1 {
				t.Fatal("the node's own configuration was changed")
			}
		})
	}
}

func TestParseResolv(t *testing.T) {
	text := `# comment
nameserver 192.0.2.53 # local
nameserver fe80::1%eth0
search first.example
search example.com. lan .
options ndots:1 timeout:2
options timeout:2 edns0
nonsense
`
	got, err := ParseResolv(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := cri.Resolv{
		Servers: []string{"192.0.2.53", "fe80::1%eth0"}, Searches: []string{"example.com", "lan", "."},
		Options: []string{"ndots:1", "timeout:2", "edns0"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("as the C library reads it (-want +got):\n%s", d)
	}
}

func TestHostname(t *testing.T) {
	long := strings.Repeat("a", 62) + "-bcd"
	cases := map[string]struct {
		reason       string
		pod          func(*corev1.Pod)
		name, domain string
		err          bool
	}{
		"Name":      {reason: "the pod's name", name: "web"},
		"Own":       {reason: "or what it asks for", pod: func(p *corev1.Pod) { p.Spec.Hostname = "db" }, name: "db"},
		"Long":      {reason: "cut to a label, not ending in a dash", pod: func(p *corev1.Pod) { p.Name = long }, name: strings.Repeat("a", 62)},
		"Subdomain": {reason: "a subdomain lies in the namespace's services", pod: func(p *corev1.Pod) { p.Spec.Subdomain = "sub" }, name: "web", domain: "sub.default.svc.cluster.local"},
		"FQDN": {
			reason: "the kernel's name may be the whole",
			pod:    func(p *corev1.Pod) { p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "sub", new(true) },
			name:   "web.sub.default.svc.cluster.local", domain: "sub.default.svc.cluster.local",
		},
		"FQDNTooLong": {
			reason: "if it fits",
			pod: func(p *corev1.Pod) {
				p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = strings.Repeat("s", 40), new(true)
			},
			err: true,
		},
		"HostNetwork": {reason: "the host's own name", pod: func(p *corev1.Pod) { p.Spec.HostNetwork = true }},
		"Override": {
			reason: "an override is taken as it is",
			pod:    func(p *corev1.Pod) { p.Spec.HostnameOverride, p.Spec.Subdomain = new("a.b.c"), "sub" }, name: "a.b.c",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			if tc.pod != nil {
				tc.pod(pod)
			}
			gotName, gotDomain, err := hostname(pod, "cluster.local")
			if gotName != tc.name || gotDomain != tc.domain || (err != nil) != tc.err {
				t.Errorf("%s: want %q %q, got %q %q %v", tc.reason, tc.name, tc.domain, gotName, gotDomain, err)
			}
		})
	}
}
