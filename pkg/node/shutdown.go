package node

import (
	"cmp"
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What is said of a pod that a shutdown of the machine ends, and of one that
// comes too late, in the kubelet's words.
const (
	ShutdownReason   = "Terminated"
	ShutdownMessage  = "Pod was terminated in response to imminent node shutdown."
	ShutdownRejected = "NodeShutdown"
	ShutdownRefusal  = "Pod was rejected as the node is shutting down."
	ShutdownCause    = "node is shutting down"
)

// criticalPriority is that of system-cluster-critical and above.
const criticalPriority = 2_000_000_000

// Share is the time that pods of a priority and above, up to that of the next
// share, have to end.
type Share struct {
	Priority int32
	Grace    time.Duration
}

// Shares divide the time for a shutdown in two: critical pods end last.
func Shares(total, critical time.Duration) []Share {
	if total <= 0 {
		return nil
	}
	return []Share{{Priority: 0, Grace: total - critical}, {Priority: criticalPriority, Grace: critical}}
}

// Wave is pods that end together.
type Wave struct {
	Grace time.Duration
	Pods  []*corev1.Pod
}

// Waves orders pods for a shutdown, the lowest priority first. A priority below
// all shares belongs to the lowest. Nobody waits for a share without pods.
func Waves(shares []Share, pods []*corev1.Pod) []Wave {
	shares = slices.SortedFunc(slices.Values(shares), func(a, b Share) int { return cmp.Compare(a.Priority, b.Priority) })
	if len(shares) == 0 {
		return nil
	}
	waves := make([]Wave, len(shares))
	for i, s := range shares {
		waves[i].Grace = s.Grace
	}
	for _, pod := range pods {
		at := 0
		for i, s := range shares {
			if pod.Spec.Priority != nil && s.Priority <= *pod.Spec.Priority {
				at = i
			}
		}
		waves[at].Pods = append(waves[at].Pods, pod)
	}
	return slices.DeleteFunc(waves, func(w Wave) bool { return len(w.Pods) == 0 })
}

// Sum is how long a shutdown may take.
func Sum(shares []Share) time.Duration {
	var sum time.Duration
	for _, s := range shares {
		sum += s.Grace
	}
	return sum
}

// lookEvery is how often it is looked whether a wave has ended.
const lookEvery = 100 * time.Millisecond

// endAll ends all pods, wave by wave, each as long as it takes or may take.
func (s *Shutdown) endAll(ctx context.Context) {
	for _, w := range Waves(s.Shares, s.Pods()) {
		s.Log.Info("node shuts down; pods are ended", "pods", len(w.Pods), "grace", w.Grace)
		left := map[types.UID]bool{}
		for _, pod := range w.Pods {
			left[pod.UID] = true
			s.End(pod.UID, w.Grace)
		}
		deadline := time.Now().Add(w.Grace)
		for len(left) > 0 && time.Now().Before(deadline) && ctx.Err() == nil {
			pause(ctx, lookEvery)
			for uid := range left {
				if s.Ended(uid) {
					delete(left, uid)
				}
			}
		}
		if ctx.Err() != nil {
			return
		}
		if len(left) > 0 {
			s.Log.Warn("pods did not end in time for the shutdown", "pods", len(left))
		}
	}
}
