package podsync

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	maxHostname = 63 // of a label
	maxFQDN     = 64 // what the kernel's nodename holds
)

// hostname is the pod's host name and DNS domain. A pod in the host's network
// has the host's name, which "" stands for.
func hostname(pod *corev1.Pod, clusterDomain string) (name, domain string, err error) {
	if o := pod.Spec.HostnameOverride; o != nil {
		if len(*o) > maxFQDN {
			return "", "", fmt.Errorf("hostnameOverride %q is longer than the %d characters that the kernel holds", *o, maxFQDN)
		}
		return *o, "", nil
	}
	if pod.Spec.HostNetwork {
		return "", "", nil
	}
	name = cmp.Or(pod.Spec.Hostname, pod.Name)
	if len(name) > maxHostname {
		name = strings.TrimRight(name[:maxHostname], "-.")
	}
	if pod.Spec.Subdomain != "" {
		domain = pod.Spec.Subdomain + "." + pod.Namespace + ".svc"
		if clusterDomain != "" {
			domain += "." + clusterDomain
		}
	}
	if asFQDN := pod.Spec.SetHostnameAsFQDN; asFQDN != nil && *asFQDN && domain != "" {
		name += "." + domain
		if len(name) > maxFQDN {
			return "", "", fmt.Errorf("construct FQDN from pod hostname and cluster domain: FQDN %s is too long (%d characters is the max, %d characters requested)",
				name, maxFQDN, len(name))
		}
	}
	return name, domain, nil
}
