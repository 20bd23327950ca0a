package podsync

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

func TestNextRestart(t *testing.T) {
	runNext(t, map[string]nextCase{
		"FirstCrash": {
			reason: "the first exit is restarted at once",
			have:   func(h *Have) { h.exited("main", 0, 1) },
			want:   next{Steps: []Step{start("main", 1)}},
		},
		"SecondCrash": {
			reason: "the second exit in a row waits",
			have:   func(h *Have) { h.exited("main", 1, 1) },
			want:   next{Waiting: map[string]string{"main": "CrashLoopBackOff"}, Wake: 10 * time.Second},
		},
		"BackOffOver": {
			reason: "the delay counts from the exit, so an agent restart does not prolong it",
			have:   func(h *Have) { h.exited("main", 1, 1).FinishedAt = now.Add(-10 * time.Second) },
			want:   next{Steps: []Step{start("main", 2)}},
		},
		"HealthyForLong": {
			reason: "who ran for ten minutes is not in a crash loop",
			have: func(h *Have) {
				h.exited("main", 7, 1).StartedAt = now.Add(-10 * time.Minute)
			},
			want: next{Steps: []Step{StartContainer{Container: "main", Attempt: 8, Series: 7, Origin: start("main", 0).Origin}}},
		},
		"OnFailureSuccess": {
			reason: "success under OnFailure is final, and with the only container the pod is",
			pod:    func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure },
			have:   func(h *Have) { h.exited("main", 0, 0) },
			want:   next{Phase: Terminating, End: &End{}, Steps: []Step{StopSandbox{}}},
		},
		"NeverOneOfTwo": {
			reason: "a pod goes on as long as one main container does",
			pod: func(p *corev1.Pod) {
				p.Spec.RestartPolicy = corev1.RestartPolicyNever
				withContainers(p, "second")
			},
			have: func(h *Have) {
				h.exited("main", 0, 1)
				h.running("second", 0)
			},
		},
		"ContainerPolicyNever": {
			reason: "a container's own policy goes before the pod's",
			pod: func(p *corev1.Pod) {
				p.Spec.Containers[0].RestartPolicy = new(corev1.ContainerRestartPolicyNever)
				withContainers(p, "second")
			},
			have: func(h *Have) {
				h.exited("main", 0, 1)
				h.running("second", 0)
			},
		},
		"RuleRestarts": {
			reason: "an exit code that a rule names restarts a container that is never restarted otherwise",
			pod: func(p *corev1.Pod) {
				p.Spec.Containers[0].RestartPolicy = new(corev1.ContainerRestartPolicyNever)
				p.Spec.Containers[0].RestartPolicyRules = rule(corev1.ContainerRestartRuleActionRestart, 42)
			},
			have: func(h *Have) { h.exited("main", 0, 42) },
			want: next{Steps: []Step{start("main", 1)}},
		},
		"RestartAllStops": {
			reason: "an exit that restarts all stops the others first",
			pod:    restartAllPod,
			have: func(h *Have) {
				h.exited("init", 0, 0)
				h.exited("main", 0, 42)
				h.running("second", 0)
			},
			want: next{Steps: []Step{StopContainer{Container: "second", ID: "second-0", Grace: 30 * time.Second}, startRound("init", 1, 1, 1)}},
		},
		"RestartAllBegins": {
			reason: "init containers run again before the rest",
			pod:    restartAllPod,
			have: func(h *Have) {
				h.exited("init", 0, 0)
				h.exited("main", 0, 42)
				h.exited("second", 0, 137)
			},
			want: next{Steps: []Step{startRound("init", 1, 1, 1)}},
		},
		"RestartAllGoesOn": {
			reason: "then all main containers, whatever their exit",
			pod:    restartAllPod,
			have: func(h *Have) {
				h.exited("init", 1, 0).SpecHash = startRound("init", 1, 1, 1).Origin
				h.exited("main", 0, 42)
				h.exited("second", 0, 0)
			},
			want: next{Steps: []Step{startRound("main", 1, 0, 1), startRound("second", 1, 1, 1)}},
		},
		"Liveness": {
			reason: "a container that fails its liveness probe is stopped; its exit restarts it",
			have: func(h *Have) {
				h.Probes[h.running("main", 0).ID] = Health{Started: true, Failed: "liveness"}
			},
			want: next{Steps: []Step{StopContainer{Container: "main", ID: "main-0", Grace: 30 * time.Second}}},
		},
		"LivenessGrace": {
			reason: "the probe's own grace period goes before the pod's",
			pod: func(p *corev1.Pod) {
				p.Spec.Containers[0].LivenessProbe = &corev1.Probe{TerminationGracePeriodSeconds: new(int64(5))}
			},
			have: func(h *Have) {
				h.Probes[h.running("main", 0).ID] = Health{Started: true, Failed: "liveness"}
			},
			want: next{Steps: []Step{StopContainer{Container: "main", ID: "main-0", Grace: 5 * time.Second}}},
		},
		"Requested": {
			reason: "a restart on request stops the container",
			have: func(h *Have) {
				h.running("main", 3)
				h.Replace["main-3"] = Replace{}
			},
			want: next{Steps: []Step{StopContainer{Container: "main", ID: "main-3", Grace: 30 * time.Second}}},
		},
		"RequestedStarts": {
			reason: "and starts it at once, whatever its policy, and counts no crash",
			pod:    func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever },
			have: func(h *Have) {
				h.exited("main", 3, 143)
				h.Replace["main-3"] = Replace{}
			},
			want: next{Steps: []Step{StartContainer{Container: "main", Attempt: 4, Series: 4, Origin: start("main", 0).Origin}}},
		},
		"ImageChanged": {
			reason: "a container whose image was changed is restarted",
			pod:    func(p *corev1.Pod) { p.Spec.Containers[0].Image = "busybox:2" },
			have:   func(h *Have) { h.running("main", 0) },
			want:   next{Steps: []Step{StopContainer{Container: "main", ID: "main-0", Grace: 30 * time.Second}}},
		},
		"UnknownState": {
			reason: "a container nobody can say anything of is stopped before it is replaced",
			have:   func(h *Have) { h.running("main", 0).State = cri.Unknown },
			want:   next{Steps: []Step{StopContainer{Container: "main", ID: "main-0", Grace: 30 * time.Second}}},
		},
	})
}

func rule(action corev1.ContainerRestartRuleAction, codes ...int32) []corev1.ContainerRestartRule {
	return []corev1.ContainerRestartRule{{Action: action, ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
		Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: codes,
	}}}
}

func restartAllPod(p *corev1.Pod) {
	withInit(p, "init")
	withContainers(p, "second")
	p.Spec.RestartPolicy = corev1.RestartPolicyNever
	p.Spec.Containers[0].RestartPolicy = new(corev1.ContainerRestartPolicyNever)
	p.Spec.Containers[0].RestartPolicyRules = rule(corev1.ContainerRestartRuleActionRestartAllContainers, 42)
}

func startRound(name string, n, series, round int) StartContainer {
	s := start(name, n)
	s.Series = series
	s.Origin = origin{Sandbox: "sb1", Round: round, Hash: hashOf(name)}.String()
	return s
}

func TestNextSandbox(t *testing.T) {
	stop := func(name string) StopContainer {
		return StopContainer{Container: name, ID: id(name, 0), Grace: 30 * time.Second}
	}
	runNext(t, map[string]nextCase{
		"DeadWhileRunning": {
			reason: "containers of a dead sandbox stop before there is a new one",
			have: func(h *Have) {
				h.running("main", 0)
				h.Pod.Sandbox.Ready = false
			},
			want: next{Steps: []Step{stop("main")}},
		},
		"DeadAndStopped": {
			reason: "then the sandbox is made anew",
			have: func(h *Have) {
				h.exited("main", 0, 137)
				h.Pod.Sandbox.Ready = false
			},
			want: next{Steps: []Step{StartSandbox{}}},
		},
		"NewSandboxRunsInitAgain": {
			reason: "what an init container prepared may be gone with the old sandbox",
			pod:    func(p *corev1.Pod) { withInit(p, "init") },
			have: func(h *Have) {
				h.exited("init", 0, 0)
				h.exited("main", 0, 137)
				h.Pod.Sandbox.ID = "sb2"
			},
			want: next{Steps: []Step{StartContainer{Container: "init", Attempt: 1, Series: 1, Origin: origin{Sandbox: "sb2", Hash: hashOf("init")}.String()}}},
		},
		"OnFailureKeepsSuccess": {
			reason: "who has succeeded is not run again for a new sandbox",
			pod: func(p *corev1.Pod) {
				p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
				withContainers(p, "second")
			},
			have: func(h *Have) {
				h.exited("main", 0, 0)
				h.exited("second", 0, 137)
				h.Pod.Sandbox.ID = "sb2"
			},
			want: next{Steps: []Step{StartContainer{Container: "second", Attempt: 1, Series: 1, Origin: origin{Sandbox: "sb2", Hash: hashOf("second")}.String()}}},
		},
		"NeverStaysDead": {
			reason: "after a reboot a pod that is never restarted has ended; it gets no new sandbox",
			pod:    func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever },
			have: func(h *Have) {
				h.exited("main", 0, 255)
				h.Pod.Sandbox = nil
			},
			want: next{Phase: Terminated, End: &End{}, Steps: []Step{RemoveVolumes{}}},
		},
		"SandboxHeld": {
			reason: "a network that is not ready is tried again after a pause, and the status tells",
			have: func(h *Have) {
				h.Pod = cri.Pod{}
				h.Held["start sandbox"] = Held{Until: now.Add(time.Second), Message: "no network"}
			},
			want: next{Waiting: map[string]string{"main": "ContainerCreating"}, Wake: time.Second},
		},
	})
}
