//go:build integration

package podsync

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// cgroupFiles are what a cgroup of this machine is set to: CPU shares or weight,
// quota and memory limit.
func (m *machine) cgroupFiles(t *testing.T, cgroup string) [3]string {
	t.Helper()
	files := [3]string{"cpu/" + cgroup + "/cpu.shares", "cpu/" + cgroup + "/cpu.cfs_quota_us", "memory/" + cgroup + "/memory.limit_in_bytes"}
	if m.tree.Version() == 2 {
		files = [3]string{cgroup + "/cpu.weight", cgroup + "/cpu.max", cgroup + "/memory.max"}
	}
	var out [3]string
	for i, f := range files {
		data, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", f))
		if err != nil {
			t.Fatal(err)
		}
		out[i] = strings.TrimSpace(string(data))
	}
	return out
}

// TestRealResize resizes a pod while it runs and compares its cgroups with those
// of a pod that was made so.
func TestRealResize(t *testing.T) {
	m := newMachine(t)
	pool, desired, stop := m.boot(t)
	defer func() { stop() }()
	version := func(name string, generation int64, r corev1.ResourceRequirements) *corev1.Pod {
		pod := realPod(name, shell("main", "sleep 1000"), shell("side", "sleep 1000"))
		pod.Generation = generation
		pod.Spec.Containers[0].Resources, pod.Spec.Containers[1].Resources = r, r
		return pod
	}
	groups := func(name string) (out [3][3]string) {
		pod, _ := pool.cfg.Runtime.Pod(realPod(name).UID)
		for i, c := range []string{"main", "side"} {
			cgroup := cri.CgroupDir(pod.Container(c).CgroupPath)
			out[i], out[2] = m.cgroupFiles(t, cgroup), m.cgroupFiles(t, filepath.Dir(cgroup))
		}
		return out
	}
	settled := func(name string, generation int64) func() bool {
		return func() bool {
			s, _ := pool.Status(realPod(name).UID)
			resize := findCondition(s.Conditions, corev1.PodResizePending) != nil || findCondition(s.Conditions, corev1.PodResizeInProgress) != nil
			return s.ObservedGeneration == generation && !resize && findCondition(s.Conditions, corev1.PodReady).Status == corev1.ConditionTrue
		}
	}
	sizes := []corev1.ResourceRequirements{
		resources("100m", "200m", "32Mi", "64Mi"), // as it is made
		resources("150m", "300m", "32Mi", "80Mi"), // all grows
		resources("50m", "300m", "16Mi", "40Mi"),  // some shrinks
		resources("120m", "150m", "16Mi", "96Mi"), // in opposite directions
	}
	pod := version("resized", 1, sizes[0])
	desired.Set("file", []*corev1.Pod{pod})
	eventually(t, "the pod runs", settled("resized", 1))
	before, _ := pool.Status(pod.UID)
	for i, size := range sizes[1:] {
		generation := int64(i + 2)
		pod, made := version("resized", generation, size), version("made", 1, size)
		desired.Set("file", []*corev1.Pod{pod, made})
		eventually(t, "the pod is resized", settled("resized", generation))
		eventually(t, "another is made", settled("made", 1))
		if d := cmp.Diff(groups("made"), groups("resized")); d != "" {
			t.Errorf("size %d: main, side and pod, as made and as resized (-made +resized):\n%s", generation, d)
		}
		desired.Set("file", []*corev1.Pod{pod})
		eventually(t, "the other goes", func() bool { return len(pool.Pods()) == 1 })
	}
	after, _ := pool.Status(pod.UID)
	for i := range before.ContainerStatuses {
		if b, a := before.ContainerStatuses[i].ContainerID, after.ContainerStatuses[i].ContainerID; a != b {
			t.Errorf("no container was restarted: %s became %s", b, a)
		}
	}

	tiny := version("resized", 5, resources("120m", "150m", "10Ki", "10Ki"))
	was := groups("resized")
	desired.Set("file", []*corev1.Pod{tiny})
	eventually(t, "what would kill it is refused", func() bool {
		s, _ := pool.Status(pod.UID)
		c := findCondition(s.Conditions, corev1.PodResizeInProgress)
		return c != nil && c.Reason == corev1.PodReasonError && strings.Contains(c.Message, "below current usage")
	})
	stop()

	pool, desired, stop = m.boot(t)
	desired.Set("file", []*corev1.Pod{tiny})
	eventually(t, "by the next agent, too", func() bool {
		s, _ := pool.Status(pod.UID)
		c := findCondition(s.Conditions, corev1.PodResizeInProgress)
		return c != nil && c.Reason == corev1.PodReasonError
	})
	if d := cmp.Diff(was, groups("resized")); d != "" {
		t.Errorf("and nothing is changed (-before +after):\n%s", d)
	}
	desired.Set("file", []*corev1.Pod{version("resized", 6, sizes[0])})
	eventually(t, "the way back is open", settled("resized", 6))
	desired.Set("file", nil)
	eventually(t, "all go", func() bool { return len(pool.Pods()) == 0 })
}

// TestRealResizeByRestart resizes a pod whose container must be restarted for it,
// down and up: on cgroup v1 a quota cannot be larger than that of its parent.
func TestRealResizeByRestart(t *testing.T) {
	m := newMachine(t)
	pool, desired, stop := m.boot(t)
	defer func() { stop() }()
	version := func(generation int64, podLevel *corev1.ResourceRequirements, r corev1.ResourceRequirements) *corev1.Pod {
		pod := realPod("restarted", shell("main", "trap 'exit 0' TERM; sleep 1000 & wait"))
		pod.Generation = generation
		pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure // it ends with 0, and must start again
		pod.Spec.Resources = podLevel
		pod.Spec.Containers[0].Resources = r
		pod.Spec.Containers[0].ResizePolicy = policy(corev1.RestartContainer, corev1.RestartContainer)
		return pod
	}
	uid := realPod("restarted").UID
	check := func(generation int64, restarts int32, quota string) {
		t.Helper()
		eventually(t, "it runs with its new size", func() bool {
			s, _ := pool.Status(uid)
			return s.ObservedGeneration == generation && findCondition(s.Conditions, corev1.PodResizeInProgress) == nil &&
				len(s.ContainerStatuses) == 1 && s.ContainerStatuses[0].State.Running != nil && s.ContainerStatuses[0].RestartCount == restarts
		})
		pod, _ := pool.cfg.Runtime.Pod(uid)
		cgroup := cri.CgroupDir(pod.Container("main").CgroupPath)
		for _, group := range []string{cgroup, filepath.Dir(cgroup)} {
			if got := m.cgroupFiles(t, group)[1]; strings.Fields(got)[0] != quota {
				t.Errorf("generation %d, %s: want quota %s, got %s", generation, group, quota, got)
			}
		}
	}
	for i, cpu := range []string{"200m", "400m", "100m"} {
		desired.Set("file", []*corev1.Pod{version(int64(i+1), nil, resources(cpu, cpu, "64Mi", "64Mi"))})
		check(int64(i+1), int32(i), map[string]string{"200m": "20000", "400m": "40000", "100m": "10000"}[cpu])
	}
	desired.Set("file", nil)
	eventually(t, "it goes", func() bool { return len(pool.Pods()) == 0 })
	for i, cpu := range []string{"200m", "400m", "100m"} {
		desired.Set("file", []*corev1.Pod{version(int64(i+1), new(resources(cpu, cpu, "64Mi", "64Mi")), corev1.ResourceRequirements{})})
		check(int64(i+1), int32(i), map[string]string{"200m": "20000", "400m": "40000", "100m": "10000"}[cpu])
	}
	desired.Set("file", nil)
	eventually(t, "it goes again", func() bool { return len(pool.Pods()) == 0 })
}
