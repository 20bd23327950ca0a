//go:build e2e

package e2e

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// forever is a script that does nothing, and ends at once when it is told to.
const forever = `trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done`

// newPod is a valid pod of one container, called main, that runs a script on the
// node under test. change, if any, is done to it in turn.
func newPod(name, script string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}, Spec: podSpec(script)}
	for _, c := range change {
		c(pod)
	}
	return pod
}

// podSpec is for everything that makes pods. The scheduler is asked for the node,
// not passed by; a guest node's taint is tolerated.
func podSpec(script string) corev1.PodSpec {
	grace := int64(5)
	return corev1.PodSpec{
		Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
				{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{cluster.node}},
			}}},
		}}},
		Tolerations:                   []corev1.Toleration{{Key: "nodeagent.dev/guest", Operator: corev1.TolerationOpExists}},
		TerminationGracePeriodSeconds: &grace,
		Containers:                    []corev1.Container{container("main", script)},
	}
}

// container runs a script with the demo image's shell.
func container(name, script string) corev1.Container {
	return corev1.Container{
		Name: name, Image: cluster.image, ImagePullPolicy: corev1.PullIfNotPresent, Command: []string{"sh", "-c", script},
	}
}

// never is a change for pods that end.
func never(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }

func ready(p *corev1.Pod) bool { return condition(p, corev1.PodReady) == corev1.ConditionTrue }

// condition is a condition's status, empty when the pod has no such condition.
func condition(p *corev1.Pod, kind corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == kind {
			return c.Status
		}
	}
	return ""
}

// status is a container's, also of an init or ephemeral one; nil without one.
func status(p *corev1.Pod, name string) *corev1.ContainerStatus {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}
