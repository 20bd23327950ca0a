package podsync

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestNextInit(t *testing.T) {
	runNext(t, map[string]nextCase{
		"FirstOnly": {
			reason: "init containers run one after the other",
			pod:    func(p *corev1.Pod) { withInit(p, "one", "two") },
			want:   next{Steps: []Step{start("one", 0)}},
		},
		"WaitsForFirst": {
			reason: "a running init container holds up the rest",
			pod:    func(p *corev1.Pod) { withInit(p, "one", "two") },
			have:   func(h *Have) { h.running("one", 0) },
		},
		"SecondAfterFirst": {
			reason: "success lets the next start",
			pod:    func(p *corev1.Pod) { withInit(p, "one", "two") },
			have:   func(h *Have) { h.exited("one", 0, 0) },
			want:   next{Steps: []Step{start("two", 0)}},
		},
		"FailureRestarts": {
			reason: "a failed init container is restarted",
			pod:    func(p *corev1.Pod) { withInit(p, "one") },
			have:   func(h *Have) { h.exited("one", 0, 1) },
			want:   next{Steps: []Step{start("one", 1)}},
		},
		"FailureIsFinal": {
			reason: "without restarts a failed init container is the end of the pod",
			pod: func(p *corev1.Pod) {
				withInit(p, "one")
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
			},
			have: func(h *Have) { h.exited("one", 0, 1) },
			want: next{Phase: Terminating, End: &End{Phase: corev1.PodFailed}, Steps: []Step{StopSandbox{}}},
		},
		"MainAfterAll": {
			reason: "main containers start when the last init container is done",
			pod:    func(p *corev1.Pod) { withInit(p, "one", "two") },
			have: func(h *Have) {
				h.exited("one", 0, 0)
				h.exited("two", 0, 0)
			},
			want: next{Steps: []Step{start("main", 0)}},
		},
		"NotAgain": {
			reason: "init containers are not run again when a main container restarts, even if nobody remembers them",
			pod:    func(p *corev1.Pod) { withInit(p, "one") },
			have:   func(h *Have) { h.exited("main", 0, 1) },
			want:   next{Steps: []Step{start("main", 1)}},
		},
	})
}

func TestNextSidecar(t *testing.T) {
	runNext(t, map[string]nextCase{
		"StartsFirst": {
			reason: "a sidecar starts in its place among the init containers",
			pod:    func(p *corev1.Pod) { withSidecars(p, "proxy") },
			want:   next{Steps: []Step{start("proxy", 0)}},
		},
		"StartupProbeGates": {
			reason: "the next waits for the sidecar's startup probe",
			pod:    func(p *corev1.Pod) { withSidecars(p, "proxy") },
			have:   func(h *Have) { h.Probes[h.running("proxy", 0).ID] = Health{} },
		},
		"PostStartGates": {
			reason: "the next waits for the sidecar's postStart hook",
			pod:    func(p *corev1.Pod) { withSidecars(p, "proxy") },
			have: func(h *Have) {
				h.running("proxy", 0)
				h.Busy["container proxy"] = "start"
			},
		},
		"StartedLetsMainStart": {
			reason: "a sidecar that has started lets the rest start, and goes on",
			pod:    func(p *corev1.Pod) { withSidecars(p, "proxy") },
			have:   func(h *Have) { h.running("proxy", 0) },
			want:   next{Steps: []Step{start("main", 0)}},
		},
		"CrashedBeforeMain": {
			reason: "a sidecar that crashed before the rest had started holds it up",
			pod:    func(p *corev1.Pod) { withSidecars(p, "proxy") },
			have:   func(h *Have) { h.exited("proxy", 0, 0) },
			want:   next{Steps: []Step{start("proxy", 1)}},
		},
		"CrashedLater": {
			reason: "a sidecar restarts beside the main containers, which restart, too",
			pod:    func(p *corev1.Pod) { withSidecars(p, "proxy") },
			have: func(h *Have) {
				h.exited("proxy", 0, 0)
				h.exited("main", 0, 1)
			},
			want: next{Steps: []Step{start("proxy", 1), start("main", 1)}},
		},
		"RestartsUnderNever": {
			reason: "a sidecar is restarted even in a pod that never restarts",
			pod: func(p *corev1.Pod) {
				withSidecars(p, "proxy")
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
			},
			have: func(h *Have) {
				h.exited("proxy", 0, 1)
				h.running("main", 0)
			},
			want: next{Steps: []Step{start("proxy", 1)}},
		},
		"StopsAfterMain": {
			reason: "a finished Job must not be held open by its sidecar",
			pod: func(p *corev1.Pod) {
				withSidecars(p, "proxy")
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
			},
			have: func(h *Have) {
				h.running("proxy", 0)
				h.exited("main", 0, 0)
			},
			want: next{
				Phase: Terminating, End: &End{}, Wake: 30 * time.Second,
				Steps: []Step{StopContainer{Container: "proxy", ID: "proxy-0", Grace: 30 * time.Second}},
			},
		},
	})
}

func TestNextEnd(t *testing.T) {
	deleted := func(ago, grace time.Duration) func(*Want) {
		return func(w *Want) { w.End, w.Gone = &End{At: now.Add(-ago), Grace: grace}, true }
	}
	stop := func(name string, grace time.Duration) StopContainer {
		return StopContainer{Container: name, ID: id(name, 0), Grace: grace}
	}
	runNext(t, map[string]nextCase{
		"MainsFirst": {
			reason: "main containers stop together, sidecars wait for them",
			pod: func(p *corev1.Pod) {
				withSidecars(p, "a", "b")
				withContainers(p, "second")
			},
			have: func(h *Have) {
				h.running("a", 0)
				h.running("b", 0)
				h.running("main", 0)
				h.running("second", 0)
			},
			given: deleted(0, 30*time.Second),
			want: next{
				Phase: Terminating, End: &End{}, Wake: 30 * time.Second,
				Steps: []Step{stop("second", 30*time.Second), stop("main", 30*time.Second)},
			},
		},
		"SidecarsInReverse": {
			reason: "the last sidecar stops first, with what is left of the grace period",
			pod:    func(p *corev1.Pod) { withSidecars(p, "a", "b") },
			have: func(h *Have) {
				h.running("a", 0)
				h.running("b", 0)
				h.exited("main", 0, 0)
			},
			given: deleted(12*time.Second, 30*time.Second),
			want:  next{Phase: Terminating, End: &End{}, Wake: 18 * time.Second, Steps: []Step{stop("b", 18*time.Second)}},
		},
		"GraceOver": {
			reason: "when the grace period is over no one waits for anyone",
			pod:    func(p *corev1.Pod) { withSidecars(p, "a") },
			have: func(h *Have) {
				h.running("a", 0)
				h.running("main", 0)
			},
			given: deleted(31*time.Second, 30*time.Second),
			want:  next{Phase: Terminating, End: &End{}, Steps: []Step{stop("main", 0), stop("a", 0)}},
		},
		"StartInFlight": {
			reason: "what is just being started may yet have to be stopped",
			have:   func(h *Have) { h.Busy["container main"] = "start" },
			given:  deleted(0, 30*time.Second),
			want:   next{Phase: Terminating, End: &End{}},
		},
		"SandboxLast": {
			reason: "the network stays until the last container has stopped",
			have:   func(h *Have) { h.exited("main", 0, 0) },
			given:  deleted(0, 30*time.Second),
			want:   next{Phase: Terminating, End: &End{}, Steps: []Step{StopSandbox{}}},
		},
		"VolumesThenCgroup": {
			reason: "memory-backed volumes go before the cgroup that pays for them",
			have:   func(h *Have) { h.Pod.Sandbox, h.VolumesGone = nil, true },
			given:  deleted(0, 30*time.Second),
			want:   next{Phase: Terminated, End: &End{}, Steps: []Step{RemoveCgroup{}}},
		},
		"EndedStays": {
			reason: "a pod that ended by itself stays to be looked at until its source drops it",
			have: func(h *Have) {
				h.exited("main", 0, 0)
				h.Pod.Sandbox, h.VolumesGone, h.CgroupGone = nil, true, true
			},
			given: func(w *Want) { w.End = &End{} },
			want:  next{Phase: Terminated, End: &End{}},
		},
		"GoneIsRemoved": {
			reason: "a pod in no source leaves nothing in the runtime",
			have: func(h *Have) {
				h.exited("main", 0, 0)
				h.Pod.Sandbox, h.VolumesGone, h.CgroupGone = nil, true, true
			},
			given: deleted(0, 0),
			want:  next{Phase: Terminated, End: &End{}, Steps: []Step{RemoveSandbox{}}},
		},
		"Forgotten": {
			reason: "the record goes last",
			have: func(h *Have) {
				h.Pod, h.Exists, h.VolumesGone, h.CgroupGone = cri.Pod{}, false, true, true
			},
			given: deleted(0, 0),
			want:  next{Phase: Terminated, End: &End{}, Steps: []Step{Forget{}}},
		},
		"Done": {
			reason: "then the worker is done",
			have: func(h *Have) {
				h.Pod, h.Exists, h.VolumesGone, h.CgroupGone, h.Forgotten = cri.Pod{}, false, true, true, true
			},
			given: deleted(0, 0),
			want:  next{Phase: Terminated, End: &End{}, Done: true},
		},
		"NoRestartWhileEnding": {
			reason: "a container that exits while its pod ends is not started again",
			pod:    func(p *corev1.Pod) { withContainers(p, "second") },
			have: func(h *Have) {
				h.exited("main", 0, 1)
				h.running("second", 0)
			},
			given: deleted(0, 30*time.Second),
			want:  next{Phase: Terminating, End: &End{}, Steps: []Step{stop("second", 30*time.Second)}},
		},
		"Deadline": {
			reason: "a pod that is active for longer than it may be fails",
			pod:    func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(3600)) },
			have:   func(h *Have) { h.running("main", 0) },
			want: next{
				Phase: Terminating, End: &End{Phase: corev1.PodFailed, Reason: "DeadlineExceeded"},
				Steps: []Step{stop("main", 30*time.Second)},
			},
		},
		"BeforeDeadline": {
			reason: "until then it is only watched",
			pod:    func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(3605)) },
			have:   func(h *Have) { h.running("main", 0) },
			want:   next{Wake: 5 * time.Second},
		},
	})
}
