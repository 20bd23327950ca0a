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

// resources are requests and limits of CPU and memory; an empty one is not set.
func resources(cpuRequest, cpuLimit, memoryRequest, memoryLimit string) corev1.ResourceRequirements {
	pair := func(cpu, memory string) corev1.ResourceList {
		var kv []string
		if cpu != "" {
			kv = append(kv, "cpu", cpu)
		}
		if memory != "" {
			kv = append(kv, "memory", memory)
		}
		if kv == nil {
			return nil
		}
		return list(kv...)
	}
	return corev1.ResourceRequirements{Requests: pair(cpuRequest, memoryRequest), Limits: pair(cpuLimit, memoryLimit)}
}

func usual() corev1.ResourceRequirements { return resources("100m", "200m", "32Mi", "64Mi") }

func policy(cpu, memory corev1.ResourceResizeRestartPolicy) []corev1.ContainerResizePolicy {
	return []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: cpu}, {ResourceName: "memory", RestartPolicy: memory}}
}

func TestChangeOf(t *testing.T) {
	const no, yes = corev1.NotRequired, corev1.RestartContainer
	podLimits := resources("500m", "1", "64Mi", "128Mi")
	cases := map[string]struct {
		reason         string
		have, want     corev1.ResourceRequirements
		hadPod, hasPod *corev1.ResourceRequirements
		policy         []corev1.ContainerResizePolicy
		change         change
	}{
		"Same":         {reason: "nothing to do", have: usual(), want: usual(), change: sized},
		"OtherWords":   {reason: "one number has many names", have: usual(), want: resources("0.1", "0.2", "32768Ki", "64Mi"), change: sized},
		"CPU":          {reason: "by default nothing is restarted", have: usual(), want: resources("150m", "200m", "32Mi", "64Mi"), change: inPlace},
		"CPURestarts":  {reason: "unless the container says so", have: usual(), want: resources("150m", "200m", "32Mi", "64Mi"), policy: policy(yes, no), change: byRestart},
		"OnlyMemory":   {reason: "of the other resource", have: usual(), want: resources("100m", "200m", "32Mi", "80Mi"), policy: policy(yes, no), change: inPlace},
		"MemoryReq":    {reason: "requests count, too", have: usual(), want: resources("100m", "200m", "40Mi", "64Mi"), policy: policy(no, yes), change: byRestart},
		"LimitAdded":   {reason: "so do limits that were not there", have: resources("100m", "", "", ""), want: resources("100m", "200m", "", ""), change: inPlace},
		"PodLimits":    {reason: "a container without limits has its pod's", hadPod: &podLimits, hasPod: new(resources("500m", "2", "64Mi", "128Mi")), policy: policy(yes, no), change: byRestart},
		"PodElsewhere": {reason: "one with its own does not care", have: usual(), want: usual(), hadPod: &podLimits, hasPod: new(resources("500m", "2", "64Mi", "256Mi")), policy: policy(yes, yes), change: sized},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Spec.Resources = tc.hasPod
			c := corev1.Container{Name: "main", Resources: tc.want, ResizePolicy: tc.policy}
			if got := changeOf(pod, &c, &cri.Container{Resources: tc.have, PodResources: tc.hadPod}); got != tc.change {
				t.Errorf("%s: want %d, got %d", tc.reason, tc.change, got)
			}
		})
	}
}

func TestNextResize(t *testing.T) {
	larger := resources("150m", "300m", "32Mi", "64Mi")
	resized := func(restart corev1.ResourceResizeRestartPolicy) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources, p.Spec.Containers[0].ResizePolicy = larger, policy(restart, restart)
		}
	}
	had := Grant{Containers: map[string]corev1.ResourceRequirements{"main": usual()}}
	old := func(h *Have) { h.running("main", 0).Resources = usual(); h.Sized = &had }
	stop := StopContainer{Container: "main", ID: "main-0", Grace: 30 * time.Second, Resize: true}
	runNext(t, map[string]nextCase{
		"InPlace": {
			reason: "the cgroups follow while the container runs", pod: resized(corev1.NotRequired), have: old,
			want: next{Steps: []Step{ResizePod{}}},
		},
		"Settled": {
			reason: "what has its size is left alone", pod: resized(corev1.NotRequired),
			have: func(h *Have) { h.running("main", 0).Resources = larger },
		},
		"OnlyContainer": {
			reason: "an agent may have died between the pod and its containers", pod: resized(corev1.NotRequired),
			have: func(h *Have) { old(h); h.Sized = nil },
			want: next{Steps: []Step{ResizePod{}}},
		},
		"NoCgroupYet": {
			reason: "a new agent looks at the cgroup first", pod: resized(corev1.NotRequired),
			have: func(h *Have) { old(h); h.Cgroup = false },
			want: next{Steps: []Step{EnsureCgroup{}}},
		},
		"Restart": {
			reason: "a container that must be restarted is stopped before its pod is resized", pod: resized(corev1.RestartContainer), have: old,
			want: next{Steps: []Step{stop}},
		},
		"Stopped": {
			reason: "then the pod is resized, before the container starts again", pod: resized(corev1.RestartContainer),
			have: func(h *Have) {
				h.exited("main", 0, 0).Resources = usual()
				h.Sized = &had
				h.Replace["main-0"] = Replace{Resize: true}
			},
			want: next{Steps: []Step{ResizePod{}}},
		},
		"Restarted": {
			reason: "which it does at once, whatever it ended with and whatever its policy",
			pod: func(p *corev1.Pod) {
				resized(corev1.RestartContainer)(p)
				p.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
			},
			have: func(h *Have) {
				h.exited("main", 0, 0).Resources = usual()
				h.Replace["main-0"] = Replace{Resize: true}
			},
			want: next{Steps: []Step{StartContainer{Container: "main", Attempt: 1, Series: 1, Origin: start("main", 1).Origin}}},
		},
		"Failed": {
			reason: "a resize that fails holds up nobody else's start",
			pod:    func(p *corev1.Pod) { resized(corev1.NotRequired)(p); withContainers(p, "other") },
			have: func(h *Have) {
				old(h)
				h.Images["other"] = 0
				h.Held[holdKey(ResizePod{})] = Held{Since: now, Until: now.Add(time.Second), Message: "no"}
			},
			want: next{Steps: []Step{start("other", 0)}, Wake: time.Second},
		},
		"Starting": {
			reason: "what is just starting may have the old size: it is waited for",
			pod:    func(p *corev1.Pod) { resized(corev1.NotRequired)(p); withContainers(p, "other") },
			have: func(h *Have) {
				old(h)
				h.running("other", 0)
				h.Busy["container other"] = "start"
			},
		},
		"Ending": {
			reason: "a pod that ends keeps the size it has", pod: resized(corev1.NotRequired), have: old,
			given: func(w *Want) { w.End = &End{At: now, Grace: time.Minute} },
			want:  next{Phase: Terminating, End: &End{}, Steps: []Step{StopContainer{Container: "main", ID: "main-0", Grace: time.Minute}}},
		},
	})
}

func TestResizeConditions(t *testing.T) {
	larger := resources("150m", "300m", "32Mi", "64Mi")
	condition := func(kind corev1.PodConditionType, reason, message string, generation int64, at time.Time) corev1.PodCondition {
		return corev1.PodCondition{
			Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message, ObservedGeneration: generation,
			LastTransitionTime: metav1.NewTime(at).Rfc3339Copy(),
		}
	}
	earlier := now.Add(-time.Minute)
	cases := map[string]struct {
		reason string
		have   func(*Have)
		old    []corev1.PodCondition
		want   []corev1.PodCondition
	}{
		"None": {
			reason: "what is over is not told, whatever the source remembers",
			have:   func(h *Have) { h.running("main", 0).Resources = larger },
			old:    []corev1.PodCondition{condition(corev1.PodResizeInProgress, "", "", 3, earlier)},
		},
		"InProgress": {
			reason: "it is told of the generation that was granted",
			have:   func(h *Have) { h.running("main", 0).Resources = usual(); h.Resizing = new(int64(3)) },
			want:   []corev1.PodCondition{condition(corev1.PodResizeInProgress, "", "", 3, now)},
		},
		"Error": {
			reason: "an error is a new reason",
			have: func(h *Have) {
				h.running("main", 0).Resources = usual()
				h.Resizing = new(int64(3))
				h.Held[holdKey(ResizePod{})] = Held{Until: now.Add(time.Second), Message: "below current usage"}
			},
			old:  []corev1.PodCondition{condition(corev1.PodResizeInProgress, "", "", 3, earlier)},
			want: []corev1.PodCondition{condition(corev1.PodResizeInProgress, corev1.PodReasonError, "below current usage", 3, now)},
		},
		"Deferred": {
			reason: "the time stays as long as the reason does",
			have: func(h *Have) {
				h.running("main", 0).Resources = larger
				h.Pending = &Pending{Reason: corev1.PodReasonDeferred, Message: "no room", Generation: 4}
			},
			old:  []corev1.PodCondition{condition(corev1.PodResizePending, corev1.PodReasonDeferred, "other", 4, earlier)},
			want: []corev1.PodCondition{condition(corev1.PodResizePending, corev1.PodReasonDeferred, "no room", 4, earlier)},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := basePod()
			pod.Generation, pod.Status.Conditions = 4, tc.old
			pod.Spec.Containers[0].Resources = larger
			h := baseHave(pod)
			tc.have(h)
			s := statusOfBase(pod, h, nil, corev1.PodStatus{Conditions: tc.old})
			var got []corev1.PodCondition
			for _, c := range s.Conditions {
				if c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress {
					got = append(got, c)
				}
			}
			if d := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestStatusResources(t *testing.T) {
	larger := resources("150m", "300m", "40Mi", "80Mi")
	pod := basePod()
	pod.Spec.Containers[0].Resources = larger
	h := baseHave(pod)
	h.running("main", 0).Resources = usual()
	h.Sized = &Grant{Containers: map[string]corev1.ResourceRequirements{"main": usual()}}
	s := statusOfBase(pod, h, nil, corev1.PodStatus{})
	c := s.ContainerStatuses[0]
	if d := cmp.Diff([]any{larger.Requests, new(usual()), larger.Requests, new(usual())}, []any{c.AllocatedResources, c.Resources, s.AllocatedResources, s.Resources}); d != "" {
		t.Errorf("granted and set differ until the resize is over (-want +got):\n%s", d)
	}
	pod.Spec.InitContainers = nil
	h = baseHave(pod)
	h.exited("main", 0, 1).Resources = usual()
	c = statusOfBase(pod, h, nil, corev1.PodStatus{}).ContainerStatuses[0]
	if d := cmp.Diff([]any{larger.Requests, &larger}, []any{c.AllocatedResources, c.Resources}); d != "" {
		t.Errorf("what does not run has what it will be given (-want +got):\n%s", d)
	}
}

func TestToldGrant(t *testing.T) {
	pod := basePod()
	pod.Spec.Containers[0].Resources = resources("4", "4", "32Mi", "64Mi")
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", Resources: new(usual())}}
	if got := toldGrant(pod).apply(pod); got != pod {
		t.Error("without a wish that is pending, a pod has what it asks for")
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodResizePending, Status: corev1.ConditionTrue}}
	got := toldGrant(pod).apply(pod).Spec.Containers[0].Resources
	if d := cmp.Diff(usual(), got); d != "" {
		t.Errorf("after the machine was restarted, a pod has what it was told to have (-want +got):\n%s", d)
	}
}
