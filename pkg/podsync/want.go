package podsync

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodeagent/nodeagent/pkg/cri"
)

// What Restart may find wrong.
var (
	ErrUnknownPod  = errors.New("no such pod on this node")
	ErrNotRunning  = errors.New("the pod has ended or is ending")
	ErrNoContainer = errors.New("no container to restart")
)

// This file is what others may tell a worker, from any goroutine. All of it is
// written down first and acted on by the worker's own loop.

// update hands over the newest version of the pod from its source.
func (w *worker) update(pod *corev1.Pod, evicted map[types.UID]Eviction) {
	w.mu.Lock()
	differs := w.source != pod && !sameWish(w.source, pod)
	changed := differs || w.source != pod && !equality.Semantic.DeepEqual(w.source.Status.Conditions, pod.Status.Conditions)
	w.source, w.pod = pod, grantOf(w.pod).apply(pod)
	if w.rec.Pending != nil && grantOf(w.pod).equals(pod) { // it asks for what it has again
		w.rec.Pending, differs, changed = nil, true, true
	}
	w.facts.stale = w.facts.stale || differs // the downward API shows labels and annotations
	w.dirty = w.dirty || differs
	w.mu.Unlock()
	now := time.Now()
	if pod.DeletionTimestamp != nil {
		changed = w.decideEnd(End{At: now, Grace: gracePeriod(pod)}) || changed
	}
	if e, ok := evicted[w.uid]; ok {
		changed = w.decideEnd(e.end(now, gracePeriod(pod))) || changed
	}
	if s := pod.Status; terminal(s.Phase) { // somebody else may have ended it
		changed = w.decideEnd(End{At: now, Grace: gracePeriod(pod), Phase: s.Phase, Reason: s.Reason, Message: s.Message}) || changed
	}
	if changed {
		w.poke()
	}
}

// end is an eviction as a decision. own is the grace that the pod asks for.
func (e Eviction) end(now time.Time, own time.Duration) End {
	if e.Grace > 0 {
		own = min(own, e.Grace)
	}
	return End{
		At: now, Grace: own, Phase: corev1.PodFailed, Reason: e.Reason, Message: e.Message, Why: e.Message, Disruption: e.Disruption,
	}
}

// sameWish says whether two versions of a pod ask for the same. What only tells
// how the pod does is no wish; in an API server it is mostly what we have written.
func sameWish(a, b *corev1.Pod) bool {
	return a.Generation == b.Generation && a.DeletionTimestamp.Equal(b.DeletionTimestamp) &&
		equality.Semantic.DeepEqual(a.DeletionGracePeriodSeconds, b.DeletionGracePeriodSeconds) &&
		maps.Equal(a.Labels, b.Labels) && maps.Equal(a.Annotations, b.Annotations) &&
		equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// drop says that no source has the pod any more. There is no way back: should it
// return, a new worker takes it on when this one is done.
func (w *worker) drop() {
	w.mu.Lock()
	known := w.rec.Gone
	w.rec.Gone, w.dirty = true, true
	pod := w.pod
	w.mu.Unlock()
	if known {
		return
	}
	w.decideEnd(End{At: time.Now(), Grace: gracePeriod(pod)})
	w.poke()
}

// reject ends a pod before anything of it was started. before is the record of
// an earlier agent that had rejected it, or nil: what is the same is no news.
func (w *worker) reject(r Rejection, before *record) {
	if before != nil && before.End.Reason == r.Reason {
		w.mu.Lock()
		w.rec.Started, w.rec.Status.Conditions = before.Started, before.Status.Conditions
		w.mu.Unlock()
	}
	message := "Pod was rejected: " + r.Message
	w.decideEnd(End{At: time.Now(), Phase: corev1.PodFailed, Reason: r.Reason, Message: message, Rejected: true})
	w.cfg.Event(w.current(), "", corev1.EventTypeWarning, r.Reason, r.Message)
}

// restart asks for one container, or all, to be started anew in place. One that
// waits out its back-off is started at once.
func (w *worker) restart(container string) error {
	observed, _ := w.cfg.Runtime.Pod(w.uid)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rec.End != nil {
		return fmt.Errorf("restart %s: %w", fullName(w.pod), ErrNotRunning)
	}
	found := false
	for _, list := range [][]corev1.Container{w.pod.Spec.InitContainers, w.pod.Spec.Containers} {
		for i := range list {
			c := &list[i]
			if container != "" && container != c.Name || isInit(w.pod, c.Name) && !isSidecar(c) {
				continue
			}
			if a := observed.Container(c.Name); a != nil && a.State != cri.Created {
				w.rec.Replace[a.ID] = Replace{Why: "was asked to restart"}
				w.dirty, found = true, true
			}
		}
	}
	if !found {
		return fmt.Errorf("restart %s of %s: %w", container, fullName(w.pod), ErrNoContainer)
	}
	w.poke()
	return nil
}

// refresh has everything tried again that failed, and volumes brought up to date.
// A pod with neither is not woken: there can be hundreds of them.
func (w *worker) refresh() {
	w.mu.Lock()
	failed := len(w.facts.held) > 0
	clear(w.facts.held)
	w.facts.stale = w.facts.stale || showsObjects(w.pod)
	wake := failed || w.facts.stale
	w.mu.Unlock()
	if wake {
		w.poke()
	}
}

// showsObjects says whether a pod's volumes show config maps or secrets.
func showsObjects(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.ConfigMap != nil || v.Secret != nil || v.Projected != nil
	})
}

// current is the newest version of the pod from its source, with what it was granted.
func (w *worker) current() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// view is a copy of the pod with its newest status.
func (w *worker) view() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	pod := w.pod.DeepCopy()
	pod.Status = *w.rec.Status.DeepCopy()
	return pod
}

// holds is the pod and how far it has come, as a measure of what it still uses.
func (w *worker) holds() (*corev1.Pod, Phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.rec.End == nil:
		return w.pod, Syncing
	case w.facts.cgroupGone:
		return w.pod, Terminated
	default:
		return w.pod, Terminating
	}
}
