package podsync

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestEndsThatStay(t *testing.T) {
	exit := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	cases := map[string]struct {
		reason string
		policy corev1.RestartPolicy
		static bool
		told   corev1.ContainerState
		have   func(*Have)
		ended  bool
	}{
		"NewSandbox": {
			reason: "an init container that succeeded runs again, which an API server would not believe",
			policy: corev1.RestartPolicyOnFailure, told: exit(0), have: func(h *Have) { h.running("init", 1) }, ended: true,
		},
		"Retried": {
			reason: "one that failed may", policy: corev1.RestartPolicyOnFailure, told: exit(1), have: func(h *Have) { h.running("init", 1) },
		},
		"Always": {
			reason: "in a pod that always restarts all may", policy: corev1.RestartPolicyAlways, told: exit(0), have: func(h *Have) { h.running("init", 1) },
		},
		"Static": {
			reason: "of a static pod the truth is told", policy: corev1.RestartPolicyOnFailure, static: true, told: exit(0), have: func(h *Have) { h.running("init", 1) },
		},
		"NotToldYet": {
			reason: "what was not told need not stay", policy: corev1.RestartPolicyOnFailure, have: func(h *Have) { h.running("init", 1) },
		},
		"Replaced": {
			reason: "who ends to be started again has not ended", policy: corev1.RestartPolicyNever,
			have: func(h *Have) { h.Replace[h.exited("init", 0, 0).ID] = Replace{Resize: true} },
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			withInit(pod, "init")
			pod.Spec.RestartPolicy = tc.policy
			if !tc.static {
				pod.Annotations[configSource] = sourceAPI
			}
			h := baseHave(pod)
			tc.have(h)
			old := corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{{Name: "init", State: tc.told}}}
			got := statusOfBase(pod, h, nil, old).InitContainerStatuses[0].State
			if (got.Terminated != nil) != tc.ended {
				t.Errorf("%s: got %+v", tc.reason, got)
			}
		})
	}
}
