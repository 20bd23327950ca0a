package podsync

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// BenchmarkStart is the agent's own cost of starting a pod on a node where so
// many start one after the other, as manifests arrive. It should not depend on
// how many there are.
func BenchmarkStart(b *testing.B) {
	for _, pods := range []int{10, 100, 500} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			var spent time.Duration
			for range b.N {
				spent += startAll(b, pods)
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N*pods), "ns/pod")
		})
	}
}

func startAll(b *testing.B, count int) time.Duration {
	n := newNode()
	cfg := Config{
		Desired: NewDesired("file"), Runtime: n, Images: n, Cgroups: fakeCgroups{n}, Volumes: fakeVolumes{n},
		Probes: fakeProbes{n}, Status: fakeBoard{n}, Event: func(*corev1.Pod, string, string, string, string) {},
		Lookups: testLookups(), NodeIPs: []string{"192.0.2.1"}, RootDir: b.TempDir(), StateDir: b.TempDir(),
		Log: slog.New(slog.DiscardHandler),
	}
	pool := NewPool(cfg)
	n.Wake = pool.Wake
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- pool.Run(ctx) }()
	began := time.Now()
	var pods []*corev1.Pod
	for i := range count {
		pod := basePod()
		pod.Name, pod.UID = fmt.Sprintf("p%d", i), types.UID(fmt.Sprintf("uid-%d", i))
		pods = append(slices.Clip(pods), pod)
		cfg.Desired.Set("file", pods)
		pool.WakeAll()
	}
	for running := 0; running < count; {
		running = 0
		for _, w := range pool.list() {
			if w.status().Phase == corev1.PodRunning {
				running++
			}
		}
		time.Sleep(time.Millisecond)
	}
	spent := time.Since(began)
	stop()
	if err := <-done; err != nil {
		b.Error(err)
	}
	return spent
}
