package podsync

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// keepEnds leaves containers ended that were told to have ended for good, and run
// again all the same: init containers do in a new sandbox. An API server would
// take no status of the pod any more.
func keepEnds(pod *corev1.Pod, told, list []corev1.ContainerStatus) {
	if isStatic(pod) {
		return
	}
	for i := range list {
		c := &list[i]
		j := slices.IndexFunc(told, func(s corev1.ContainerStatus) bool { return s.Name == c.Name })
		if j < 0 || told[j].State.Terminated == nil || c.State.Terminated != nil {
			continue
		}
		if spec := specOf(pod, c.Name); spec != nil && !mayReturn(pod, spec, told[j].State.Terminated.ExitCode) {
			c.State, c.Ready = told[j].State, told[j].Ready
		}
	}
}

// mayReturn says whether an API server believes that a container which exited with
// code is started again. Of init containers it believes more than is true.
func mayReturn(pod *corev1.Pod, c *corev1.Container, code int32) bool {
	return mayRestartAll(&pod.Spec) || c.RestartPolicy == nil && pod.Spec.RestartPolicy == corev1.RestartPolicyAlways ||
		afterExit(pod, c, code) != final
}
