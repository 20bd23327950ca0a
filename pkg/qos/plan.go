package qos

import corev1 "k8s.io/api/core/v1"

// Level is a cgroup as it would be made.
type Level struct {
	Cgroup   PodCgroup
	Settings []Setting
}

// PlanTree is what the hierarchy would be with pod as the only one: kubepods, the
// tier of the pod's class where it has one, and the pod itself.
func (t *Tree) PlanTree(pod *corev1.Pod) ([]Level, error) {
	cpus, err := t.onlineCPUs()
	if err != nil {
		return nil, err
	}
	l, root := t.levelsFor([]*corev1.Pod{pod}), t.rootResources(cpus)
	if t.cfg.tiered() {
		root.MemoryMin, root.MemoryLow = l.root.MemoryMin, l.root.MemoryLow
	}
	type step struct {
		name name
		res  Resources
	}
	steps := []step{{t.level(), root}}
	switch ComputeClass(pod) {
	case corev1.PodQOSBurstable:
		steps = append(steps, step{t.level("burstable"), l.burstable})
	case corev1.PodQOSBestEffort:
		steps = append(steps, step{t.level("besteffort"), l.bestEffort})
	}
	steps = append(steps, step{t.podName(pod), t.cfg.podResources(pod)})
	var out []Level
	for _, s := range steps {
		cg, err := t.cgroup(s.name)
		if err != nil {
			return nil, err
		}
		out = append(out, Level{cg, s.res.settings(t.version, t.units != nil, t.pageSizes)})
	}
	return out, nil
}
