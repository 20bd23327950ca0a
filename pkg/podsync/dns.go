package podsync

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// What a resolver library is sure to read; Kubernetes refuses more.
const (
	maxNameservers     = 3
	maxSearchPaths     = 32
	maxSearchListChars = 2048
)

// DNS is what the node knows about name service.
type DNS struct {
	ClusterServers []string
	ClusterDomain  string
	Host           cri.Resolv // the node's own resolv.conf
}

// resolv is the pod's resolv.conf. warnings say what had to be left out or
// replaced, in words for an event.
func resolv(pod *corev1.Pod, dns DNS) (out cri.Resolv, warnings []string) {
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault // by definition; ...WithHostNet is the way to say otherwise
	}
	cluster := policy == "" || policy == corev1.DNSClusterFirst || policy == corev1.DNSClusterFirstWithHostNet
	switch {
	case policy == corev1.DNSNone:
	case cluster && len(dns.ClusterServers) > 0:
		out.Servers = slices.Clone(dns.ClusterServers)
		out.Searches = clusterSearches(pod.Namespace, dns)
		out.Options = []string{"ndots:5"}
	default:
		out = cri.Resolv{
			Servers:  slices.Clone(dns.Host.Servers),
			Searches: slices.Clone(dns.Host.Searches),
			Options:  slices.Clone(dns.Host.Options),
		}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = unique(append(out.Servers, c.Nameservers...))
		out.Searches = unique(append(out.Searches, c.Searches...))
		out.Options = mergeOptions(out.Options, c.Options)
	}
	return limitResolv(out)
}

func clusterSearches(namespace string, dns DNS) []string {
	if dns.ClusterDomain == "" {
		return slices.Clone(dns.Host.Searches)
	}
	own := []string{namespace + ".svc." + dns.ClusterDomain, "svc." + dns.ClusterDomain, dns.ClusterDomain}
	return unique(append(own, dns.Host.Searches...))
}

// mergeOptions lets the pod's value of an option win over an earlier one.
func mergeOptions(have []string, pod []corev1.PodDNSConfigOption) []string {
	out := slices.Clone(have)
	for _, o := range pod {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		same := func(s string) bool { name, _, _ := strings.Cut(s, ":"); return name == o.Name }
		if i := slices.IndexFunc(out, same); i >= 0 {
			out[i] = text
		} else {
			out = append(out, text)
		}
	}
	return out
}

func limitResolv(r cri.Resolv) (cri.Resolv, []string) {
	var warnings []string
	if len(r.Servers) > maxNameservers {
		r.Servers = r.Servers[:maxNameservers]
		warnings = append(warnings, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+
			strings.Join(r.Servers, " "))
	}
	fit := min(len(r.Searches), maxSearchPaths)
	for fit > 0 && len(strings.Join(r.Searches[:fit], " ")) > maxSearchListChars {
		fit--
	}
	if fit < len(r.Searches) {
		r.Searches = r.Searches[:fit]
		warnings = append(warnings, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+
			strings.Join(r.Searches, " "))
	}
	return r, warnings
}

func unique(list []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(s string) bool {
		again := seen[s]
		seen[s] = true
		return again
	})
}

// ParseResolv reads a resolv.conf. As in the C library the last search line
// wins, while servers and options add up.
func ParseResolv(r io.Reader) (cri.Resolv, error) {
	var out cri.Resolv
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		text, _, _ := strings.Cut(strings.TrimSpace(lines.Text()), "#")
		text, _, _ = strings.Cut(text, ";")
		fields := strings.Fields(text)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			out.Servers = append(out.Servers, fields[1])
		case "search":
			out.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				out.Searches = append(out.Searches, s)
			}
		case "options":
			out.Options = unique(append(out.Options, fields[1:]...))
		}
	}
	if err := lines.Err(); err != nil {
		return out, fmt.Errorf("read resolver configuration: %w", err)
	}
	return out, nil
}
