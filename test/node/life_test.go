//go:build integration

package node

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// fates are pods that each come to their own end, or wait for it.
const fates = `apiVersion: v1
kind: Pod
metadata: {name: done}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: demo/busybox:1, command: [sh, -c, "echo bye > /dev/termination-log"]}
---
apiVersion: v1
kind: Pod
metadata: {name: failed}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: demo/busybox:1, command: [sh, -c, "exit 7"]}
  - {name: other, image: demo/busybox:1, command: [sh, -c, "exit 0"]}
---
apiVersion: v1
kind: Pod
metadata: {name: ruled}
spec:
  restartPolicy: Never
  volumes: [{name: memory, emptyDir: {}}]
  containers:
  - name: c
    image: demo/busybox:1
    command: [sh, -c, "test -e /memory/once && exit 0; touch /memory/once; exit 42"]
    restartPolicy: Never
    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
    volumeMounts: [{name: memory, mountPath: /memory}]
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  activeDeadlineSeconds: 1
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: demo/busybox:1, command: [sleep, "1000"]}
---
apiVersion: v1
kind: Pod
metadata: {name: large}
spec:
  containers:
  - {name: c, image: demo/busybox:1, command: [sleep, "1000"], resources: {requests: {cpu: "1000"}}}
---
apiVersion: v1
kind: Pod
metadata: {name: unstartable}
spec:
  restartPolicy: Never
  containers:
  - {name: c, image: demo/busybox:1, command: [/no/such/program]}
---
apiVersion: v1
kind: Pod
metadata:
  name: looping
  annotations: {nodeagent.dev/restart-initial-backoff: 1h, nodeagent.dev/restart-max-backoff: 1h}
spec:
  containers:
  - {name: c, image: demo/busybox:1, command: [sh, -c, "exit 3"]}
---
apiVersion: v1
kind: Pod
metadata: {name: steady}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: demo/busybox:1
    command: [sh, -c, "trap exit TERM; while :; do sleep 0.1; done"]
    startupProbe: {exec: {command: [sh, -c, "mkdir /tmp/once"]}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 30}
    readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1, timeoutSeconds: 30}
`

func TestAnAgentRestartChangesNoStatus(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	m.manifest("fates.yaml", fates)
	phase := func(p corev1.PodPhase) func(*corev1.Pod) bool {
		return func(pod *corev1.Pod) bool { return pod.Status.Phase == p }
	}
	settled := map[string]func(*corev1.Pod) bool{
		"done": phase(corev1.PodSucceeded), "failed": phase(corev1.PodFailed), "ruled": phase(corev1.PodSucceeded),
		"late": phase(corev1.PodFailed), "large": phase(corev1.PodFailed), "unstartable": phase(corev1.PodFailed), "steady": ready,
		"looping": func(p *corev1.Pod) bool { return waitingReasons(p) == "CrashLoopBackOff" },
	}
	before := map[string]corev1.PodStatus{}
	for name, ok := range settled {
		before[name] = m.await(name, "settled", ok).Status
	}
	checkFates(t, before)
	restart := map[string]func(){"SIGTERM": m.stop, "SIGKILL": m.kill}
	for name, end := range restart {
		end()
		m.start()
		after := map[string]corev1.PodStatus{}
		for name, ok := range settled {
			after[name] = m.await(name, "as it was", ok).Status
		}
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("after %s (-before +after):\n%s", name, d)
		}
	}
}

// checkFates looks at what is told of pods that have ended.
func checkFates(t *testing.T, s map[string]corev1.PodStatus) {
	t.Helper()
	want := map[string]string{"done": "", "failed": "", "ruled": "", "late": "DeadlineExceeded", "large": "OutOfcpu", "unstartable": "", "looping": "", "steady": ""}
	for name, reason := range want {
		if s[name].Reason != reason {
			t.Errorf("%s: reason is %q, want %q", name, s[name].Reason, reason)
		}
	}
	if got := s["done"].ContainerStatuses[0].State.Terminated; got == nil || got.Reason != "Completed" || got.Message != "bye\n" {
		t.Errorf("done: %+v", got)
	}
	if got := s["failed"].ContainerStatuses[0].State.Terminated; got == nil || got.ExitCode != 7 || got.Reason != "Error" {
		t.Errorf("failed: %+v", got)
	}
	if got := s["ruled"].ContainerStatuses[0]; got.RestartCount != 1 || got.LastTerminationState.Terminated == nil || got.LastTerminationState.Terminated.ExitCode != 42 {
		t.Errorf("ruled: %+v", got)
	}
	if got := s["unstartable"].ContainerStatuses[0].State.Terminated; got == nil || got.ExitCode != 128 || !strings.Contains(got.Message, "/no/such/program") {
		t.Errorf("unstartable: %+v", got)
	}
	if got := s["large"]; len(got.ContainerStatuses) != 0 || !strings.Contains(got.Message, "Node didn't have enough resource: cpu, requested: 1000000") {
		t.Errorf("large: %+v", got)
	}
	for name, status := range s {
		types := map[corev1.PodConditionType]corev1.PodCondition{}
		for _, c := range status.Conditions {
			types[c.Type] = c
			if c.LastTransitionTime.IsZero() {
				t.Errorf("%s: condition %s has no time", name, c.Type)
			}
		}
		if len(types) != 5 || status.StartTime == nil || status.QOSClass == "" {
			t.Errorf("%s: incomplete: %+v", name, status)
		}
		up := corev1.ConditionFalse
		if name == "steady" {
			up = corev1.ConditionTrue
		}
		if types[corev1.ContainersReady].Status != up || types[corev1.PodReady].Status != up {
			t.Errorf("%s: conditions %+v", name, status.Conditions)
		}
	}
}

func TestProbesOverTheNetwork(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	m.manifest("web.yaml", `apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations: {nodeagent.dev/restart-initial-backoff: 0s}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: demo/busybox:1
    command: [sh, -c, "mkdir -p /www; httpd -p 8080 -h /www; trap exit TERM; while :; do sleep 0.1; done"]
    ports: [{name: http, containerPort: 8080}]
    startupProbe: {tcpSocket: {port: http}, periodSeconds: 1, failureThreshold: 60, timeoutSeconds: 30}
    readinessProbe: {httpGet: {path: /ok, port: http}, periodSeconds: 1, timeoutSeconds: 30}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, timeoutSeconds: 30}
`)
	started := func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].Started != nil && *s[0].Started
	}
	if p := m.await("web", "started", started); ready(p) {
		t.Error("ready before there is a page")
	}
	m.run("exec", "web", "--", "touch", "/www/ok")
	m.await("web", "ready", ready)
	m.run("exec", "web", "--", "rm", "/www/ok")
	m.await("web", "unready again", func(p *corev1.Pod) bool { return !ready(p) })
	m.run("exec", "web", "--", "killall", "httpd")
	m.await("web", "restarted, and started", func(p *corev1.Pod) bool {
		return started(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	for _, want := range []string{"Readiness probe of container c failed: HTTP probe failed with statuscode: 404", "Liveness probe of container c failed", "refused", "Container c failed liveness probe, will be restarted"} {
		if err := in(m.run("describe", "pod", "web"), want); err != nil {
			t.Error(err)
		}
	}
}

func TestHooksAndTheOrderOfTheEnd(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	notes := m.dir + "/notes"
	m.manifest("end.yaml", strings.ReplaceAll(`apiVersion: v1
kind: Pod
metadata: {name: end}
spec:
  terminationGracePeriodSeconds: 30
  volumes: [{name: notes, hostPath: {path: NOTES, type: DirectoryOrCreate}}]
  initContainers:
  - name: side
    image: demo/busybox:1
    restartPolicy: Always
    command: [sh, -c, "trap 'echo side TERM >> /notes/order; exit' TERM; while :; do sleep 0.1; done"]
    lifecycle:
      preStop: {exec: {command: [sh, -c, "touch /notes/side-hook; until test -e /notes/main-hook; do sleep 0.1; done; echo side hook >> /notes/order"]}}
    volumeMounts: [{name: notes, mountPath: /notes}]
  containers:
  - name: main
    image: demo/busybox:1
    command: [sh, -c, "trap 'echo main TERM >> /notes/order; exit' TERM; while :; do sleep 0.1; done"]
    lifecycle:
      postStart: {exec: {command: [sh, -c, "echo main up >> /notes/order"]}}
      preStop: {exec: {command: [sh, -c, "touch /notes/main-hook; until test -e /notes/side-hook; do sleep 0.1; done; sleep 1; echo main hook >> /notes/order"]}}
    volumeMounts: [{name: notes, mountPath: /notes}]
`, "NOTES", notes))
	m.await("end", "ready", ready)
	m.removeManifest("end.yaml")
	m.awaitGone("end")
	data, err := os.ReadFile(notes + "/order")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"main up", "side hook", "main hook", "main TERM", "side TERM"}
	if got := strings.Split(strings.TrimSpace(string(data)), "\n"); !slices.Equal(got, want) {
		t.Errorf("hooks wait for each other, so they must run at once; then mains, then sidecars: want %q, got %q", want, got)
	}
}

func TestRestartOfAWholePod(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("r.yaml", sleeper("r", "a", "b")+"    volumeMounts: [{name: data, mountPath: /data}]\n  volumes: [{name: data, emptyDir: {medium: Memory}}]\n")
	m.start()
	before := m.await("r", "ready", ready)
	m.run("exec", "r", "-c", "b", "--", "touch", "/data/kept")
	m.run("restart", "r")
	after := m.await("r", "both restarted", func(p *corev1.Pod) bool {
		now, then := containerIDs(p), containerIDs(before)
		return ready(p) && now["a"] != then["a"] && now["b"] != then["b"]
	})
	if after.Status.PodIP != before.Status.PodIP || after.UID != before.UID {
		t.Errorf("IP %s → %s, UID %s → %s", before.Status.PodIP, after.Status.PodIP, before.UID, after.UID)
	}
	m.run("exec", "r", "-c", "b", "--", "test", "-e", "/data/kept")
	for _, s := range after.Status.ContainerStatuses {
		if last := s.LastTerminationState.Terminated; s.RestartCount != 1 || last == nil || last.Reason != "Requested" {
			t.Errorf("%s: %d restarts, last %+v", s.Name, s.RestartCount, last)
		}
	}
}
