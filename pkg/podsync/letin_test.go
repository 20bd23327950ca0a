package podsync

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestOrderOfAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNode(), t.TempDir()
		named := func(name string, age time.Duration, change func(*corev1.Pod)) *corev1.Pod {
			pod := basePod()
			pod.Name, pod.UID = name, types.UID("uid-"+name)
			pod.CreationTimestamp = metav1.NewTime(time.Now().Add(-age))
			change(pod)
			return pod
		}
		nothing := func(*corev1.Pod) {}
		young := named("young", time.Minute, nothing)
		a := n.run(t, dir)
		a.want(young)
		a.end()
		a = n.run(t, dir)
		defer a.end()
		a.pool.cfg.Room.Allocatable = list("pods", "4")
		started := metav1.Now()
		a.want(
			named("last", time.Minute, nothing),
			named("old", time.Hour, nothing),
			named("was", time.Minute, func(p *corev1.Pod) { p.Status.StartTime = &started }),
			named("vip", time.Minute, func(p *corev1.Pod) { p.Spec.Priority = new(int32(7)) }),
			young,
		)
		var in []string
		for _, pod := range a.pool.Pods() {
			if pod.Status.Phase != corev1.PodFailed {
				in = append(in, pod.Name)
			} else if pod.Status.Reason != "OutOfpods" {
				t.Errorf("%s: want OutOfpods, got %s", pod.Name, pod.Status.Reason)
			}
		}
		check(t, "who was here, then who was before, then the important, then the old", []string{"old", "vip", "was", "young"}, in)
	})
}

func TestAskedNode(t *testing.T) {
	wants := basePod()
	wants.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	old, fresh := &corev1.Node{}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: wants.Spec.NodeSelector}}
	cases := map[string]struct {
		reason string
		node   *corev1.Node
		err    error
		phase  corev1.PodPhase
	}{
		"JustLabelled": {reason: "a label may be newer than what is known", node: fresh, phase: corev1.PodRunning},
		"NotLabelled":  {reason: "or not be there", node: old, phase: corev1.PodFailed},
		"Away":         {reason: "who cannot be asked refuses nobody", err: errors.New("away"), phase: corev1.PodRunning},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newNode().run(t, t.TempDir())
				defer a.end()
				a.pool.cfg.Node = func() *corev1.Node { return old }
				a.pool.cfg.AskNode = func(context.Context) (*corev1.Node, error) { return tc.node, tc.err }
				a.want(wants)
				if s, _ := a.pool.Status(wants.UID); s.Phase != tc.phase {
					t.Errorf("%s: want %s, got %s %s", tc.reason, tc.phase, s.Phase, s.Message)
				}
			})
		})
	}
}
