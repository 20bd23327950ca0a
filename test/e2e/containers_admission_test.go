//go:build e2e

package e2e

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestRejected sends pods to the node past the scheduler, which it cannot run.
func TestRejected(t *testing.T) {
	s := newSpace(t)
	asks := func(name corev1.ResourceName, q string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			list := corev1.ResourceList{name: resource.MustParse(q)}
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list, Limits: list}
		}
	}
	cases := map[string]struct {
		change  func(*corev1.Pod)
		message string
	}{
		"OutOfcpu":               {asks("cpu", "10k"), "Node didn't have enough resource: cpu, requested: 10000000, used: "},
		"OutOfmemory":            {asks("memory", "1Pi"), "Node didn't have enough resource: memory, requested: 1125899906842624, used: "},
		"OutOfephemeral-storage": {asks("ephemeral-storage", "1Pi"), "Node didn't have enough resource: ephemeral-storage, requested: 1125899906842624, used: "},
		"NodeAffinity": {
			func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"nodeagent.dev/no-such": "label"} },
			"Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
		},
		"PodOSNotSupported": {
			func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} },
			"Failed to admit pod as the OS field doesn't match node OS",
		},
		"SysctlForbidden": {
			func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "kernel.msgmax", Value: "65536"}}}
			},
			`forbidden sysctl: "kernel.msgmax" not allowlisted`,
		},
	}
	uids := map[string]types.UID{}
	for reason, tc := range cases {
		name := strings.ToLower(reason)
		pod := newPod(name, forever, func(p *corev1.Pod) { p.Spec.Affinity, p.Spec.NodeName = nil, cluster.node }, tc.change)
		uids[name] = s.create(pod).UID
	}
	for reason, tc := range cases {
		pod := s.awaitPhase(strings.ToLower(reason), corev1.PodFailed)
		if pod.Status.Reason != reason || !strings.HasPrefix(pod.Status.Message, "Pod was rejected: "+tc.message) || len(pod.Status.ContainerStatuses) > 0 {
			t.Errorf("want reason %s and message %q, got %+v", reason, tc.message, pod.Status)
		}
		if got := s.awaitEvent(pod, reason); !strings.HasPrefix(got, tc.message) {
			t.Errorf("event %s says %q", reason, got)
		}
	}
	for name, uid := range uids {
		if err := s.pods().Delete(s.ctx, name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.awaitGone(name, uid)
	}
}

// TestDeadline ends a pod that has run for too long.
func TestDeadline(t *testing.T) {
	s := newSpace(t)
	s.create(newPod("late", forever, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(3)) }))
	pod := s.awaitPhase("late", corev1.PodFailed)
	if pod.Status.Reason != "DeadlineExceeded" {
		t.Errorf("want DeadlineExceeded, got %s: %s", pod.Status.Reason, pod.Status.Message)
	}
	s.awaitEvent(pod, "DeadlineExceeded")
}

// TestReadinessGate has somebody else say when a pod is ready.
func TestReadinessGate(t *testing.T) {
	s := newSpace(t)
	const gate = corev1.PodConditionType("example.com/open")
	s.create(newPod("gated", forever, func(p *corev1.Pod) { p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: gate}} }))
	pod := s.awaitPod("gated", "has ready containers", func(p *corev1.Pod) bool { return condition(p, corev1.ContainersReady) == corev1.ConditionTrue })
	if ready(pod) {
		t.Error("the gate is closed, and the pod is ready")
	}
	set := func(status string) {
		patch := `{"status":{"conditions":[{"type":"` + string(gate) + `","status":"` + status + `"}]}}`
		if _, err := s.pods().Patch(s.ctx, "gated", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
	set("True")
	s.awaitReady("gated")
	set("False")
	pod = s.awaitPod("gated", "is not ready", func(p *corev1.Pod) bool { return condition(p, corev1.PodReady) == corev1.ConditionFalse })
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Reason != "ReadinessGatesNotReady" {
			t.Errorf("want ReadinessGatesNotReady, got %+v", c)
		}
	}
}
