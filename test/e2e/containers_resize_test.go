//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// sized are requests and limits of CPU and memory.
func sized(cpuRequest, cpuLimit, memoryRequest, memoryLimit string) corev1.ResourceRequirements {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
	}
	return corev1.ResourceRequirements{Requests: list(cpuRequest, memoryRequest), Limits: list(cpuLimit, memoryLimit)}
}

// resize asks for other resources: of the container main, or of the pod as a whole.
func (s *space) resize(name string, main, pod *corev1.ResourceRequirements) *corev1.Pod {
	s.Helper()
	spec := map[string]any{}
	if main != nil {
		spec["containers"] = []any{map[string]any{"name": "main", "resources": main}}
	}
	if pod != nil {
		spec["resources"] = pod
	}
	patch, err := json.Marshal(map[string]any{"spec": spec})
	if err != nil {
		s.Fatal(err)
	}
	out, err := s.pods().Patch(s.ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "resize")
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// awaitSettled waits until the newest version of a pod is seen, no resize of it is
// left to do, and it is ready.
func (s *space) awaitSettled(name string, generation int64) *corev1.Pod {
	s.Helper()
	return s.awaitPod(name, "is resized", func(p *corev1.Pod) bool {
		return p.Status.ObservedGeneration >= generation && condition(p, corev1.PodResizePending) == "" && condition(p, corev1.PodResizeInProgress) == "" && ready(p)
	})
}

// limits are the CPU quota and the memory limit of the container main, read inside it.
func (s *space) limits(name string) string {
	s.Helper()
	return strings.Join(strings.Fields(s.exec(name, "main", "sh", "-c",
		"if [ -e /sys/fs/cgroup/cpu.max ]; then cut -d' ' -f1 /sys/fs/cgroup/cpu.max; cat /sys/fs/cgroup/memory.max; "+
			"else cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/memory/memory.limit_in_bytes; fi")), " ")
}

func limitsOf(milli, mib int) string { return fmt.Sprintf("%d %d", milli*100, mib<<20) }

// TestResize changes the resources of a running container.
func TestResize(t *testing.T) {
	s := newSpace(t)
	first := sized("50m", "100m", "32Mi", "64Mi")
	s.create(newPod("web", forever, func(p *corev1.Pod) { p.Spec.Containers[0].Resources = first }))
	pod := s.awaitReady("web")
	id := status(pod, "main").ContainerID
	if got, want := s.limits("web"), limitsOf(100, 64); got != want {
		t.Errorf("it starts with %s, want %s", got, want)
	}
	for _, step := range []struct {
		size       corev1.ResourceRequirements
		milli, mib int
	}{
		{sized("80m", "200m", "32Mi", "96Mi"), 200, 96},
		{sized("20m", "150m", "40Mi", "48Mi"), 150, 48},
		{first, 100, 64},
	} {
		generation := s.resize("web", &step.size, nil).Generation
		pod = s.awaitSettled("web", generation)
		main := status(pod, "main")
		if got, want := s.limits("web"), limitsOf(step.milli, step.mib); got != want {
			t.Errorf("limits are %s, want %s", got, want)
		}
		if main.ContainerID != id || main.RestartCount != 0 {
			t.Errorf("nothing is restarted: %+v", main)
		}
		if !equality.Semantic.DeepEqual(*main.Resources, step.size) || !equality.Semantic.DeepEqual(main.AllocatedResources, step.size.Requests) {
			t.Errorf("want %+v in the status, got %+v and %+v", step.size, main.Resources, main.AllocatedResources)
		}
	}
	s.awaitEvent(pod, "ResizeStarted")
	s.awaitEvent(pod, "ResizeCompleted")

	// All that the node has is too much as long as another pod has some of it.
	s.create(newPod("holder", forever, func(p *corev1.Pod) { p.Spec.Containers[0].Resources = first }))
	s.awaitReady("holder")
	node, err := cluster.client.CoreV1().Nodes().Get(s.ctx, cluster.node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := node.Status.Allocatable.Cpu().String()
	big := sized(all, all, "32Mi", "64Mi")
	s.resize("web", &big, nil)
	pod = s.awaitPod("web", "is not resized", func(p *corev1.Pod) bool { return condition(p, corev1.PodResizePending) == corev1.ConditionTrue })
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodResizePending && (c.Reason != corev1.PodReasonDeferred || !strings.HasPrefix(c.Message, "Node didn't have enough resource: cpu, requested: ")) {
			t.Errorf("want it deferred for CPU, got %+v", c)
		}
	}
	if got, want := s.limits("web"), limitsOf(100, 64); got != want {
		t.Errorf("until there is room nothing changes: %s, want %s", got, want)
	}
	s.awaitEvent(pod, "ResizeDeferred")
	s.awaitSettled("web", s.resize("web", &first, nil).Generation)

	tiny := sized("50m", "100m", "10Ki", "10Ki")
	s.resize("web", &tiny, nil)
	pod = s.awaitPod("web", "is not resized to less than it uses", func(p *corev1.Pod) bool {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodResizeInProgress && c.Reason == corev1.PodReasonError {
				return strings.Contains(c.Message, "memory limit (10240) below current usage")
			}
		}
		return false
	})
	s.awaitEvent(pod, "ResizeError")
	pod = s.awaitSettled("web", s.resize("web", &first, nil).Generation)
	if main := status(pod, "main"); main.ContainerID != id || main.RestartCount != 0 {
		t.Errorf("through all this nothing was restarted: %+v", main)
	}
}

// TestResizeByRestart changes what a container takes over only when it starts.
func TestResizeByRestart(t *testing.T) {
	s := newSpace(t)
	size := sized("50m", "100m", "32Mi", "64Mi")
	s.create(newPod("web", forever, func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure // forever ends with 0 when it is told to
		p.Spec.Containers[0].Resources = size
		p.Spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: corev1.ResourceMemory, RestartPolicy: corev1.RestartContainer}}
	}))
	s.awaitReady("web")
	cpu, memory := sized("60m", "120m", "32Mi", "64Mi"), sized("60m", "120m", "40Mi", "80Mi")
	pod := s.awaitSettled("web", s.resize("web", &cpu, nil).Generation)
	if n := status(pod, "main").RestartCount; n != 0 {
		t.Errorf("CPU takes no restart, got %d", n)
	}
	generation := s.resize("web", &memory, nil).Generation
	pod = s.awaitPod("web", "is restarted with more memory", func(p *corev1.Pod) bool {
		return p.Status.ObservedGeneration >= generation && status(p, "main").RestartCount == 1 && ready(p)
	})
	if got, want := s.limits("web"), limitsOf(120, 80); got != want {
		t.Errorf("limits are %s, want %s", got, want)
	}
	if !equality.Semantic.DeepEqual(*status(pod, "main").Resources, memory) {
		t.Errorf("want %+v in the status, got %+v", memory, status(pod, "main").Resources)
	}
}

// TestResizePod changes the resources of a pod as a whole.
func TestResizePod(t *testing.T) {
	s := newSpace(t)
	first, second := sized("100m", "200m", "64Mi", "128Mi"), sized("150m", "300m", "64Mi", "160Mi")
	s.create(newPod("web", forever, func(p *corev1.Pod) { p.Spec.Resources = &first }))
	s.awaitReady("web")
	for _, step := range []struct {
		size       *corev1.ResourceRequirements
		milli, mib int
	}{{&second, 300, 160}, {&first, 200, 128}} {
		pod := s.awaitSettled("web", s.resize("web", nil, step.size).Generation)
		if got, want := s.limits("web"), limitsOf(step.milli, step.mib); got != want {
			t.Errorf("a container without limits has its pod's: %s, want %s", got, want)
		}
		if status(pod, "main").RestartCount != 0 || !equality.Semantic.DeepEqual(pod.Status.AllocatedResources, step.size.Requests) ||
			!equality.Semantic.DeepEqual(pod.Status.Resources, step.size) {
			t.Errorf("want %+v in the status, got %+v and %+v", step.size, pod.Status.Resources, pod.Status.AllocatedResources)
		}
	}
}
