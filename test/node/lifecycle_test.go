//go:build integration

package node

import (
	"fmt"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestInitAndSidecarOrder(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	notes := m.dir + "/notes"
	m.manifest("order.yaml", strings.ReplaceAll(`apiVersion: v1
kind: Pod
metadata: {name: order}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  volumes: [{name: notes, hostPath: {path: NOTES, type: DirectoryOrCreate}}]
  initContainers:
  - name: first
    image: demo/busybox:1
    command: [sh, -c, "echo first >> /notes/order"]
    volumeMounts: [{name: notes, mountPath: /notes}]
  - name: side
    image: demo/busybox:1
    restartPolicy: Always
    command: [sh, -c, "echo side up >> /notes/order; trap 'echo side down >> /notes/order; exit' TERM; while :; do sleep 0.1; done"]
    startupProbe: {exec: {command: [grep, -q, side, /notes/order]}, periodSeconds: 1, timeoutSeconds: 60}
    volumeMounts: [{name: notes, mountPath: /notes}]
  - name: second
    image: demo/busybox:1
    command: [sh, -c, "echo second >> /notes/order"]
    volumeMounts: [{name: notes, mountPath: /notes}]
  containers:
  - name: main
    image: demo/busybox:1
    command: [sh, -c, "echo main >> /notes/order; sleep 1; echo main done >> /notes/order"]
    volumeMounts: [{name: notes, mountPath: /notes}]
`, "NOTES", notes))
	m.await("order", "succeeded", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded })
	data, err := os.ReadFile(notes + "/order")
	if err != nil {
		t.Fatal(err)
	}
	want := "first\nside up\nsecond\nmain\nmain done\nside down\n"
	if string(data) != want {
		t.Errorf("order of events:\n%swant:\n%s", data, want)
	}
}

func TestCrashLoop(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	m.manifest("crash.yaml", `apiVersion: v1
kind: Pod
metadata:
  name: crash
  annotations: {nodeagent.dev/restart-initial-backoff: 100ms, nodeagent.dev/restart-max-backoff: 1h}
spec:
  containers:
  - name: c
    image: demo/busybox:1
    command: [sh, -c, "echo dying > /dev/termination-log; exit 3"]
`)
	pod := m.await("crash", "restarted twice", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].RestartCount >= 2 &&
			p.Status.ContainerStatuses[0].State.Waiting != nil
	})
	s := pod.Status.ContainerStatuses[0]
	if s.State.Waiting.Reason != "CrashLoopBackOff" || !strings.Contains(s.State.Waiting.Message, "next try at") {
		t.Errorf("waiting: %+v", s.State.Waiting)
	}
	last := s.LastTerminationState.Terminated
	if last == nil || last.ExitCode != 3 || last.Reason != "Error" || last.Message != "dying\n" {
		t.Errorf("last termination: %+v", last)
	}
	if got := m.run("describe", "pod", "crash"); !strings.Contains(got, "BackOff") {
		t.Errorf("no BackOff event:\n%s", got)
	}
}

func TestLivenessAndReadiness(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	m.manifest("probed.yaml", `apiVersion: v1
kind: Pod
metadata:
  name: probed
  annotations: {nodeagent.dev/restart-initial-backoff: 100ms}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: demo/busybox:1
    command: [sh, -c, "trap exit TERM; while :; do sleep 0.1; done"]
    livenessProbe: {exec: {command: [test, '!', -e, /tmp/dead]}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 30}
    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1, timeoutSeconds: 30}
`)
	m.await("probed", "running", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning })
	if p, err := m.pod("probed"); err != nil || ready(p) {
		t.Errorf("ready before its probe succeeded (error %v)", err)
	}
	m.run("exec", "probed", "--", "touch", "/tmp/ready")
	m.await("probed", "ready", ready)
	m.run("exec", "probed", "--", "touch", "/tmp/dead")
	m.await("probed", "restarted by its liveness probe", func(p *corev1.Pod) bool {
		return p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if got := m.run("describe", "pod", "probed"); !strings.Contains(got, "Unhealthy") || !strings.Contains(got, "Killing") {
		t.Errorf("events do not tell of the probe:\n%s", got)
	}
}

func TestConfigMapAndSecretFromTheDirectory(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	m.manifest("app.yaml", sleeper("app", "c")+`    env:
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}
    volumeMounts: [{name: key, mountPath: /key, readOnly: true}]
  volumes: [{name: key, secret: {secretName: key, defaultMode: 0400}}]
`)
	m.await("app", "waiting for its objects", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodPending })
	objects := func(key string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {greeting: hello}\n---\n" +
			"apiVersion: v1\nkind: Secret\nmetadata: {name: key}\nstringData: {token: " + key + "}\n"
	}
	m.manifest("objects.yaml", objects("one"))
	m.await("app", "ready", ready)
	if got := m.run("exec", "app", "--", "sh", "-c", "echo $GREETING; cat /key/token"); got != "hello\none" {
		t.Errorf("got %q", got)
	}
	m.manifest("objects.yaml", objects("two"))
	m.eventually("the volume follows the Secret", func() error {
		if got := m.run("exec", "app", "--", "cat", "/key/token"); got != "two" {
			return fmt.Errorf("token is %q", got)
		}
		return nil
	})
}

func TestBadManifestsDisturbNobody(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("good.yaml", sleeper("good", "c"))
	m.start()
	id := containerIDs(m.await("good", "ready", ready))["c"]
	bad := map[string]string{
		"type.yaml":    "apiVersion: v1\nkind: Pod\nmetadata: {name: t}\nspec:\n  containers:\n  - name: c\n    image: x\n    tty: seven\n",
		"unknown.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: u}\nspec:\n  containers:\n  - name: c\n    image: x\n    colour: red\n",
		"twice.yaml":   "apiVersion: v1\nkind: Pod\nmetadata: {name: d}\nspec:\n  containers:\n  - {name: c, image: x}\n  - {name: c, image: x}\n",
		"half.yaml":    "apiVersion: v1\nkind: Pod\nmetadata: {name: h}\nspec:\n  containers: [{name: c, im",
		"huge.yaml":    "# " + strings.Repeat("x", 10<<20) + "\n",
		"good.yaml":    "kind: Pod\nspec: [", // a good file that breaks keeps its pod
	}
	for name, text := range bad {
		m.manifest(name, text)
	}
	if err := os.Symlink("loop.yaml", m.manifests+"/loop.yaml"); err != nil {
		t.Fatal(err)
	}
	m.eventually("every bad file is reported by name", func() error {
		got := m.run("get", "problems")
		for name := range bad {
			if !strings.Contains(got, name) {
				return fmt.Errorf("%s is not among the problems:\n%s", name, got)
			}
		}
		for _, line := range []string{"type.yaml:8", "unknown.yaml:8"} {
			if !strings.Contains(got, line) {
				return fmt.Errorf("no line %s in:\n%s", line, got)
			}
		}
		return nil
	})
	pod, err := m.pod("good")
	if err != nil || !ready(pod) || containerIDs(pod)["c"] != id {
		t.Errorf("the good pod was disturbed: %v, %v", err, pod)
	}
	m.manifest("good.yaml", sleeper("good", "c"))
	m.manifest("new.yaml", sleeper("new", "c"))
	m.await("new", "ready", ready)
	if pod, err = m.pod("good"); err != nil || containerIDs(pod)["c"] != id {
		t.Errorf("mending the file restarted its pod: %v", err)
	}
}

func TestEditReplacesThePod(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("e.yaml", sleeper("e", "c"))
	m.start()
	before := m.await("e", "ready", ready)
	m.manifest("e.yaml", sleeper("e", "c", "d"))
	after := m.await("e", "replaced", func(p *corev1.Pod) bool { return p.UID != before.UID && ready(p) })
	if len(after.Status.ContainerStatuses) != 2 {
		t.Errorf("statuses: %+v", after.Status.ContainerStatuses)
	}
	m.eventually("the old pod's directory is gone", func() error {
		if exists(m.dir + "/root/pods/" + string(before.UID)) {
			return fmt.Errorf("pods/%s is there", before.UID)
		}
		return nil
	})
}

func TestRestartInPlace(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("r.yaml", sleeper("r", "a", "b"))
	m.start()
	before := m.await("r", "ready", ready)
	m.run("restart", "r/a")
	after := m.await("r", "a restarted", func(p *corev1.Pod) bool {
		return ready(p) && containerIDs(p)["a"] != containerIDs(before)["a"]
	})
	if after.Status.PodIP != before.Status.PodIP || after.UID != before.UID {
		t.Errorf("IP %s → %s, UID %s → %s", before.Status.PodIP, after.Status.PodIP, before.UID, after.UID)
	}
	if containerIDs(after)["b"] != containerIDs(before)["b"] {
		t.Error("the other container was restarted too")
	}
}
