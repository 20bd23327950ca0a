package podsync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// withEphemeral adds ephemeral containers that look into main.
func withEphemeral(pod *corev1.Pod, names ...string) {
	for _, n := range names {
		pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: n, Image: "busybox:1"}, TargetContainerName: "main",
		})
	}
}

func TestNextEphemeral(t *testing.T) {
	debug := func(pod *corev1.Pod) { withEphemeral(pod, "debug") }
	runNext(t, map[string]nextCase{
		"Appears": {
			reason: "it is started in the pod that runs, and nothing else happens",
			pod:    debug,
			have:   func(h *Have) { h.running("main", 0); h.Images["debug"] = 0 },
			want:   next{Steps: []Step{start("debug", 0)}},
		},
		"Pulled": {
			reason: "its image may have to be pulled first",
			pod:    debug,
			have:   func(h *Have) { h.running("main", 0) },
			want:   next{Steps: []Step{PullImage{Container: "debug"}}},
		},
		"BesideInit": {
			reason: "an init container that gets nowhere may be what is looked into",
			pod:    func(pod *corev1.Pod) { debug(pod); withInit(pod, "init") },
			have:   func(h *Have) { h.running("init", 0); h.Images["debug"] = 0 },
			want:   next{Steps: []Step{start("debug", 0)}},
		},
		"Runs": {
			reason: "one that runs is left alone",
			pod:    debug,
			have:   func(h *Have) { h.running("main", 0); h.running("debug", 0) },
		},
		"NeverAgain": {
			reason: "however it ended, it is not started again, whatever the pod's policy",
			pod:    debug,
			have:   func(h *Have) { h.running("main", 0); h.exited("debug", 0, 1) },
		},
		"NewSandbox": {
			reason: "not in a new sandbox either",
			pod:    debug,
			have: func(h *Have) {
				h.running("main", 0)
				h.exited("debug", 0, 1).SpecHash = origin{Sandbox: "old", Hash: hashOf("debug")}.String()
			},
		},
		"HoldsNothingUp": {
			reason: "a pod whose containers are done ends although somebody still looks into it",
			pod:    func(pod *corev1.Pod) { debug(pod); pod.Spec.RestartPolicy = corev1.RestartPolicyNever },
			have:   func(h *Have) { h.exited("main", 0, 0); h.running("debug", 0) },
			want: next{
				Phase: Terminating, End: &End{},
				Steps: []Step{StopContainer{Container: "debug", ID: "debug-0", Grace: 30 * time.Second}},
			},
		},
	})
}

func TestStatusEphemeral(t *testing.T) {
	cases := map[string]struct {
		reason string
		have   func(*Have)
		phase  corev1.PodPhase
		state  string
	}{
		"Running": {
			reason: "it is never ready, since nobody waits for it",
			have:   func(h *Have) { h.running("main", 0); h.running("debug", 0) }, phase: corev1.PodRunning, state: "running",
		},
		"Failed": {
			reason: "its failure is none of the pod's",
			have:   func(h *Have) { h.running("main", 0); h.exited("debug", 0, 1) }, phase: corev1.PodRunning, state: "terminated",
		},
		"Waiting": {
			reason: "one that is on its way does not make the pod pending",
			have:   func(h *Have) { h.running("main", 0) }, phase: corev1.PodRunning, state: "waiting",
		},
		"Alone": {
			reason: "one that runs does not make a pod running",
			have:   func(h *Have) { h.running("debug", 0) }, phase: corev1.PodPending, state: "running",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			withEphemeral(pod, "debug")
			h := baseHave(pod)
			tc.have(h)
			w := Want{Pod: pod}
			s := Status(w, *h, Next(w, *h, now), corev1.PodStatus{}, now)
			if len(s.EphemeralContainerStatuses) != 1 || len(s.ContainerStatuses) != 1 {
				t.Fatalf("one status of each kind, got %+v", s)
			}
			c := s.EphemeralContainerStatuses[0]
			got := map[bool]string{c.State.Running != nil: "running", c.State.Terminated != nil: "terminated", c.State.Waiting != nil: "waiting"}[true]
			if d := cmp.Diff([]any{tc.phase, tc.state, false, (*bool)(nil)}, []any{s.Phase, got, c.Ready, c.Started}); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
			if ready := findCondition(s.Conditions, corev1.PodReady); (ready.Status == corev1.ConditionTrue) != (tc.phase == corev1.PodRunning) {
				t.Errorf("the pod is as ready as its own containers, got %+v", ready)
			}
		})
	}
}

func TestTargetOf(t *testing.T) {
	pod := basePod()
	withEphemeral(pod, "debug", "free")
	pod.Spec.EphemeralContainers[1].TargetContainerName = ""
	h := baseHave(pod)
	n := newNode()
	w := newWorker(&Config{Runtime: n, Log: n.config(t, t.TempDir()).Log}, pod, nil, nil)
	if _, err := w.targetOf(pod, "debug"); err == nil {
		t.Error("want an error while the target is not there")
	}
	h.running("main", 0)
	n.Put(h.Pod)
	for name, want := range map[string]string{"debug": id("main", 0), "free": "", "main": ""} {
		if got, err := w.targetOf(pod, name); got != want || err != nil {
			t.Errorf("target of %s: want %q, got %q, %v", name, want, got, err)
		}
	}
	h.Pod.Containers[0].State = cri.Exited
	n.Put(h.Pod)
	if _, err := w.targetOf(pod, "debug"); err == nil {
		t.Error("want an error when the target has ended")
	}
}
