package qos

import (
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// The variants of the worked examples: what a pod and its containers get besides
// or instead, on cgroup v2.
func TestVariants(t *testing.T) {
	type files = map[string]string
	tiered := func(c *Config) { c.MemoryReservationPolicy = "TieredReservation" }
	overhead := func(p *corev1.Pod) { p.Spec.Overhead = list("100m", "64Mi") }
	cases := map[string]struct {
		reason     string
		pod        string
		change     func(*corev1.Pod)
		cfg        func(*Config)
		want       files            // of the pod
		containers map[string]files // by name
	}{
		"Hugepages": {
			reason: "huge pages are what the containers request, and nothing of the other size", pod: "G",
			change: func(p *corev1.Pod) {
				for _, l := range []corev1.ResourceList{p.Spec.Containers[0].Resources.Requests, p.Spec.Containers[0].Resources.Limits} {
					l["hugepages-2Mi"] = resource.MustParse("4Mi")
				}
			},
			want:       files{"hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "4194304", "hugetlb.1GB.max": "0", "hugetlb.1GB.rsvd.max": "0"},
			containers: map[string]files{"c1": {"hugetlb.2MB.max": "4194304", "hugetlb.1GB.max": "0"}},
		},
		"Overhead": {
			reason: "what the runtime class costs is the pod's, and none of its containers'", pod: "G", change: overhead,
			want:       files{"cpu.weight": "24", "cpu.max": "60000 100000", "memory.max": "335544320"},
			containers: map[string]files{"c1": {"memory.max": "268435456", "cpu.max": "50000 100000"}},
		},
		"OverheadUnlimited": {
			reason: "it makes no limit where there is none", pod: "B2", change: overhead,
			want: files{"cpu.weight": "18", "cpu.max": "", "memory.max": ""},
		},
		"OverheadTiered": {
			reason: "it is protected with the rest", pod: "B1", change: overhead, cfg: tiered,
			want: files{"cpu.weight": "18", "cpu.max": "80000 100000", "memory.max": "738197504", "memory.low": "268435456", "memory.min": ""},
		},
		"TieredGuaranteed": {
			reason: "a guaranteed request is never taken", pod: "G", cfg: tiered,
			want:       files{"memory.min": "268435456", "memory.low": ""},
			containers: map[string]files{"c1": {"memory.min": "268435456", "memory.low": ""}},
		},
		"TieredBurstable": {
			reason: "a burstable one only when nothing else is left", pod: "B1", cfg: tiered,
			want:       files{"memory.min": "", "memory.low": "201326592"},
			containers: map[string]files{"c1": {"memory.min": "", "memory.low": "134217728"}, "c2": {"memory.min": "", "memory.low": "67108864"}},
		},
		"TieredBestEffort": {
			reason: "without a request nothing is protected", pod: "E", cfg: tiered,
			want:       files{"memory.min": "", "memory.low": ""},
			containers: map[string]files{"c1": {"memory.min": "0", "memory.low": "0"}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p := examplePods()[tc.pod]
			if tc.change != nil {
				tc.change(p)
			}
			tree := exampleTree(t, 2, false, tc.cfg)
			_, settings, err := tree.Plan(p)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, among(tc.want, written(settings))); d != "" {
				t.Errorf("%s: pod (-want +got):\n%s", tc.reason, d)
			}
			for _, c := range p.Spec.Containers {
				want, wanted := tc.containers[c.Name]
				if !wanted {
					continue
				}
				if d := cmp.Diff(want, among(want, runtimeFiles(tree.Container(p, &c)))); d != "" {
					t.Errorf("%s: container %s (-want +got):\n%s", tc.reason, c.Name, d)
				}
			}
		})
	}
}

// among picks the files that a case names; one that is not written is empty.
func among(want, got map[string]string) map[string]string {
	out := map[string]string{}
	for file := range want {
		out[file] = got[file]
	}
	return out
}

// runtimeFiles is what an OCI runtime makes of a container's resources.
func runtimeFiles(r ContainerResources) map[string]string {
	out := maps.Clone(r.Linux.Unified)
	if l := r.Linux.Memory.Limit; l != nil {
		out["memory.max"] = fmt.Sprint(*l)
	}
	if q := r.Linux.CPU.Quota; q != nil {
		out["cpu.max"] = fmt.Sprint(*q, *r.Linux.CPU.Period)
	}
	for _, h := range r.Linux.HugepageLimits {
		out["hugetlb."+h.Pagesize+".max"] = fmt.Sprint(h.Limit)
	}
	return out
}

func TestSwapAndThrottling(t *testing.T) {
	pods := examplePods()
	factor := 0.9
	limited := exampleTree(t, 2, false, func(c *Config) { c.SwapBehavior = "LimitedSwap"; c.MemoryThrottlingFactor = &factor })
	for name, tc := range map[string]struct{ swap, high string }{
		"B1.c1": {"33554432", "496603136"}, "B1.c2": {"16777216", "127504384"}, "B2.c2": {"16777216", "6771281920"},
		"B3.s1": {"8388608", "63750144"}, "B3.i1": {"0", ""}, "G.c1": {"0", ""}, "E.c1": {"0", "6764572672"},
		"P.c1": {"0", ""}, "P.c2": {"33554432", "255012864"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pods[name[:len(name)-3]]
			for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
				if c.Name != name[len(name)-2:] {
					continue
				}
				u := limited.Container(p, &c).Linux.Unified
				if u["memory.swap.max"] != tc.swap || u["memory.high"] != tc.high {
					t.Errorf("swap %q, high %q, want %q, %q", u["memory.swap.max"], u["memory.high"], tc.swap, tc.high)
				}
			}
		})
	}
	_, settings, err := limited.Plan(pods["P"])
	if err != nil {
		t.Fatal(err)
	}
	if got := written(settings)["memory.high"]; got != "1020051456" {
		t.Errorf("memory.high of pod P is %q, want 1020051456", got)
	}
}
