package qos

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestLevels(t *testing.T) {
	pods := examplePods()
	for name, tc := range map[string]struct {
		reason   string
		version  int
		change   func(*Config)
		running  []string
		root     map[string]string
		burst    map[string]string
		effort   map[string]string
		rootAlso map[string]string
	}{
		"V2": {
			reason: "kubepods gets what is not reserved", version: 2, running: []string{"B1", "B2", "B3", "P"},
			root:  map[string]string{"cpu.weight": "137", "memory.max": "7516192768", "pids.max": "31768", "cpuset.cpus": "0-3", "memory.min": "0", "memory.low": "0"},
			burst: map[string]string{"cpu.weight": "92"},
		},
		"V1": {
			reason: "", version: 1, running: []string{"B1"},
			root:  map[string]string{"cpu.shares": "3584", "memory.limit_in_bytes": "7516192768", "pids.max": "31768", "cpuset.cpus": "0-3"},
			burst: map[string]string{"cpu.shares": "358"},
		},
		"NotEnforced": {
			reason: "without enforcement the whole machine", version: 2, change: func(c *Config) { c.Node.EnforceNodeAllocatable = nil },
			root:  map[string]string{"cpu.weight": "157", "memory.max": "8589934592", "pids.max": "32768", "cpuset.cpus": "0-3", "memory.min": "0", "memory.low": "0"},
			burst: map[string]string{"cpu.weight": "1"},
		},
		"Tiered": {
			reason: "requests are protected at every level above the pod", version: 2, change: func(c *Config) { c.MemoryReservationPolicy = "TieredReservation" }, running: []string{"G", "B1"},
			root:     map[string]string{"cpu.weight": "137", "memory.max": "7516192768", "pids.max": "31768", "cpuset.cpus": "0-3"},
			burst:    map[string]string{"cpu.weight": "14", "memory.low": "201326592"},
			rootAlso: map[string]string{"memory.min": "469762048", "memory.low": "201326592"},
		},
		"NoMemoryQoS": {
			reason: "without the gate nothing is protected, whatever the policy", version: 2, running: []string{"G", "B1"},
			change: func(c *Config) { c.MemoryReservationPolicy, c.NoMemoryQoS = "TieredReservation", true },
			root:   map[string]string{"cpu.weight": "137", "memory.max": "7516192768", "pids.max": "31768", "cpuset.cpus": "0-3", "memory.min": "0", "memory.low": "0"},
			burst:  map[string]string{"cpu.weight": "14"},
		},
		"QOSReserved": {
			reason: "lower levels keep off half of what the higher ones request", version: 2, running: []string{"G", "B1"},
			change: func(c *Config) { c.QOSReservedMemory = 50 },
			root:   map[string]string{"cpu.weight": "137", "memory.max": "7516192768", "pids.max": "31768", "cpuset.cpus": "0-3", "memory.min": "0", "memory.low": "0"},
			burst:  map[string]string{"cpu.weight": "14", "memory.max": "7381975040"},
			effort: map[string]string{"cpu.weight": "1", "memory.max": "7281311744"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := exampleTree(t, tc.version, false, tc.change)
			var running []*corev1.Pod
			for _, p := range tc.running {
				running = append(running, pods[p])
			}
			root := tree.rootResources("0-3")
			if d := cmp.Diff(with(tc.version, "4611686018427387904", tc.root), written(root.settings(tc.version, false, tree.pageSizes))); d != "" {
				t.Errorf("%s: kubepods (-want +got):\n%s", tc.reason, d)
			}
			l := tree.levelsFor(running)
			if d := cmp.Diff(with(tc.version, "4611686018427387904", tc.burst), written(l.burstable.settings(tc.version, false, tree.pageSizes))); d != "" {
				t.Errorf("%s: burstable (-want +got):\n%s", tc.reason, d)
			}
			if tc.effort == nil {
				tc.effort = map[string]string{"cpu.weight": "1"}
				if tc.version == 1 {
					tc.effort = map[string]string{"cpu.shares": "2"}
				}
			}
			if d := cmp.Diff(with(tc.version, "4611686018427387904", tc.effort), written(l.bestEffort.settings(tc.version, false, tree.pageSizes))); d != "" {
				t.Errorf("%s: besteffort (-want +got):\n%s", tc.reason, d)
			}
			if tc.rootAlso == nil {
				tc.rootAlso = map[string]string{}
			}
			if d := cmp.Diff(with(tc.version, "4611686018427387904", tc.rootAlso), written(l.root.settings(tc.version, false, tree.pageSizes))); d != "" {
				t.Errorf("%s: kubepods with pods (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestAllocatable(t *testing.T) {
	tree := exampleTree(t, 2, false, nil)
	a := tree.Allocatable()
	if a.Cpu().MilliValue() != 3500 || a.Memory().Value() != 7411335168 {
		t.Errorf("allocatable is %s and %d, want 3500m and 7411335168", a.Cpu(), a.Memory().Value())
	}
	if _, has := a[resourcePids]; has {
		t.Error("process IDs are no part of a node's status")
	}
	tooMuch := NodeSettings{KubeReserved: list("", "9Gi")}
	if _, err := tooMuch.absoluteOf(tree.capacity); err == nil {
		t.Error("reserving more than there is must be refused")
	}
	if got, err := thresholdOf("10%", 107374182400); err != nil || got != 10737418400 {
		t.Errorf("10%% of 107374182400 is %d (%v), want 10737418400", got, err)
	}
}

func TestReserved(t *testing.T) {
	settings := exampleTree(t, 2, false, nil).cfg.Node
	for name, tc := range map[string]struct {
		reason       string
		version      int
		list         corev1.ResourceList
		compressible bool
		noQoS        bool
		want         map[string]string
	}{
		"Kube": {
			reason: "what is reserved is a limit, and protected", version: 2, list: settings.KubeReserved,
			want: map[string]string{"cpu.weight": "8", "memory.max": "536870912", "memory.min": "536870912", "cpuset.cpus": "0-3"},
		},
		"System": {
			reason: "process IDs too", version: 2, list: settings.SystemReserved,
			want: map[string]string{"cpu.weight": "12", "memory.max": "536870912", "memory.min": "536870912", "pids.max": "1000", "cpuset.cpus": "0-3"},
		},
		"SystemV1": {
			reason: "v1 protects no memory", version: 1, list: settings.SystemReserved,
			want: map[string]string{"cpu.shares": "307", "memory.limit_in_bytes": "536870912", "pids.max": "1000", "cpuset.cpus": "0-3"},
		},
		"Compressible": {
			reason: "only CPU is enforced", version: 2, list: settings.SystemReserved, compressible: true,
			want: map[string]string{"cpu.weight": "12", "cpuset.cpus": "0-3"},
		},
		"NoMemoryQoS": {
			reason: "without the gate there is no protection", version: 2, list: settings.KubeReserved, noQoS: true,
			want: map[string]string{"cpu.weight": "8", "memory.max": "536870912", "cpuset.cpus": "0-3"},
		},
		"Nothing": {
			reason: "what is not reserved is not limited", version: 2, want: map[string]string{"cpuset.cpus": "0-3"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree := exampleTree(t, tc.version, false, func(c *Config) { c.NoMemoryQoS = tc.noQoS })
			res := tree.reservedResources(tc.list, tc.compressible, "0-3")
			if d := cmp.Diff(with(tc.version, "0", tc.want), written(res.settings(tc.version, false, tree.pageSizes))); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

func TestReservedCPUs(t *testing.T) {
	s := NodeSettings{ReservedCPUs: "0,2-3", SystemReserved: list("100m", "1Gi"), KubeReserved: list("200m", "2Gi")}
	if err := s.reserveCPUs(); err != nil {
		t.Fatal(err)
	}
	want := NodeSettings{ReservedCPUs: "0,2-3", SystemReserved: list("3", "1Gi"), KubeReserved: list("", "2Gi")}
	if d := cmp.Diff(want, s); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, bad := range []string{"x", "3-1", "-1", "0-999999999999"} {
		if err := (&NodeSettings{ReservedCPUs: bad}).reserveCPUs(); err == nil {
			t.Errorf("%q is no list of CPUs", bad)
		}
	}
}
