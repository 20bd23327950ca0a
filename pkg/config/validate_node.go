package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/ptr"
)

// membership is about the Node object.
func (v *validator) membership(c Config) {
	k := c.Kubelet
	for field, d := range map[string]time.Duration{
		"nodeStatusUpdateFrequency": k.NodeStatusUpdateFrequency.Duration, "nodeStatusReportFrequency": k.NodeStatusReportFrequency.Duration,
	} {
		if d < time.Second {
			v.problem(field, "%s is less than 1s", d)
		}
	}
	between(v, "nodeStatusMaxImages", ptr.Deref(k.NodeStatusMaxImages, 50), -1, 1<<20)
	between(v, "nodeLeaseDurationSeconds", k.NodeLeaseDurationSeconds, 4, 1<<20)
	for field, path := range sortedPairs("bootstrapKubeconfig", c.Agent.BootstrapKubeconfig, "certDir", c.Agent.CertDir) {
		if path != "" {
			v.absolute(field, path)
		}
	}
	if c.Agent.BootstrapKubeconfig != "" && c.Agent.Kubeconfig == "" {
		v.problem("kubeconfig", "must be set as well as bootstrapKubeconfig: it is written when there is a certificate")
	}
	if len(k.ShutdownGracePeriodByPodPriority) > 0 && k.ShutdownGracePeriod.Duration > 0 {
		v.problem("shutdownGracePeriodByPodPriority", "cannot be set together with shutdownGracePeriod")
	}
	for i, p := range k.ShutdownGracePeriodByPodPriority {
		if p.ShutdownGracePeriodSeconds < 0 {
			v.problem(fmt.Sprintf("shutdownGracePeriodByPodPriority[%d]", i), "%d seconds are negative", p.ShutdownGracePeriodSeconds)
		}
	}
	v.taints(k.RegisterWithTaints)
	v.nodeLabels(c.Agent.NodeLabels)
}

func (v *validator) taints(taints []corev1.Taint) {
	seen := map[string]bool{}
	for i, t := range taints {
		field := fmt.Sprintf("registerWithTaints[%d]", i)
		for _, m := range validation.IsQualifiedName(t.Key) {
			v.problem(field+".key", "%q: %s", t.Key, m)
		}
		for _, m := range validation.IsValidLabelValue(t.Value) {
			v.problem(field+".value", "%q: %s", t.Value, m)
		}
		v.oneOf(field+".effect", string(t.Effect), string(corev1.TaintEffectNoSchedule), string(corev1.TaintEffectPreferNoSchedule), string(corev1.TaintEffectNoExecute))
		if id := t.Key + ":" + string(t.Effect); seen[id] {
			v.problem(field, "%s is there twice", id)
		} else {
			seen[id] = true
		}
	}
}

// nodeLabels checks labels that a node is to give itself: the API server refuses
// those by which others decide what may run on it.
func (v *validator) nodeLabels(labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		for _, m := range validation.IsQualifiedName(key) {
			v.problem("nodeLabels", "%q: %s", key, m)
		}
		for _, m := range validation.IsValidLabelValue(labels[key]) {
			v.problem("nodeLabels", "%q of %q: %s", labels[key], key, m)
		}
		if !settable(key) {
			v.problem("nodeLabels", "a node cannot set %q on itself: use a name outside of kubernetes.io and k8s.io, or one below node.kubernetes.io", key)
		}
	}
}

// settable are the labels that the NodeRestriction admission lets a node set.
func settable(key string) bool {
	domain, _, has := strings.Cut(key, "/")
	within := func(parent string) bool { return domain == parent || strings.HasSuffix(domain, "."+parent) }
	switch {
	case !has:
		return true
	case within("kubelet.kubernetes.io"), within("node.kubernetes.io"):
		return true
	case !within("kubernetes.io") && !within("k8s.io"):
		return true
	default:
		return slices.Contains([]string{
			corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
			corev1.LabelInstanceType, corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
			corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		}, key)
	}
}
