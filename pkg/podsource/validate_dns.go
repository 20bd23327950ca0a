package podsource

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Limits of a resolv.conf, as the API has them.
const (
	maxNameservers  = 3
	maxSearches     = 32
	maxSearchLength = 2048
)

// dns checks all that gives a pod names, and names to find others by.
func (v *validator) dns(path *field.Path) {
	spec := &v.pod.Spec
	oneOf(v, path.Child("dnsPolicy"), spec.DNSPolicy, corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, corev1.DNSDefault, corev1.DNSNone)
	if spec.DNSPolicy == corev1.DNSNone && (spec.DNSConfig == nil || len(spec.DNSConfig.Nameservers) == 0) {
		v.required(path.Child("dnsConfig", "nameservers"), "dnsPolicy is None")
	}
	if spec.DNSConfig != nil {
		v.dnsConfig(path.Child("dnsConfig"), spec.DNSConfig)
	}
	if spec.Hostname != "" {
		v.messages(path.Child("hostname"), spec.Hostname, validation.IsDNS1123Label(spec.Hostname))
	}
	if spec.Subdomain != "" {
		v.messages(path.Child("subdomain"), spec.Subdomain, validation.IsDNS1123Label(spec.Subdomain))
	}
	if name := spec.HostnameOverride; name != nil && *name != "" {
		path := path.Child("hostnameOverride")
		v.messages(path, *name, validation.IsDNS1123Subdomain(*name))
		if len(*name) > 64 {
			v.add(field.TooLong(path, *name, 64))
		}
		if ptr.Deref(spec.SetHostnameAsFQDN, false) {
			v.forbidden(path, "setHostnameAsFQDN excludes it")
		}
		if spec.HostNetwork {
			v.forbidden(path, "hostNetwork excludes it")
		}
	}
	for i := range spec.HostAliases {
		a, path := &spec.HostAliases[i], path.Child("hostAliases").Index(i)
		v.add(validation.IsValidIP(path.Child("ip"), a.IP)...)
		for j, name := range a.Hostnames {
			v.messages(path.Child("hostnames").Index(j), name, validation.IsDNS1123Subdomain(name))
		}
	}
}

func (v *validator) dnsConfig(path *field.Path, c *corev1.PodDNSConfig) {
	servers, searches := path.Child("nameservers"), path.Child("searches")
	if n := len(c.Nameservers); n > maxNameservers {
		v.add(field.TooMany(servers, n, maxNameservers))
	}
	for i, ip := range c.Nameservers {
		v.add(validation.IsValidIP(servers.Index(i), ip)...)
	}
	if n := len(c.Searches); n > maxSearches {
		v.add(field.TooMany(searches, n, maxSearches))
	}
	if len(strings.Join(c.Searches, " ")) > maxSearchLength {
		v.invalid(searches, c.Searches, "must not be longer than %d characters together", maxSearchLength)
	}
	for i, s := range c.Searches {
		if s != "." { // the root, and names may end with it
			v.messages(searches.Index(i), s, validation.IsDNS1123SubdomainWithUnderscore(strings.TrimSuffix(s, ".")))
		}
	}
	for i, o := range c.Options {
		if o.Name == "" {
			v.required(path.Child("options").Index(i).Child("name"), "")
		}
		v.printable(path.Child("options").Index(i).Child("name"), o.Name)
		v.printable(path.Child("options").Index(i).Child("value"), ptr.Deref(o.Value, ""))
	}
}
