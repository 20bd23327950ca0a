package qos

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
)

func TestResizeSteps(t *testing.T) {
	const mib = 1 << 20
	with := func(change func(*Resources)) Resources {
		res := Resources{CPUShares: 358, CPUQuota: 70000, CPUPeriod: 100000, Memory: new(int64(640 * mib)), Hugetlb: map[string]uint64{"2MB": 4 * mib}}
		change(&res)
		return res
	}
	cases := map[string]struct {
		reason       string
		have, want   func(*Resources)
		grow, shrink []Resources
	}{
		"Same": {reason: "what is as it should be is not written"},
		"WorkedExample": {
			reason: "more CPU before the containers, less memory after them",
			want:   func(r *Resources) { r.CPUShares, r.CPUQuota, r.Memory = 512, 100000, new(int64(384*mib)) },
			grow:   []Resources{{CPUQuota: 100000, CPUPeriod: 100000}, {CPUShares: 512}},
			shrink: []Resources{{Memory: new(int64(384 * mib))}},
		},
		"Back": {
			reason: "and the way back: requests shrink before limits",
			want:   func(r *Resources) { r.CPUShares, r.CPUQuota, r.Memory = 102, 20000, new(int64(700*mib)) },
			grow:   []Resources{{Memory: new(int64(700 * mib))}},
			shrink: []Resources{{CPUShares: 102}, {CPUQuota: 20000, CPUPeriod: 100000}},
		},
		"LimitsAdded": {
			reason: "a first limit is less than none",
			have:   func(r *Resources) { r.CPUQuota, r.CPUPeriod, r.Memory = 0, 0, nil },
			shrink: []Resources{{CPUQuota: 70000, CPUPeriod: 100000}, {Memory: new(int64(640 * mib))}},
		},
		"LimitsGone": {
			reason: "a limit that is not wanted any more stays",
			want:   func(r *Resources) { r.CPUQuota, r.CPUPeriod, r.Memory = 0, 0, nil },
		},
		"QuotaOff": {
			reason: "where quotas are not enforced none is written again",
			have:   func(r *Resources) { r.CPUQuota = -1 },
			want:   func(r *Resources) { r.CPUQuota = -1 },
		},
		"Protection": {
			reason: "memory that is protected follows the requests",
			have:   func(r *Resources) { r.MemoryLow, r.MemoryHigh = new(int64(64*mib)), new(int64(128*mib)) },
			want:   func(r *Resources) { r.MemoryLow, r.MemoryHigh = new(int64(32*mib)), new(int64(256*mib)) },
			grow:   []Resources{{MemoryHigh: new(int64(256 * mib))}},
			shrink: []Resources{{MemoryLow: new(int64(32 * mib))}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			nothing := func(*Resources) {}
			if tc.have == nil {
				tc.have = nothing
			}
			if tc.want == nil {
				tc.want = nothing
			}
			have, want := with(tc.have), with(tc.want)
			grow, shrink := resizeSteps(&have, &want)
			for _, list := range [][]Resources{grow, shrink} {
				for i := range list {
					if list[i].Hugetlb["2MB"] != 4*mib {
						t.Error("huge pages stay what they are")
					}
				}
			}
			if d := cmp.Diff([][]Resources{tc.grow, tc.shrink}, [][]Resources{grow, shrink}, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Resources{}, "Hugetlb")); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

// TestResizedAsMade compares a pod that was resized with one that was made so.
func TestResizedAsMade(t *testing.T) {
	cfg := Config{CPUCFSQuota: true, CPUCFSQuotaPeriod: 100_000_000}
	from, to := examplePods()["B1"], examplePods()["B1"]
	to.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list("400m", "128Mi"), Limits: list("800m", "256Mi")}
	have, want := cfg.podResources(from), cfg.podResources(to)
	grow, shrink := resizeSteps(&have, &want)
	for _, version := range []int{1, 2} {
		files := map[string]string{}
		for _, res := range append([]Resources{have}, append(grow, shrink...)...) {
			for _, s := range res.settings(version, false, []string{"2MB"}) {
				files[s.File] = s.Value
			}
		}
		made := map[string]string{}
		for _, s := range want.settings(version, false, []string{"2MB"}) {
			made[s.File] = s.Value
		}
		if d := cmp.Diff(made, files); d != "" {
			t.Errorf("v%d: files of a pod that was made so and of one that was resized (-made +resized):\n%s", version, d)
		}
	}
}
