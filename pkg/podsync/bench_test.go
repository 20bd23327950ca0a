package podsync

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// BenchmarkPass is the cost of looking at a pod that is as it should be.
func BenchmarkPass(b *testing.B) {
	pod := basePod()
	withSidecars(pod, "proxy")
	h := baseHave(pod)
	h.running("proxy", 0)
	h.running("main", 0)
	w := Want{Pod: pod}
	var old corev1.PodStatus
	b.ReportAllocs()
	for b.Loop() {
		old = Status(w, *h, Next(w, *h, now), old, now)
	}
}
