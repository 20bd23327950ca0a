package config

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

// defaultAPI are the kubelet's own defaults for what it serves to the cluster.
func defaultAPI(k *kubeletconfig.KubeletConfiguration) {
	k.EnableServer = new(true)
	k.Address = "0.0.0.0"
	k.Port = 10250
	k.TLSMinVersion = "VersionTLS12"
	k.Authentication.Anonymous.Enabled = new(false)
	k.Authentication.Webhook = kubeletconfig.KubeletWebhookAuthentication{Enabled: new(true), CacheTTL: duration(2 * time.Minute)}
	k.Authorization = kubeletconfig.KubeletAuthorization{
		Mode:    kubeletconfig.KubeletAuthorizationModeWebhook,
		Webhook: kubeletconfig.KubeletWebhookAuthorization{CacheAuthorizedTTL: duration(5 * time.Minute), CacheUnauthorizedTTL: duration(30 * time.Second)},
	}
	k.EnableDebuggingHandlers = new(true)
	k.HealthzPort = new(int32(10248))
	k.HealthzBindAddress = "127.0.0.1"
	k.StreamingConnectionIdleTimeout = duration(4 * time.Hour)
}

// completeAPI fills in what was left out of a struct of which a part is set.
func completeAPI(k, defaults *kubeletconfig.KubeletConfiguration) {
	n, d := &k.Authentication, &defaults.Authentication
	n.Anonymous.Enabled = or(n.Anonymous.Enabled, d.Anonymous.Enabled)
	n.Webhook.Enabled = or(n.Webhook.Enabled, d.Webhook.Enabled)
	n.Webhook.CacheTTL = or(n.Webhook.CacheTTL, d.Webhook.CacheTTL)
	z, e := &k.Authorization, &defaults.Authorization
	z.Mode = or(z.Mode, e.Mode)
	z.Webhook.CacheAuthorizedTTL = or(z.Webhook.CacheAuthorizedTTL, e.Webhook.CacheAuthorizedTTL)
	z.Webhook.CacheUnauthorizedTTL = or(z.Webhook.CacheUnauthorizedTTL, e.Webhook.CacheUnauthorizedTTL)
}

func or[T comparable](value, instead T) T {
	var none T
	if value == none {
		return instead
	}
	return value
}

// api is about what the cluster is served.
func (v *validator) api(c Config) {
	k := c.Kubelet
	between(v, "port", k.Port, 1, 65535)
	v.address("address", k.Address)
	if k.HealthzPort != nil {
		between(v, "healthzPort", *k.HealthzPort, 0, 65535)
		if *k.HealthzPort == k.Port {
			v.problem("healthzPort", "%d is the port of the API as well", *k.HealthzPort)
		}
	}
	v.address("healthzBindAddress", k.HealthzBindAddress)
	v.notNegative("streamingConnectionIdleTimeout", k.StreamingConnectionIdleTimeout.Duration)
	v.oneOf("tlsMinVersion", k.TLSMinVersion, "VersionTLS12", "VersionTLS13")
	for i, name := range k.TLSCipherSuites {
		if _, known := suites()[name]; !known {
			v.problem(fmt.Sprintf("tlsCipherSuites[%d]", i), "%q is not one of %s", name, strings.Join(suiteNames(), ", "))
		}
	}
	for field, path := range sortedPairs("tlsCertFile", k.TLSCertFile, "tlsPrivateKeyFile", k.TLSPrivateKeyFile, "authentication.x509.clientCAFile", k.Authentication.X509.ClientCAFile) {
		if path != "" {
			v.absolute(field, path)
		}
	}
	if (k.TLSCertFile == "") != (k.TLSPrivateKeyFile == "") {
		v.problem("tlsCertFile", "tlsCertFile and tlsPrivateKeyFile are only of use together")
	}
	v.oneOf("authorization.mode", string(k.Authorization.Mode), string(kubeletconfig.KubeletAuthorizationModeWebhook), string(kubeletconfig.KubeletAuthorizationModeAlwaysAllow))
	v.notNegative("authentication.webhook.cacheTTL", k.Authentication.Webhook.CacheTTL.Duration)
	v.notNegative("authorization.webhook.cacheAuthorizedTTL", k.Authorization.Webhook.CacheAuthorizedTTL.Duration)
	v.notNegative("authorization.webhook.cacheUnauthorizedTTL", k.Authorization.Webhook.CacheUnauthorizedTTL.Duration)
}

func (v *validator) address(field, ip string) {
	if _, err := netip.ParseAddr(ip); err != nil {
		v.problem(field, "%q is not an IP address", ip)
	}
}

// TLS are the settings of the API's listener.
func (c Config) TLS() (minVersion uint16, cipherSuites []uint16) {
	minVersion = tls.VersionTLS12
	if c.Kubelet.TLSMinVersion == "VersionTLS13" {
		minVersion = tls.VersionTLS13
	}
	for _, name := range c.Kubelet.TLSCipherSuites {
		cipherSuites = append(cipherSuites, suites()[name])
	}
	return minVersion, cipherSuites
}

// suites are the cipher suites that can be asked for: those with forward secrecy
// and authenticated encryption. Of TLS 1.3 all are always on offer.
func suites() map[string]uint16 {
	out := map[string]uint16{
		// Their names of old.
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	for _, s := range tls.CipherSuites() {
		ephemeral := strings.HasPrefix(s.Name, "TLS_ECDHE_") || slices.Equal(s.SupportedVersions, []uint16{tls.VersionTLS13})
		if ephemeral && (strings.Contains(s.Name, "_GCM_") || strings.Contains(s.Name, "_POLY1305")) {
			out[s.Name] = s.ID
		}
	}
	return out
}

func suiteNames() []string {
	var out []string
	for name := range suites() {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
