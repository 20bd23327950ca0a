//go:build integration

package podsync

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/qos"
)

// eventually waits until ok says yes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 30 s: %s", what)
}

func shell(name, script string) corev1.Container {
	return corev1.Container{
		Name: name, Image: testImage, ImagePullPolicy: corev1.PullNever, Command: []string{"sh", "-c", script},
		TerminationMessagePath: "/dev/termination-log",
	}
}

func realPod(name string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)},
		Spec: corev1.PodSpec{
			HostNetwork: true, RestartPolicy: corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: new(int64(2)), Containers: containers,
		},
	}
}

func TestRealPodLife(t *testing.T) {
	m := newMachine(t)
	pool, desired, stop := m.boot(t)
	defer func() { stop() }()
	phase := func(uid types.UID) corev1.PodPhase { s, _ := pool.Status(uid); return s.Phase }

	job := realPod("job", shell("main", "echo last words > /dev/termination-log"))
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	job.Spec.InitContainers = []corev1.Container{shell("init", "true"), shell("proxy", "sleep 1000")}
	job.Spec.InitContainers[1].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	server := realPod("server", shell("main", "sleep 1000"), shell("crash", "sleep 0.1; false"))
	server.Spec.Containers[0].Resources.Requests = list("cpu", "100m")
	desired.Set("file", []*corev1.Pod{job, server})

	eventually(t, "the job succeeds, its sidecar stopped", func() bool { return phase("uid-job") == corev1.PodSucceeded })
	s, _ := pool.Status("uid-job")
	if msg := s.ContainerStatuses[0].State.Terminated.Message; strings.TrimSpace(msg) != "last words" {
		t.Errorf("want the termination message, got %q", msg)
	}
	eventually(t, "the server runs and its other container loops", func() bool {
		s, _ := pool.Status("uid-server")
		return len(s.ContainerStatuses) == 2 && s.ContainerStatuses[0].State.Running != nil &&
			s.ContainerStatuses[1].State.Waiting != nil && s.ContainerStatuses[1].State.Waiting.Reason == "CrashLoopBackOff"
	})
	before, _ := pool.Status("uid-server")
	stop()

	pool, desired, stop = m.boot(t)
	desired.Set("file", []*corev1.Pod{job, server})
	eventually(t, "the next agent takes both on", func() bool { return phase("uid-server") != "" && phase("uid-job") != "" })
	after, _ := pool.Status("uid-server")
	for i := range before.ContainerStatuses {
		b, a := before.ContainerStatuses[i], after.ContainerStatuses[i]
		if b.ContainerID != a.ContainerID || b.RestartCount != a.RestartCount {
			t.Errorf("container %s is as it was: before %s/%d, after %s/%d", b.Name, b.ContainerID, b.RestartCount, a.ContainerID, a.RestartCount)
		}
	}
	if phase("uid-job") != corev1.PodSucceeded {
		t.Errorf("what has succeeded has succeeded, got %s", phase("uid-job"))
	}
	if err := pool.Restart("uid-server", "main"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a restart in place", func() bool {
		s, _ := pool.Status("uid-server")
		c := s.ContainerStatuses[0]
		return c.RestartCount == 1 && c.State.Running != nil && c.LastTerminationState.Terminated.Reason == ReasonRequested
	})

	desired.Set("file", nil)
	eventually(t, "both go", func() bool { return len(pool.Pods()) == 0 })
	if uids, err := m.tree.Pods(t.Context()); err != nil || len(uids) > 0 {
		t.Errorf("their cgroups, too: %v %v", uids, err)
	}
}

// twentyPods are enough to be interrupted while they start.
func twentyPods() []*corev1.Pod {
	var pods []*corev1.Pod
	for i := range 20 {
		pods = append(pods, realPod(fmt.Sprintf("p%02d", i), shell("main", "sleep 1000")))
	}
	return pods
}

// settle runs a last agent and expects all pods to run as if nothing had been.
func (m *machine) settle(t *testing.T, pods []*corev1.Pod) {
	t.Helper()
	pool, desired, stop := m.boot(t)
	defer func() { stop() }()
	desired.Set("file", pods)
	eventually(t, "all run", func() bool {
		return len(pool.Pods()) == len(pods) && !slices.ContainsFunc(pool.Pods(), func(p *corev1.Pod) bool {
			return p.Status.Phase != corev1.PodRunning || !p.Status.ContainerStatuses[0].Ready
		})
	})
	for _, p := range pool.Pods() {
		if c := p.Status.ContainerStatuses[0]; c.RestartCount != 0 || c.LastTerminationState.Terminated != nil {
			t.Errorf("a start that was interrupted is no restart: %s has %d, last %+v", p.Name, c.RestartCount, c.LastTerminationState.Terminated)
		}
	}
	desired.Set("file", nil)
	eventually(t, "all go", func() bool { return len(pool.Pods()) == 0 })
}

// TestRealAgentRestarts stops the agent again and again while pods start.
func TestRealAgentRestarts(t *testing.T) {
	m := newMachine(t)
	for i := range 6 {
		_, desired, stop := m.boot(t)
		desired.Set("file", twentyPods())
		time.Sleep(time.Duration(50+i*60) * time.Millisecond)
		stop()
	}
	m.settle(t, twentyPods())
}

// victimDir tells a test binary that it is the agent to be killed.
const victimDir = "PODSYNC_TEST_VICTIM"

// TestRealAgentKilled kills the agent at moments of which no two are alike.
func TestRealAgentKilled(t *testing.T) {
	m := newMachine(t)
	for i := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestVictim$")
		cmd.Env = append(os.Environ(), victimDir+"="+m.dir)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(200+i*70) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if strings.Contains(out.String(), "FAIL") {
			t.Errorf("the agent failed before it was killed:\n%s", out.String())
		}
	}
	m.settle(t, twentyPods())
}

// TestVictim is the agent that TestRealAgentKilled kills.
func TestVictim(t *testing.T) {
	dir := os.Getenv(victimDir)
	if dir == "" {
		return // nothing by itself
	}
	m := &machine{node: newNode(), dir: dir}
	tree, err := qos.New(t.Context(), treeConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	m.tree = tree
	_, desired, stop := m.boot(t)
	defer stop()
	desired.Set("file", twentyPods())
	time.Sleep(time.Minute)
}

// TestRealEphemeral adds an ephemeral container to a pod that runs.
func TestRealEphemeral(t *testing.T) {
	m := newMachine(t)
	pool, desired, stop := m.boot(t)
	defer func() { stop() }()
	pod := realPod("debugged", shell("main", "exec sleep 12345"))
	desired.Set("file", []*corev1.Pod{pod})
	ephemeral := func() corev1.ContainerState {
		s, _ := pool.Status(pod.UID)
		if len(s.EphemeralContainerStatuses) == 0 {
			return corev1.ContainerState{}
		}
		return s.EphemeralContainerStatuses[0].State
	}
	eventually(t, "the pod runs", func() bool { s, _ := pool.Status(pod.UID); return s.Phase == corev1.PodRunning })

	pod = pod.DeepCopy()
	c := shell("debug", "cat /proc/1/cmdline > /dev/termination-log; while [ ! -e /proc/1/root/end ]; do sleep 0.1; done; exit 3")
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: c.Name, Image: c.Image, ImagePullPolicy: c.ImagePullPolicy, Command: c.Command, TerminationMessagePath: c.TerminationMessagePath,
		},
		TargetContainerName: "main",
	}}
	desired.Set("file", []*corev1.Pod{pod})
	eventually(t, "it runs", func() bool { return ephemeral().Running != nil })
	s, _ := pool.Status(pod.UID)
	before := s.EphemeralContainerStatuses[0].ContainerID
	stop()

	pool, desired, stop = m.boot(t)
	desired.Set("file", []*corev1.Pod{pod})
	eventually(t, "the next agent takes it on", func() bool { return ephemeral().Running != nil })
	s, _ = pool.Status(pod.UID)
	if after := s.EphemeralContainerStatuses[0].ContainerID; after != before {
		t.Errorf("it is the same container, before %s, after %s", before, after)
	}
	observed, _ := pool.cfg.Runtime.Pod(pod.UID)
	if code, out, err := pool.cfg.Runtime.ExecSync(t.Context(), observed.Container("main").ID, []string{"touch", "/end"}, 0); err != nil || code != 0 {
		t.Fatalf("touch: %d %s %v", code, out, err)
	}
	eventually(t, "it ends, and is not started again", func() bool { return ephemeral().Terminated != nil })
	if got := ephemeral().Terminated; got.ExitCode != 3 || !strings.HasPrefix(got.Message, "sleep\x0012345") {
		t.Errorf("want exit code 3 and the first process to be its target's, got %d %q", got.ExitCode, got.Message)
	}
	if s, _ := pool.Status(pod.UID); s.Phase != corev1.PodRunning || s.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod goes on, got %s", s.Phase)
	}
	desired.Set("file", nil)
	eventually(t, "all go", func() bool { return len(pool.Pods()) == 0 })
}
