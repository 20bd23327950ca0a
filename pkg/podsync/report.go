package podsync

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// report tells the status and writes down what must outlive the agent.
func (w *worker) report(want Want, have Have, plan Plan, now time.Time) {
	w.mu.Lock()
	status := Status(want, have, plan, w.rec.Status, now)
	changed := !equality.Semantic.DeepEqual(status, w.rec.Status)
	w.rec.Status, w.rec.Pod = status, want.Pod
	save := (changed || w.dirty) && !have.Forgotten
	w.dirty = false
	w.mu.Unlock()
	if plan.Done {
		w.cfg.Status.Remove(w.uid)
		return
	}
	if save {
		if err := w.cfg.records().save(w.uid, w.snapshot()); err != nil {
			w.log.Error("record not written", "err", err)
		}
	}
	if (changed || !w.told) && want.Pod.Name != "" { // of a stray cgroup not even the name is known
		w.told = true
		w.cfg.Status.Set(withStatus(want.Pod, status))
	}
	if plan.Phase == Terminated && have.VolumesGone && have.CgroupGone && want.Pod.DeletionTimestamp != nil && !want.Gone && !w.freed {
		w.freed = true
		w.cfg.Status.Release(withStatus(want.Pod, status))
	}
}

func withStatus(pod *corev1.Pod, status corev1.PodStatus) *corev1.Pod {
	pod = pod.DeepCopy()
	pod.Status = status
	return pod
}

// status is the status told last.
func (w *worker) status() corev1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return *w.rec.Status.DeepCopy()
}
