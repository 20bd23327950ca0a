//go:build integration

package qos

import (
	"context"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/manager"
)

// oracle makes a cgroup with the library that the kubelet makes its own with.
func oracle(t *testing.T, tree *Tree, n name, res *Resources) {
	t.Helper()
	cg := &cgroups.Cgroup{Systemd: tree.SystemdDriver(), Path: n.cgroupfs(), Resources: &cgroups.Resources{
		SkipDevices: true, SkipFreezeOnSet: true, CpuQuota: res.CPUQuota, CpuPeriod: res.CPUPeriod, CpusetCpus: res.CPUSet,
		PidsLimit: res.Pids, Unified: map[string]string{},
	}}
	if cg.Systemd {
		cg.Path, cg.Name, cg.Parent = "", n.slice(), n[:len(n)-1].slice()
	}
	if res.Memory != nil {
		cg.Resources.Memory = *res.Memory
	}
	if tree.Version() == 1 {
		cg.Resources.CpuShares, cg.Resources.Unified = res.CPUShares, nil
	} else {
		cg.Resources.CpuWeight = weightOf(res.CPUShares)
		for _, s := range res.settings(2, cg.Systemd, nil) {
			if s.File == "memory.min" || s.File == "memory.low" || s.File == "memory.high" {
				cg.Resources.Unified[s.File] = s.Value
			}
		}
	}
	for _, size := range tree.pageSizes {
		if tree.fs.has("hugetlb") {
			cg.Resources.HugetlbLimit = append(cg.Resources.HugetlbLimit, &cgroups.HugepageLimit{Pagesize: size, Limit: res.Hugetlb[size]})
		}
	}
	m, err := manager.New(cg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply(-1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Destroy(); err != nil {
			t.Error(err)
		}
	})
	if err := m.Set(cg.Resources); err != nil {
		t.Fatal(err)
	}
}

// state is all that a cgroup is set to: its files, and the properties of its unit.
func state(t *testing.T, tree *Tree, n name) map[string]string {
	t.Helper()
	dir, err := tree.path(n)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	files := tree.fs.settingFiles()
	for _, size := range tree.pageSizes {
		for _, suffix := range []string{".max", ".rsvd.max", ".limit_in_bytes", ".rsvd.limit_in_bytes"} {
			files = append(files, [2]string{"hugetlb", "hugetlb." + size + suffix})
		}
	}
	for _, f := range append(files, [2]string{"cpuset", "cpuset.mems"}, [2]string{"memory", "cgroup.controllers"}) {
		if v, ok := tree.fs.value(dir, f[0], f[1]); ok {
			out[f[1]] = v
		}
	}
	if !tree.SystemdDriver() {
		return out
	}
	properties := "ActiveState,Delegate,DefaultDependencies,CPUAccounting,MemoryAccounting,TasksAccounting,IOAccounting,BlockIOAccounting,Slice,Wants," +
		"CPUWeight,CPUShares,CPUQuotaPerSecUSec,CPUQuotaPeriodUSec,MemoryMax,MemoryLimit,MemoryMin,MemoryLow,MemoryHigh,MemorySwapMax,TasksMax,AllowedCPUs"
	shown, err := exec.Command("systemctl", "show", path.Base(dir), "-p", properties).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(shown)) {
		property, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		out[property] = value
	}
	return out
}

// TestOracle compares with what the kubelet's library makes of the same input.
func TestOracle(t *testing.T) {
	tree := machineTree(t)
	pods := examplePods()
	inputs := map[string]Resources{}
	for name, p := range pods {
		inputs[name] = tree.cfg.podResources(p)
	}
	factor := 0.9
	protected := tree.cfg
	protected.MemoryReservationPolicy, protected.MemoryThrottlingFactor = "TieredReservation", &factor
	inputs["Protected"], inputs["ProtectedMin"] = protected.podResources(pods["P"]), protected.podResources(pods["G"])
	noQuota := tree.cfg
	noQuota.CPUCFSQuota = false
	inputs["NoQuota"] = noQuota.podResources(pods["G"])
	cpus, _ := tree.fs.value("/", "cpuset", "cpuset.cpus.effective")
	if cpus == "" {
		cpus, _ = tree.fs.value("/", "cpuset", "cpuset.cpus")
	}
	inputs["Level"] = tree.rootResources(cpus)
	for name, res := range inputs {
		t.Run(name, func(t *testing.T) {
			ours, theirs := tree.level("burstable", "podours"+strings.ToLower(name)), tree.level("burstable", "podtheirs"+strings.ToLower(name))
			if err := tree.apply(t.Context(), ours, &res, true); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				dir, err := tree.path(ours)
				if err == nil {
					err = tree.removeCgroup(context.Background(), ours, dir)
				}
				if err != nil {
					t.Error(err)
				}
			})
			oracle(t, tree, theirs, &res)
			if d := cmp.Diff(state(t, tree, theirs), state(t, tree, ours)); d != "" {
				t.Errorf("(-library +ours):\n%s", d)
			}
		})
	}
}
