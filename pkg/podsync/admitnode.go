package podsync

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// The kubelet's names of what is asked of a node's object in the API.
const (
	reasonAffinity = "NodeAffinity"
	reasonTaint    = "TaintToleration"
)

// admitOS refuses what is made for another operating system, which it can say in
// two ways.
func admitOS(pod *corev1.Pod) *Rejection {
	if os, set := pod.Labels[corev1.LabelOSStable]; set && os != string(corev1.Linux) {
		return &Rejection{"PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"}
	}
	if os := pod.Spec.OS; os != nil && os.Name != corev1.Linux {
		return &Rejection{"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"}
	}
	return nil
}

// admitAffinity compares what the pod wants of a node's labels. A node that is
// not known yet is no reason to refuse: whoever chose it knew its labels.
func admitAffinity(pod *corev1.Pod, node *corev1.Node) *Rejection {
	if node == nil {
		return nil
	}
	fits, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
	if fits && err == nil {
		return nil
	}
	return &Rejection{reasonAffinity, predicate(reasonAffinity, "node(s) didn't match Pod's node affinity/selector")}
}

// admitTaints refuses pods that the node's NoExecute taints would drive away at
// once. The other effects are for schedulers, and static pods tolerate all.
func admitTaints(pod *corev1.Pod, node *corev1.Node) *Rejection {
	if node == nil || isStatic(pod) {
		return nil
	}
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		if taint.Effect != corev1.TaintEffectNoExecute ||
			slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return tolerates(&t, taint) }) {
			continue
		}
		return &Rejection{reasonTaint, predicate(reasonTaint, "node(s) had taints that the pod didn't tolerate")}
	}
	return nil
}

// tolerates matches a toleration with a taint; what it leaves empty matches all.
func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case corev1.TolerationOpExists:
		return true
	case "", corev1.TolerationOpEqual:
		return t.Key != "" && t.Value == taint.Value
	default:
		return false
	}
}

func predicate(name, why string) string { return fmt.Sprintf("Predicate %s failed: %s", name, why) }
