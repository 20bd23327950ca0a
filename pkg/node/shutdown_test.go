package node

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestWaves(t *testing.T) {
	shares := Shares(30*time.Second, 10*time.Second)
	four := []Share{{Priority: 100000, Grace: 10}, {Priority: 0, Grace: 60}, {Priority: 10000, Grace: 180}, {Priority: 1000, Grace: 120}}
	cases := map[string]struct {
		reason string
		shares []Share
		pods   map[string]*int32
		want   map[string]time.Duration // pods end with this share; those with a shorter one in the list first
		order  []string
	}{
		"Two":      {"critical pods end last", shares, map[string]*int32{"critical": new(int32(2_000_001_000)), "plain": nil}, map[string]time.Duration{"plain": 20 * time.Second, "critical": 10 * time.Second}, []string{"plain", "critical"}},
		"Negative": {"below all shares is the lowest", shares, map[string]*int32{"low": new(int32(-5))}, map[string]time.Duration{"low": 20 * time.Second}, []string{"low"}},
		"Boundary": {"a priority belongs to the share that begins with it", four, map[string]*int32{"a": new(int32(999)), "b": new(int32(1000)), "c": new(int32(99999)), "d": new(int32(200000))},
			map[string]time.Duration{"a": 60, "b": 120, "c": 180, "d": 10}, []string{"a", "b", "c", "d"}},
		"None": {"no time, no waves", nil, map[string]*int32{"a": nil}, map[string]time.Duration{}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var pods []*corev1.Pod
			for name, priority := range tc.pods {
				pod := &corev1.Pod{Spec: corev1.PodSpec{Priority: priority}}
				pod.Name = name
				pods = append(pods, pod)
			}
			got, order := map[string]time.Duration{}, []string(nil)
			for _, w := range Waves(tc.shares, pods) {
				for _, pod := range w.Pods {
					got[pod.Name] = w.Grace
					order = append(order, pod.Name)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, d)
			}
			if d := cmp.Diff(tc.order, order); d != "" {
				t.Errorf("%s: order -want +got:\n%s", tc.reason, d)
			}
		})
	}
	if Sum(shares) != 30*time.Second || Shares(0, 0) != nil {
		t.Errorf("the sum of shares is %s", Sum(shares))
	}
}
