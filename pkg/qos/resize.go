package qos

import (
	"context"
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
)

// ResizePod sets the cgroup of a pod, which is there and as from asks for, to what
// to asks for. containers is called in between, to do the same for what is inside:
// what grows grows before it, and what shrinks shrinks after it, since the kernel
// refuses a child more than its parent has. A limit that to does not have stays.
// It may be repeated after it has failed.
func (t *Tree) ResizePod(ctx context.Context, from, to *corev1.Pod, containers func() error) error {
	have, want := t.cfg.podResources(from), t.cfg.podResources(to)
	n := t.podName(to)
	grow, shrink := resizeSteps(&have, &want)
	for _, res := range grow {
		if err := t.set(ctx, n, &res); err != nil {
			return fmt.Errorf("resize the cgroup of pod %s/%s: %w", to.Namespace, to.Name, err)
		}
	}
	if err := containers(); err != nil {
		return err
	}
	for _, res := range shrink {
		if err := t.set(ctx, n, &res); err != nil {
			return fmt.Errorf("resize the cgroup of pod %s/%s: %w", to.Namespace, to.Name, err)
		}
	}
	return nil
}

// resizeSteps lists what differs, one setting at a time: limits grow before
// requests and shrink after them.
func resizeSteps(have, want *Resources) (grow, shrink []Resources) {
	add := func(up bool, res Resources) {
		res.Hugetlb = want.Hugetlb // which cannot change, and would be taken for nothing
		if up {
			grow = append(grow, res)
		} else {
			shrink = append([]Resources{res}, shrink...)
		}
	}
	if want.Memory != nil && limitOf(have.Memory) != *want.Memory {
		add(*want.Memory > limitOf(have.Memory), Resources{Memory: want.Memory})
	}
	if had, has := quotaLimit(have), quotaLimit(want); want.CPUQuota != 0 && had != has {
		add(has > had, Resources{CPUQuota: want.CPUQuota, CPUPeriod: want.CPUPeriod})
	}
	if want.CPUShares != have.CPUShares {
		add(want.CPUShares > have.CPUShares, Resources{CPUShares: want.CPUShares})
	}
	for _, p := range []struct {
		had, has *int64
		only     Resources
	}{
		{have.MemoryHigh, want.MemoryHigh, Resources{MemoryHigh: want.MemoryHigh}},
		{have.MemoryMin, want.MemoryMin, Resources{MemoryMin: want.MemoryMin}},
		{have.MemoryLow, want.MemoryLow, Resources{MemoryLow: want.MemoryLow}},
	} {
		if p.has != nil && (p.had == nil || *p.had != *p.has) {
			add(p.had == nil || *p.has > *p.had, p.only)
		}
	}
	return grow, shrink
}

// limitOf is a limit to compare with: without one there is room for everything.
func limitOf(bytes *int64) int64 {
	if bytes == nil {
		return math.MaxInt64
	}
	return *bytes
}

// quotaLimit is a quota to compare with.
func quotaLimit(res *Resources) int64 {
	if res.CPUQuota <= 0 {
		return math.MaxInt64
	}
	return res.CPUQuota
}

// MemoryUsed is how much memory a cgroup uses, caches included.
func (t *Tree) MemoryUsed(cgroup string) (uint64, error) {
	file := "memory.current"
	if t.version == 1 {
		file = "memory.usage_in_bytes"
	}
	used, ok := t.fs.value(cgroup, "memory", file)
	if !ok {
		return 0, fmt.Errorf("memory usage of cgroup %s cannot be read", cgroup)
	}
	var n uint64
	if _, err := fmt.Sscan(used, &n); err != nil {
		return 0, fmt.Errorf("memory usage of cgroup %s: %w", cgroup, err)
	}
	return n, nil
}
