package qos

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The worked examples: a machine with 4 CPUs and 8 GiB, of which 500m and 1 GiB
// are reserved, and seven pods on it.

func list(cpu, memory string) corev1.ResourceList {
	out := corev1.ResourceList{}
	if cpu != "" {
		out[corev1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[corev1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

func container(name string, requests, limits corev1.ResourceList) corev1.Container {
	return corev1.Container{Name: name, Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}
}

func pod(uid string, containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: types.UID("11111111-2222-3333-4444-55555555555" + uid)},
		Spec:       corev1.PodSpec{Containers: containers},
	}
}

func examplePods() map[string]*corev1.Pod {
	same := func(cpu, memory string) corev1.Container {
		return container("c1", list(cpu, memory), list(cpu, memory))
	}
	c1 := func() corev1.Container { return container("c1", list("250m", "128Mi"), list("500m", "512Mi")) }
	always := corev1.ContainerRestartPolicyAlways
	sidecar := container("s1", list("50m", "32Mi"), list("100m", "64Mi"))
	sidecar.RestartPolicy = &always
	b3 := pod("4", c1())
	b3.Spec.InitContainers = []corev1.Container{sidecar, container("i1", list("600m", "300Mi"), list("600m", "300Mi"))}
	p := pod("5", container("c1", nil, nil), container("c2", list("200m", "128Mi"), list("500m", "256Mi")))
	p.Spec.Resources = &corev1.ResourceRequirements{Requests: list("1", "512Mi"), Limits: list("2", "1Gi")}
	return map[string]*corev1.Pod{
		"G":  pod("0", same("500m", "256Mi")),
		"F":  pod("1", same("15m", "64Mi")),
		"B1": pod("2", c1(), container("c2", list("100m", "64Mi"), list("200m", "128Mi"))),
		"B2": pod("3", c1(), container("c2", list("100m", "64Mi"), nil)),
		"B3": b3,
		"P":  p,
		"E":  pod("6", container("c1", nil, nil)),
	}
}

// exampleTree is a tree of the example machine that writes nothing.
func exampleTree(t *testing.T, version int, systemd bool, change func(*Config)) *Tree {
	t.Helper()
	cfg := Config{
		PodPidsLimit: 1024, CPUCFSQuota: true, CPUCFSQuotaPeriod: 100 * time.Millisecond, MemoryReservationPolicy: "None",
		Node: NodeSettings{
			SystemReserved: corev1.ResourceList{"cpu": resource.MustParse("300m"), "memory": resource.MustParse("512Mi"), "pid": resource.MustParse("1000")},
			KubeReserved:   corev1.ResourceList{"cpu": resource.MustParse("200m"), "memory": resource.MustParse("512Mi")},
			EvictionHard:   map[string]string{"memory.available": "100Mi"}, EnforceNodeAllocatable: []string{"pods"}, MaxPods: 110,
		},
		Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	tree := &Tree{
		cfg: cfg, version: version, fs: &hierarchy{version: version, mounts: map[string]string{"hugetlb": "x"}},
		pageSizes: []string{"1GB", "2MB"}, swap: 2 << 30, v1Swap: true, v2Swap: true, oomFloor: -1000, pods: map[types.UID]PodCgroup{}, tiers: map[string][]Setting{}, unknown: map[string]map[string]Setting{},
		capacity: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), resourcePids: resource.MustParse("32768"),
			"hugepages-2Mi": resource.MustParse("0"), "hugepages-1Gi": resource.MustParse("0"),
		},
	}
	if systemd {
		tree.units = &units{}
	}
	var err error
	if tree.absolute, err = cfg.Node.absoluteOf(tree.capacity); err != nil {
		t.Fatal(err)
	}
	if tree.allocatable, err = cfg.Node.allocatableOf(tree.capacity, tree.absolute); err != nil {
		t.Fatal(err)
	}
	return tree
}

// written is what a list of settings would write, by file.
func written(settings []Setting) map[string]string {
	out := map[string]string{}
	for _, s := range settings {
		if s.File != "" {
			out[s.File] = s.Value
		}
	}
	return out
}

// with adds what every example pod has besides.
func with(version int, pages string, files map[string]string) map[string]string {
	suffix := "max"
	if version == 1 {
		suffix = "limit_in_bytes"
	}
	for _, size := range []string{"1GB", "2MB"} {
		files["hugetlb."+size+"."+suffix], files["hugetlb."+size+".rsvd."+suffix] = pages, pages
	}
	return files
}

func TestPodExamples(t *testing.T) {
	type want struct {
		class           corev1.PodQOSClass
		shares, weight  string
		quota, rounded  string // microseconds; empty is none
		memory          string
		cgroupfs, slice string
	}
	const uid, unitUID = "11111111-2222-3333-4444-55555555555", "11111111_2222_3333_4444_55555555555"
	in := func(tier, n string) (string, string) {
		if tier == "" {
			return "/kubepods/pod" + uid + n, "/kubepods.slice/kubepods-pod" + unitUID + n + ".slice"
		}
		return "/kubepods/" + tier + "/pod" + uid + n, "/kubepods.slice/kubepods-" + tier + ".slice/kubepods-" + tier + "-pod" + unitUID + n + ".slice"
	}
	cases := map[string]want{
		"G":  {class: "Guaranteed", shares: "512", weight: "20", quota: "50000", memory: "268435456"},
		"F":  {class: "Guaranteed", shares: "15", weight: "1", quota: "1500", rounded: "2000", memory: "67108864"},
		"B1": {class: "Burstable", shares: "358", weight: "14", quota: "70000", memory: "671088640"},
		"B2": {class: "Burstable", shares: "358", weight: "14"},
		"B3": {class: "Burstable", shares: "665", weight: "26", quota: "70000", memory: "603979776"},
		"P":  {class: "Burstable", shares: "1024", weight: "39", quota: "200000", memory: "1073741824"},
		"E":  {class: "BestEffort", shares: "2", weight: "1"},
	}
	place := map[string][2]string{"G": {"", "0"}, "F": {"", "1"}, "B1": {"burstable", "2"}, "B2": {"burstable", "3"}, "B3": {"burstable", "4"}, "P": {"burstable", "5"}, "E": {"besteffort", "6"}}
	pods := examplePods()
	for name, w := range cases {
		w.cgroupfs, w.slice = in(place[name][0], place[name][1])
		for _, version := range []int{1, 2} {
			for _, systemd := range []bool{false, true} {
				t.Run(name+map[int]string{1: "/v1", 2: "/v2"}[version]+map[bool]string{false: "/cgroupfs", true: "/systemd"}[systemd], func(t *testing.T) {
					if got := ComputeClass(pods[name]); got != w.class {
						t.Errorf("class is %s, want %s", got, w.class)
					}
					cg, settings, err := exampleTree(t, version, systemd, nil).Plan(pods[name])
					if err != nil {
						t.Fatal(err)
					}
					path, quota := w.cgroupfs, w.quota
					if systemd {
						path = w.slice
						if w.rounded != "" {
							quota = w.rounded
						}
					}
					if cg.Path != path {
						t.Errorf("path is %s, want %s", cg.Path, path)
					}
					files := with(version, "0", map[string]string{"pids.max": "1024"})
					if version == 1 {
						files["cpu.shares"] = w.shares
						if quota != "" {
							files["cpu.cfs_quota_us"], files["cpu.cfs_period_us"] = quota, "100000"
						}
						if w.memory != "" {
							files["memory.limit_in_bytes"] = w.memory
						}
					} else {
						files["cpu.weight"] = w.weight
						if quota != "" {
							files["cpu.max"] = quota + " 100000"
						}
						if w.memory != "" {
							files["memory.max"] = w.memory
						}
					}
					if d := cmp.Diff(files, written(settings)); d != "" {
						t.Errorf("files (-want +got):\n%s", d)
					}
				})
			}
		}
	}
}

func TestUnitProperties(t *testing.T) {
	pods := examplePods()
	cases := map[string]struct {
		reason  string
		version int
		pod     string
		want    map[string]any
	}{
		"Rounded": {
			reason: "systemd counts quotas in steps of 10 ms per second", version: 2, pod: "F",
			want: map[string]any{"CPUWeight": uint64(1), "CPUQuotaPerSecUSec": uint64(20000), "CPUQuotaPeriodUSec": uint64(100000), "MemoryMax": uint64(67108864), "TasksMax": uint64(1024)},
		},
		"NoLimits": {
			reason: "what is not limited is not mentioned", version: 2, pod: "E",
			want: map[string]any{"CPUWeight": uint64(1), "TasksMax": uint64(1024)},
		},
		"V1": {
			reason: "v1 has other properties", version: 1, pod: "G",
			want: map[string]any{"CPUShares": uint64(512), "CPUQuotaPerSecUSec": uint64(500000), "CPUQuotaPeriodUSec": uint64(100000), "MemoryLimit": uint64(268435456), "TasksMax": uint64(1024)},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, settings, err := exampleTree(t, tc.version, true, nil).Plan(pods[tc.pod])
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]any{}
			for _, p := range properties(settings) {
				got[p.Name] = p.Value.Value()
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
			for _, f := range files(settings, true) {
				if f.Controller != "hugetlb" {
					t.Errorf("%s is written behind systemd's back", f.File)
				}
			}
		})
	}
}

func TestContainerExamples(t *testing.T) {
	type want struct {
		shares        uint64
		quota, memory int64
		oom           int
	}
	cases := map[string]map[string]want{
		"G":  {"c1": {512, 50000, 268435456, -997}},
		"F":  {"c1": {15, 1500, 67108864, -997}},
		"B1": {"c1": {256, 50000, 536870912, 985}, "c2": {102, 20000, 134217728, 993}},
		"B2": {"c2": {102, 0, 0, 993}},
		"B3": {"s1": {51, 10000, 67108864, 985}, "i1": {614, 60000, 314572800, 964}, "c1": {256, 50000, 536870912, 985}},
		"P":  {"c1": {2048, 200000, 1073741824, 977}, "c2": {204, 50000, 268435456, 961}},
		"E":  {"c1": {2, 0, 0, 1000}},
	}
	pods := examplePods()
	tree := exampleTree(t, 2, false, nil)
	for name, containers := range cases {
		for _, c := range append(pods[name].Spec.InitContainers, pods[name].Spec.Containers...) {
			w, wanted := containers[c.Name]
			if !wanted {
				continue
			}
			t.Run(name+"."+c.Name, func(t *testing.T) {
				res := tree.Container(pods[name], &c)
				got := want{shares: *res.Linux.CPU.Shares, oom: res.OOMScoreAdj}
				if res.Linux.CPU.Quota != nil {
					got.quota = *res.Linux.CPU.Quota
				}
				if res.Linux.Memory.Limit != nil {
					got.memory = *res.Linux.Memory.Limit
				}
				if got != w {
					t.Errorf("got %+v, want %+v", got, w)
				}
				unified := map[string]string{"memory.oom.group": "1", "memory.min": "0", "memory.low": "0", "memory.swap.max": "0"}
				if d := cmp.Diff(unified, res.Linux.Unified); d != "" {
					t.Errorf("unified (-want +got):\n%s", d)
				}
			})
		}
	}
}
