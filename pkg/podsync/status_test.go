package podsync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// statusOfBase computes a status as a pass would: from the plan of the same facts.
func statusOfBase(pod *corev1.Pod, h *Have, given func(*Want), old corev1.PodStatus) corev1.PodStatus {
	w := Want{Pod: pod, BackOff: BackOff{Initial: 10 * time.Second, Max: 5 * time.Minute}}
	if given != nil {
		given(&w)
	}
	return Status(w, *h, Next(w, *h, now), old, now)
}

func TestStatusComplete(t *testing.T) {
	pod := basePod()
	h := baseHave(pod)
	main := h.running("main", 2)
	main.StopSignal, main.User = "SIGQUIT", &corev1.LinuxContainerUser{UID: 1000, GID: 1000, SupplementalGroups: []int64{1000, 2000}}
	h.exited("main", 1, 3)
	h.Pod.Containers[0], h.Pod.Containers[1] = h.Pod.Containers[1], h.Pod.Containers[0]
	got := statusOfBase(pod, h, nil, corev1.PodStatus{})
	at := func(ago time.Duration) metav1.Time { return metav1.NewTime(now.Add(-ago)).Rfc3339Copy() }
	condition := func(t corev1.PodConditionType) corev1.PodCondition {
		return corev1.PodCondition{Type: t, Status: corev1.ConditionTrue, LastTransitionTime: at(0)}
	}
	want := corev1.PodStatus{
		Phase: corev1.PodRunning,
		Conditions: []corev1.PodCondition{
			condition(corev1.PodReadyToStartContainers), condition(corev1.PodInitialized), condition(corev1.PodReady),
			condition(corev1.ContainersReady), condition(corev1.PodScheduled),
		},
		HostIP: "192.0.2.1", HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}},
		PodIP: "10.88.0.7", PodIPs: []corev1.PodIP{{IP: "10.88.0.7"}},
		StartTime: new(at(time.Hour)),
		QOSClass:  corev1.PodQOSBestEffort,
		Resources: &corev1.ResourceRequirements{},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name:  "main",
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(time.Minute)}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: 3, Reason: "Error", StartedAt: at(time.Minute), FinishedAt: at(0), ContainerID: "containerd://main-1",
			}},
			Ready: true, Started: new(true), RestartCount: 2, Image: "busybox:1", ImageID: "busybox@sha256:1",
			ContainerID: "containerd://main-2", Resources: &corev1.ResourceRequirements{},
			StopSignal: new(corev1.SIGQUIT),
			User:       &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 1000, GID: 1000, SupplementalGroups: []int64{1000, 2000}}},
		}},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("a healthy pod's whole status (-want +got):\n%s", d)
	}
}

func TestStatus(t *testing.T) {
	type want struct {
		Phase           corev1.PodPhase
		Reason          string
		Main            string // state of the main container: kind and reason
		Restarts        int32
		Ready, Init     corev1.ConditionStatus
		ReadyReason     string
		PodReadyToStart corev1.ConditionStatus
	}
	yes, no := corev1.ConditionTrue, corev1.ConditionFalse
	cases := map[string]struct {
		reason string
		pod    func(*corev1.Pod)
		have   func(*Have)
		given  func(*Want)
		old    corev1.PodStatus
		want   want
	}{
		"Fresh": {
			reason: "a pod that was just taken on",
			have:   func(h *Have) { h.Pod, h.Exists = cri.Pod{}, false },
			want:   want{corev1.PodPending, "", "waiting ContainerCreating", 0, no, yes, "ContainersNotReady", no},
		},
		"FreshWithInit": {
			reason: "main containers wait for init containers",
			pod:    func(p *corev1.Pod) { withInit(p, "init") },
			want:   want{corev1.PodPending, "", "waiting PodInitializing", 0, no, no, "ContainersNotReady", yes},
		},
		"SidecarNotStarted": {
			reason: "a sidecar that has not started keeps the pod from being initialized",
			pod:    func(p *corev1.Pod) { withSidecars(p, "proxy") },
			have:   func(h *Have) { h.Probes[h.running("proxy", 0).ID] = Health{} },
			want:   want{corev1.PodPending, "", "waiting PodInitializing", 0, no, no, "ContainersNotReady", yes},
		},
		"SidecarNotReady": {
			reason: "a sidecar that is not ready makes the pod unready",
			pod:    func(p *corev1.Pod) { withSidecars(p, "proxy") },
			have: func(h *Have) {
				h.Probes[h.running("proxy", 0).ID] = Health{Started: true}
				h.running("main", 0)
			},
			want: want{corev1.PodRunning, "", "running", 0, no, yes, "ContainersNotReady", yes},
		},
		"Unready": {
			reason: "a container that fails its readiness probe",
			have:   func(h *Have) { h.Probes[h.running("main", 0).ID] = Health{Started: true} },
			want:   want{corev1.PodRunning, "", "running", 0, no, yes, "ContainersNotReady", yes},
		},
		"CrashLoop": {
			reason: "a pod in a crash loop is still Running",
			have:   func(h *Have) { h.exited("main", 3, 1) },
			want:   want{corev1.PodRunning, "", "waiting CrashLoopBackOff", 3, no, yes, "ContainersNotReady", yes},
		},
		"RestartingAtOnce": {
			reason: "an exit that is followed by a restart at once shows as an exit",
			have:   func(h *Have) { h.exited("main", 0, 1) },
			want:   want{corev1.PodRunning, "", "terminated Error", 0, no, yes, "ContainersNotReady", yes},
		},
		"Succeeded": {
			reason: "all main containers are done",
			pod:    func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever },
			have: func(h *Have) {
				h.exited("main", 0, 0)
				h.Pod.Sandbox = nil
			},
			want: want{corev1.PodSucceeded, "", "terminated Completed", 0, no, yes, "PodCompleted", no},
		},
		"Failed": {
			reason: "one of them failed",
			pod:    func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever },
			have: func(h *Have) {
				h.exited("main", 0, 2)
				h.Pod.Sandbox = nil
			},
			want: want{corev1.PodFailed, "", "terminated Error", 0, no, yes, "PodFailed", no},
		},
		"NotTerminalWhileSidecarRuns": {
			reason: "what the pod uses is in use until the last container has ended",
			pod: func(p *corev1.Pod) {
				withSidecars(p, "proxy")
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
			},
			have: func(h *Have) {
				h.running("proxy", 0)
				h.exited("main", 0, 0)
			},
			want: want{corev1.PodRunning, "", "terminated Completed", 0, no, yes, "ContainersNotReady", yes},
		},
		"InitFailed": {
			reason: "a pod whose init container failed for good never got to its main one",
			pod: func(p *corev1.Pod) {
				withInit(p, "init")
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
			},
			have: func(h *Have) {
				h.exited("init", 0, 1)
				h.Pod.Sandbox = nil
			},
			want: want{corev1.PodFailed, "", "waiting PodInitializing", 0, no, no, "PodFailed", no},
		},
		"Deadline": {
			reason: "the reason is there while the pod still stops",
			pod:    func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = new(int64(1)) },
			have:   func(h *Have) { h.running("main", 0) },
			want:   want{corev1.PodRunning, "DeadlineExceeded", "running", 0, yes, yes, "", yes},
		},
		"Rejected": {
			reason: "a rejected pod has no containers to tell of",
			have:   func(h *Have) { h.Pod, h.Exists = cri.Pod{}, false },
			given:  func(w *Want) { w.End = &End{Phase: corev1.PodFailed, Reason: "OutOfcpu"} },
			want:   want{corev1.PodFailed, "OutOfcpu", "", 0, no, yes, "PodFailed", no},
		},
		"TerminalStays": {
			reason: "a phase that was told as final is final",
			have:   func(h *Have) { h.running("main", 0) },
			old:    corev1.PodStatus{Phase: corev1.PodSucceeded},
			want:   want{corev1.PodSucceeded, "", "running", 0, no, yes, "PodCompleted", yes},
		},
		"Gate": {
			reason: "a readiness gate that nobody has opened",
			pod: func(p *corev1.Pod) {
				p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
			},
			have: func(h *Have) { h.running("main", 0) },
			want: want{corev1.PodRunning, "", "running", 0, no, yes, "ReadinessGatesNotReady", yes},
		},
		"GateOpen": {
			reason: "and one that is open",
			pod: func(p *corev1.Pod) {
				p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "example.com/lb"}}
				p.Status.Conditions = []corev1.PodCondition{{Type: "example.com/lb", Status: corev1.ConditionTrue}}
			},
			have: func(h *Have) { h.running("main", 0) },
			want: want{corev1.PodRunning, "", "running", 0, yes, yes, "", yes},
		},
		"Requested": {
			reason: "a restart on request is on its way",
			have: func(h *Have) {
				h.exited("main", 0, 143)
				h.Replace["main-0"] = Replace{}
			},
			want: want{corev1.PodRunning, "", "waiting ContainerCreating", 0, no, yes, "ContainersNotReady", yes},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			if tc.pod != nil {
				tc.pod(pod)
			}
			h := baseHave(pod)
			if tc.have != nil {
				tc.have(h)
			}
			s := statusOfBase(pod, h, tc.given, tc.old)
			ready := findCondition(s.Conditions, corev1.PodReady)
			got := want{
				Phase: s.Phase, Reason: s.Reason, Ready: ready.Status, ReadyReason: ready.Reason,
				Init:            findCondition(s.Conditions, corev1.PodInitialized).Status,
				PodReadyToStart: findCondition(s.Conditions, corev1.PodReadyToStartContainers).Status,
			}
			if len(s.ContainerStatuses) > 0 {
				got.Main, got.Restarts = describe(s.ContainerStatuses[0].State), s.ContainerStatuses[0].RestartCount
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func describe(s corev1.ContainerState) string {
	switch {
	case s.Waiting != nil:
		return "waiting " + s.Waiting.Reason
	case s.Terminated != nil:
		return "terminated " + s.Terminated.Reason
	default:
		return "running"
	}
}

func TestAllContainersRestarting(t *testing.T) {
	type condition struct {
		Status corev1.ConditionStatus
		Reason string
	}
	cases := map[string]struct {
		reason string
		pod    func(*corev1.Pod)
		have   func(*Have)
		old    corev1.PodStatus
		want   *condition
	}{
		"NoRule":    {reason: "a pod that cannot restart as a whole says nothing of it", pod: func(p *corev1.Pod) { p.Spec.Containers[0].RestartPolicyRules = nil }, have: func(h *Have) { h.exited("main", 0, 42) }},
		"Running":   {reason: "one that can says that it does not", have: func(h *Have) { h.running("main", 0) }, want: &condition{Status: corev1.ConditionFalse}},
		"OtherExit": {reason: "not every exit is the rule's", have: func(h *Have) { h.exited("main", 0, 1) }, want: &condition{Status: corev1.ConditionFalse}},
		"Exit": {
			reason: "the exit begins it, while others still run",
			have: func(h *Have) {
				h.running("side", 0)
				h.exited("main", 0, 42)
			},
			want: &condition{corev1.ConditionTrue, "RestartAllContainersStarted"},
		},
		"StartedAgain": {
			reason: "the first that starts again ends it",
			have: func(h *Have) {
				h.exited("side", 0, 137)
				h.exited("main", 0, 42)
				h.running("side", 1).SpecHash = origin{Sandbox: "sb1", Round: 1, Hash: hashOf("side")}.String()
			},
			want: &condition{Status: corev1.ConditionFalse},
		},
		"Completed": {
			reason: "a pod that has ended restarts nothing", have: func(h *Have) { h.exited("main", 0, 42) },
			old: corev1.PodStatus{Phase: corev1.PodSucceeded}, want: &condition{corev1.ConditionFalse, "PodCompleted"},
		},
		"Failed": {
			reason: "however it has ended", have: func(h *Have) { h.exited("main", 0, 42) },
			old: corev1.PodStatus{Phase: corev1.PodFailed}, want: &condition{corev1.ConditionFalse, "PodFailed"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			withContainers(pod, "side")
			pod.Spec.Containers[0].RestartPolicyRules = rule(corev1.ContainerRestartRuleActionRestartAllContainers, 42)
			if tc.pod != nil {
				tc.pod(pod)
			}
			h := baseHave(pod)
			tc.have(h)
			var got *condition
			if c := findCondition(statusOfBase(pod, h, nil, tc.old).Conditions, corev1.AllContainersRestarting); c != nil {
				got = &condition{c.Status, c.Reason}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestTransitionTimes(t *testing.T) {
	pod := basePod()
	h := baseHave(pod)
	h.running("main", 0)
	before := statusOfBase(pod, h, nil, corev1.PodStatus{})
	earlier := metav1.NewTime(now.Add(-time.Hour)).Rfc3339Copy()
	for i := range before.Conditions {
		before.Conditions[i].LastTransitionTime = earlier
	}
	h.Probes["main-0"] = Health{Started: true}
	after := statusOfBase(pod, h, nil, before)
	for _, c := range after.Conditions {
		changed := c.Type == corev1.PodReady || c.Type == corev1.ContainersReady
		if moved := !c.LastTransitionTime.Equal(&earlier); moved != changed {
			t.Errorf("condition %s: a time moves exactly when the status does; changed %t, moved %t", c.Type, changed, moved)
		}
	}
}

func TestAddressOutlivesSandbox(t *testing.T) {
	pod := basePod()
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	h := baseHave(pod)
	h.running("main", 0)
	before := statusOfBase(pod, h, nil, corev1.PodStatus{})
	h = baseHave(pod)
	h.exited("main", 0, 0)
	h.Pod.Sandbox = nil
	if got := statusOfBase(pod, h, nil, before).PodIP; got != "10.88.0.7" {
		t.Errorf("a pod that has ended is still known by its address, got %q", got)
	}
}
