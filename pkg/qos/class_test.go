package qos

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestClass(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	other := func(name corev1.ResourceName) corev1.ResourceList {
		return corev1.ResourceList{name: resource.MustParse("1")}
	}
	cases := map[string]struct {
		reason string
		change func(*corev1.Pod) // of a pod with one container, which is Guaranteed
		want   corev1.PodQOSClass
	}{
		"Guaranteed": {"requests equal limits", func(*corev1.Pod) {}, corev1.PodQOSGuaranteed},
		"OtherResources": {
			"only cpu and memory count", func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests = other("nvidia.com/gpu")
				p.Spec.Containers[0].Resources.Limits = nil
			},
			corev1.PodQOSBestEffort,
		},
		"OneEmpty": {
			"every container must be Guaranteed", func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, container("c2", nil, nil)) }, corev1.PodQOSBurstable,
		},
		"EmptyInit": {
			"ordinary init containers count", func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{container("i1", nil, nil)} }, corev1.PodQOSBurstable,
		},
		"EmptySidecar": {
			"sidecars count", func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{container("s1", nil, nil)}
				p.Spec.InitContainers[0].RestartPolicy = &always
			}, corev1.PodQOSBurstable,
		},
		"CPUOnly": {
			"memory must be Guaranteed too", func(p *corev1.Pod) { p.Spec.Containers[0] = container("c1", list("1", ""), list("1", "")) }, corev1.PodQOSBurstable,
		},
		"Zero": {
			"0 is as if absent", func(p *corev1.Pod) { p.Spec.Containers[0] = container("c1", list("0", "0"), list("0", "0")) }, corev1.PodQOSBestEffort,
		},
		"Overhead": {"overhead does not count", func(p *corev1.Pod) { p.Spec.Overhead = list("1", "1Gi") }, corev1.PodQOSGuaranteed},
		"PodLevel": {
			"the pod's own resources decide alone", func(p *corev1.Pod) {
				p.Spec.Containers[0] = container("c1", list("1", ""), nil)
				p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("1", "1Gi")}
			}, corev1.PodQOSGuaranteed,
		},
		"PodLevelEmpty": {"an empty pod level is none", func(p *corev1.Pod) { p.Spec.Resources = &corev1.ResourceRequirements{} }, corev1.PodQOSGuaranteed},
		"PodLevelHugepages": {
			"huge pages at pod level are a pod level without cpu and memory", func(p *corev1.Pod) {
				p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"hugepages-2Mi": resource.MustParse("4Mi")}}
			}, corev1.PodQOSBestEffort,
		},
		"PodLevelLimitsOnly": {
			"a static pod's pod-level requests are not filled in", func(p *corev1.Pod) { p.Spec.Resources = &corev1.ResourceRequirements{Limits: list("1", "1Gi")} }, corev1.PodQOSBurstable,
		},
		"StatusIsNotBelieved": {"a manifest may say anything", func(p *corev1.Pod) { p.Status.QOSClass = corev1.PodQOSBestEffort }, corev1.PodQOSGuaranteed},
		"NoContainers":        {"nothing is asked for", func(p *corev1.Pod) { p.Spec.Containers = nil }, corev1.PodQOSBestEffort},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := examplePods()["G"]
			tc.change(p)
			if got := ComputeClass(p); got != tc.want {
				t.Errorf("got %s, want %s: %s", got, tc.want, tc.reason)
			}
		})
	}
}

func TestOOMScore(t *testing.T) {
	const machine = 8 << 30
	critical := func(p *corev1.Pod) {
		p.Spec.PriorityClassName, p.Annotations = nodeCriticalClass, map[string]string{configSource: "file"}
	}
	cases := map[string]struct {
		reason string
		pod    string
		change func(*corev1.Pod)
		want   int
	}{
		"NodeCritical":    {"a static pod of that class", "E", critical, -997},
		"Priority":        {"or one of that priority", "B1", func(p *corev1.Pod) { critical(p); p.Annotations = nil; p.Spec.Priority = new(int32(systemCritical)) }, -997},
		"ClassAlone":      {"the class without being critical", "E", func(p *corev1.Pod) { critical(p); p.Annotations = map[string]string{configSource: "api"} }, 1000},
		"Static":          {"being critical without the class", "E", func(p *corev1.Pod) { critical(p); p.Spec.PriorityClassName = "" }, 1000},
		"ClusterCritical": {"another critical class", "E", func(p *corev1.Pod) { critical(p); p.Spec.PriorityClassName = "system-cluster-critical" }, 1000},
		"NoRequest":       {"never as bad as BestEffort", "B1", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = nil }, 999},
		"TinyRequest":     {"8 MiB of 8 GiB round to nothing", "B1", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list("", "8Mi") }, 999},
		"Half":            {"half of the machine", "B1", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list("", "4Gi") }, 500},
		"MoreThanThereIs": {"never as good as Guaranteed", "B1", func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list("", "9Gi") }, 3},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := examplePods()[tc.pod]
			c := &p.Spec.Containers[0]
			tc.change(p)
			if got := oomScoreAdj(p, c, machine); got != tc.want {
				t.Errorf("got %d, want %d: %s", got, tc.want, tc.reason)
			}
		})
	}
}

func TestOneWarningWithoutCapability(t *testing.T) {
	var log bytes.Buffer
	tree := exampleTree(t, 2, false, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	tree.oomFloor = 0
	pods := examplePods()
	for range 3 {
		for name, want := range map[string]int{"G": 0, "B1": 985, "E": 1000} {
			if got := tree.Container(pods[name], &pods[name].Spec.Containers[0]).OOMScoreAdj; got != want {
				t.Errorf("%s: score %d, want %d", name, got, want)
			}
		}
	}
	if n := strings.Count(log.String(), "CAP_SYS_RESOURCE"); n != 1 {
		t.Errorf("%d warnings, want one:\n%s", n, log.String())
	}
}
