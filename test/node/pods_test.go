//go:build integration

package node

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// sleeper is a pod whose containers do nothing until they are told to end.
func sleeper(name string, containers ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: v1\nkind: Pod\nmetadata: {name: %s}\nspec:\n  terminationGracePeriodSeconds: 2\n  containers:\n", name)
	for _, c := range containers {
		fmt.Fprintf(&b, "  - name: %s\n    image: %s\n    command: [sh, -c, \"trap exit TERM; while :; do sleep 0.1; done\"]\n", c, image)
	}
	return b.String()
}

func TestFirstPod(t *testing.T) {
	m := newMachine(t, "", "")
	m.start()
	m.manifest("web.yaml", `apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: server
    image: demo/busybox:1
    command: [sh, -c, "mkdir /www; echo hello from $HOSTNAME > /www/index.html; exec httpd -f -v -p 8080 -h /www"]
    resources: {requests: {cpu: 250m, memory: 64Mi}, limits: {cpu: 500m, memory: 128Mi}}
  - name: client
    image: demo/busybox:1
    command: [sh, -c, "trap exit TERM; until wget -qO- localhost:8080 2>/dev/null; do sleep 0.1; done; while :; do sleep 0.1; done"]
    resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 200m, memory: 128Mi}}
`)
	pod := m.await("web", "ready", ready)
	if pod.Status.PodIP == "" || pod.Status.QOSClass != corev1.PodQOSBurstable || pod.Status.Phase != corev1.PodRunning {
		t.Errorf("status: ip %q, class %q, phase %q", pod.Status.PodIP, pod.Status.QOSClass, pod.Status.Phase)
	}
	if got := m.run("get", "pods", "-o", "wide"); !regexp.MustCompile(`web-node\s+2/2\s+Running\s+0\s+\S+\s+` + regexp.QuoteMeta(pod.Status.PodIP)).MatchString(got) {
		t.Errorf("get pods -o wide:\n%s", got)
	}

	t.Run("ContainersShareLocalhost", func(t *testing.T) {
		m.eventually("the client reached the server on localhost", func() error {
			if got := m.run("logs", "web", "-c", "client"); got != "hello from web-node\n" {
				return fmt.Errorf("log is %q", got)
			}
			return nil
		})
		a, b := m.run("exec", "web", "-c", "server", "--", "ip", "-o", "-4", "addr"), m.run("exec", "web", "-c", "client", "--", "ip", "-o", "-4", "addr")
		if a != b || !strings.Contains(a, pod.Status.PodIP+"/") {
			t.Errorf("the two containers see different interfaces:\n%s\n%s", a, b)
		}
	})
	t.Run("ExecReturnsTheExitCode", func(t *testing.T) {
		if _, err := m.try("exec", "web", "--", "sh", "-c", "exit 42"); err == nil || !strings.Contains(err.Error(), ": exit status 42:") {
			t.Errorf("got %v, want exit status 42", err)
		}
	})
	t.Run("LogFileIsTheKubelets", func(t *testing.T) {
		path := fmt.Sprintf("%s/log/pods/default_web-node_%s/client/0.log", m.dir, pod.UID)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^\S+ stdout F hello from web-node\n$`).Match(data) {
			t.Errorf("log line %q is not in the CRI format", data)
		}
		links, err := filepath.Glob(m.dir + "/log/containers/web-node_default_client-*.log")
		if err != nil || len(links) != 1 {
			t.Errorf("links %v, error %v, want one", links, err)
		}
	})
	t.Run("PodLimitsAreInTheCgroup", func(t *testing.T) {
		if got, want := m.cgroupValue(pod, "memory", "memory.limit_in_bytes", "memory.max"), strconv.Itoa(256<<20); got != want {
			t.Errorf("pod memory limit is %s, want %s", got, want)
		}
	})
	t.Run("EndsWithItsManifest", func(t *testing.T) {
		m.removeManifest("web.yaml")
		m.awaitGone("web")
		if exists(fmt.Sprintf("%s/root/pods/%s", m.dir, pod.UID)) {
			t.Error("the pod's directory is still there")
		}
	})
}

// cgroupValue reads a file of a pod's cgroup, by its name on v1 or on v2.
func (m *machine) cgroupValue(pod *corev1.Pod, controller, v1, v2 string) string {
	m.t.Helper()
	dir := m.run("inspect", pod.Name, "-o", "jsonpath={.cgroup}")
	path := filepath.Join("/sys/fs/cgroup", dir, v2)
	if !exists("/sys/fs/cgroup/cgroup.controllers") {
		path = filepath.Join("/sys/fs/cgroup", controller, dir, v1)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func TestTwoPodsAreApart(t *testing.T) {
	m := newMachine(t, "", "")
	m.manifest("a.yaml", sleeper("a", "c"))
	m.manifest("b.yaml", sleeper("b", "c"))
	m.start()
	a, b := m.await("a", "ready", ready), m.await("b", "ready", ready)
	if a.Status.PodIP == b.Status.PodIP {
		t.Errorf("both pods have IP %s", a.Status.PodIP)
	}
	for _, ns := range []string{"net", "ipc", "uts", "pid", "mnt"} {
		link := []string{"readlink", "/proc/self/ns/" + ns}
		in := func(pod string) string { return m.run(append([]string{"exec", pod, "--"}, link...)...) }
		if x, y := in("a"), in("b"); x == y {
			t.Errorf("both pods live in %s", x)
		}
	}
	for _, pod := range []string{"a", "b"} {
		if got := m.run("exec", pod, "--", "hostname"); got != pod+"-node\n" {
			t.Errorf("hostname of %s is %q", pod, got)
		}
	}
	if got := m.run("inspect", "a"); !strings.Contains(got, a.Status.PodIP+", checked\n") {
		t.Errorf("inspect finds a sound network so:\n%s", got)
	}
	m.must("nsenter", "--net="+m.dir+"/run/sandboxes/"+string(a.UID)+"/ns/net", "ip", "address", "flush", "dev", "eth0")
	if got := m.run("inspect", "a"); !strings.Contains(got, a.Status.PodIP+", broken: ") {
		t.Errorf("inspect does not see that the pod has lost its address:\n%s", got)
	}
}

func TestAgentRestartsKeepContainers(t *testing.T) {
	const pods = 20
	m := newMachine(t, "maxPods: 250", "")
	m.start()
	for i := range pods {
		m.manifest(fmt.Sprintf("p%d.yaml", i), sleeper(fmt.Sprintf("p%d", i), "c"))
	}
	for range 5 { // while the pods start
		m.kill()
		m.start()
	}
	before := map[string]map[string]string{}
	for i := range pods {
		name := fmt.Sprintf("p%d", i)
		before[name] = containerIDs(m.await(name, "ready", ready))
	}
	restart := map[string]func(){"SIGTERM": m.stop, "SIGKILL": m.kill}
	for name, end := range restart {
		end()
		m.start()
		after := map[string]map[string]string{}
		for i := range pods {
			name := fmt.Sprintf("p%d", i)
			p := m.await(name, "ready", ready)
			after[name] = containerIDs(p)
			if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
				t.Errorf("%s was restarted %d times", p.Name, n)
			}
		}
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("after %s containers are not the same (-before +after):\n%s", name, d)
		}
	}
}
