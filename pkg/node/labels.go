package node

import (
	"encoding/json"
	"maps"
	"runtime"

	corev1 "k8s.io/api/core/v1"
)

// annotationLabels remembers, on the Node, the labels that this agent's
// configuration has set, so that it never takes back what others have changed.
const annotationLabels = "nodeagent.dev/node-labels"

// ownLabels are those that describe the machine itself, in the kubelet's words.
// They are kept true whatever others write.
func ownLabels(hostname string) map[string]string {
	return map[string]string{
		corev1.LabelHostname: hostname,
		corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		"beta.kubernetes.io/os": runtime.GOOS, "beta.kubernetes.io/arch": runtime.GOARCH,
	}
}

// own are the labels that this node says of itself.
func (c *Config) own(hostname string) map[string]string {
	labels := ownLabels(hostname)
	if c.NoOSLabel {
		delete(labels, corev1.LabelOSStable)
		delete(labels, "beta.kubernetes.io/os")
	}
	return labels
}

// reconciled are the labels that the kubelet keeps as they are configured.
func reconciled(key string) bool {
	switch key {
	case corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable, "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
		corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		corev1.LabelInstanceTypeStable, corev1.LabelInstanceType:
		return true
	default:
		return false
	}
}

// mergeLabels is the labels that a node should have: those it has, with ours. A
// label that we set before and that nobody has changed follows the configuration;
// one that someone else has set, changed or removed stays as they left it.
func mergeLabels(have, remembered, want map[string]string) map[string]string {
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for key, value := range remembered {
		if _, still := want[key]; !still && out[key] == value {
			delete(out, key)
		}
	}
	for key, value := range want {
		now, there := have[key]
		before, ours := remembered[key]
		switch {
		case reconciled(key), !there && !ours, there && ours && now == before:
			out[key] = value
		}
	}
	return out
}

// remember reads the annotation back; one that others have spoilt is none.
func remember(node *corev1.Node) map[string]string {
	var out map[string]string
	if json.Unmarshal([]byte(node.Annotations[annotationLabels]), &out) != nil {
		return nil
	}
	return out
}

// remembered is the annotation for labels, empty for none.
func remembered(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	text, err := json.Marshal(labels) // sorts the keys
	if err != nil {
		return "" // not with strings
	}
	return string(text)
}
