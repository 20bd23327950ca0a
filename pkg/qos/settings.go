package qos

import (
	"fmt"
	"math"
	"strconv"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// Setting is one value of a cgroup: a file, and the systemd property that stands
// for it where there is one.
type Setting struct {
	// Controller is the v1 hierarchy that File is in; v2 has one for all.
	Controller, File, Value string
	// Property is empty for values that systemd does not know.
	Property string
	// value is what Property is set to: a number, or a CPU mask.
	value any
	// optional files may be missing from a kernel.
	optional bool
	// both is for a property that systemd knows and does not act upon.
	both bool
}

// quotaStep is systemd's granularity of quotas: 10 ms of CPU time per second.
const quotaStep = 10_000

// settings lists what res means for a cgroup version. With systemd, quotas are
// rounded up as systemd does, so that file and unit agree. pageSizes are all
// sizes of huge pages that the machine knows.
func (res *Resources) settings(version int, systemd bool, pageSizes []string) []Setting {
	var out []Setting
	add := func(s Setting) { out = append(out, s) }
	number := func(controller, v1, v2, p1, p2 string, n int64) {
		s := Setting{Controller: controller, File: v2, Property: p2, Value: strconv.FormatInt(n, 10), value: uint64(n)}
		if version == 1 {
			s.File, s.Property = v1, p1
		}
		add(s)
	}
	if res.Pids != nil {
		number("pids", "pids.max", "pids.max", "TasksMax", "TasksMax", *res.Pids)
	}
	if res.Memory != nil {
		number("memory", "memory.limit_in_bytes", "memory.max", "MemoryLimit", "MemoryMax", *res.Memory)
	}
	if version == 2 {
		for _, p := range []struct {
			file, property string
			value          *int64
		}{
			{"memory.min", "MemoryMin", res.MemoryMin}, {"memory.low", "MemoryLow", res.MemoryLow}, {"memory.high", "MemoryHigh", res.MemoryHigh},
		} {
			if p.value != nil {
				number("memory", "", p.file, "", p.property, *p.value)
			}
		}
	}
	if res.CPUShares != 0 {
		if version == 1 {
			number("cpu", "cpu.shares", "", "CPUShares", "", int64(res.CPUShares))
		} else {
			number("cpu", "", "cpu.weight", "", "CPUWeight", int64(weightOf(res.CPUShares)))
		}
	}
	out = append(out, res.quotaSettings(version, systemd)...)
	if res.CPUSet != "" {
		s := Setting{Controller: "cpuset", File: "cpuset.cpus", Value: res.CPUSet, both: version == 1}
		if cpus, err := parseCPUs(res.CPUSet); err == nil {
			s.Property, s.value = "AllowedCPUs", cpuMask(cpus)
		}
		add(s)
	}
	for _, size := range pageSizes {
		value := strconv.FormatUint(res.Hugetlb[size], 10)
		file, reserved := "hugetlb."+size+".max", "hugetlb."+size+".rsvd.max"
		if version == 1 {
			file, reserved = "hugetlb."+size+".limit_in_bytes", "hugetlb."+size+".rsvd.limit_in_bytes"
		}
		add(Setting{Controller: "hugetlb", File: file, Value: value, optional: true})
		add(Setting{Controller: "hugetlb", File: reserved, Value: value, optional: true})
	}
	return out
}

// quotaSettings are the CPU quota and its period.
func (res *Resources) quotaSettings(version int, systemd bool) []Setting {
	if res.CPUQuota == 0 {
		return nil
	}
	quota, perSecond := res.CPUQuota, uint64(math.MaxUint64)
	if quota > 0 {
		perSecond = uint64(quota) * 1_000_000 / res.CPUPeriod
		perSecond = (perSecond + quotaStep - 1) / quotaStep * quotaStep
		if systemd {
			quota = int64(perSecond * res.CPUPeriod / 1_000_000)
		}
	}
	period := Setting{Property: "CPUQuotaPeriodUSec", value: res.CPUPeriod}
	limit := Setting{Controller: "cpu", Property: "CPUQuotaPerSecUSec", value: perSecond}
	if version == 1 {
		period.Controller, period.File, period.Value = "cpu", "cpu.cfs_period_us", strconv.FormatUint(res.CPUPeriod, 10)
		limit.File, limit.Value = "cpu.cfs_quota_us", strconv.FormatInt(quota, 10)
		return []Setting{period, limit}
	}
	limit.File, limit.Value = "cpu.max", fmt.Sprintf("max %d", res.CPUPeriod)
	if quota > 0 {
		limit.Value = fmt.Sprintf("%d %d", quota, res.CPUPeriod)
	}
	return []Setting{period, limit}
}

// cpuMask is a set of CPUs as systemd wants it: little-endian bits.
func cpuMask(cpus []int) []byte {
	var mask []byte
	for _, c := range cpus {
		for len(mask) <= c/8 {
			mask = append(mask, 0)
		}
		mask[c/8] |= 1 << (c % 8)
	}
	return mask
}

// properties are the unit properties among settings.
func properties(settings []Setting) []dbus.Property {
	var out []dbus.Property
	for _, s := range settings {
		if s.Property != "" {
			out = append(out, dbus.Property{Name: s.Property, Value: godbus.MakeVariant(s.value)})
		}
	}
	return out
}

// files are the settings that must be written as files: all of them, or with
// systemd only those it has no property for.
func files(settings []Setting, systemd bool) []Setting {
	var out []Setting
	for _, s := range settings {
		if s.File != "" && (!systemd || s.Property == "" || s.both) {
			out = append(out, s)
		}
	}
	return out
}
