package podsync

import (
	"cmp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodeagent/nodeagent/pkg/qos"
)

// ask is a pod that asks for other resources than it has.
type ask struct {
	worker     *worker
	pod        *corev1.Pod // as its source has it
	had        *corev1.Pod // as it was granted
	since      time.Time   // when it was put off
	guaranteed bool
}

// grant gives pods what they ask for, one after the other, as far as there is room;
// the others are told what is missing. Whoever frees room has them asked again.
func (p *Pool) grant(pods []*corev1.Pod) {
	var asks []ask
	for _, pod := range pods {
		if w := p.worker(pod.UID); w != nil {
			if a, wants := w.asks(pod); wants {
				asks = append(asks, a)
			}
		}
	}
	slices.SortStableFunc(asks, byTurn)
	for _, a := range asks {
		if r := judge(&a, p.loadBeside(a.pod), p.room()); r != nil {
			a.worker.putOff(a.pod, *r)
		} else {
			a.worker.regrant(a.pod)
		}
	}
}

// byTurn orders asks as the kubelet does: those that want no more than they have,
// then the more important, then the guaranteed, then who has waited longest.
func byTurn(a, b ask) int {
	first := func(x, y bool) int {
		switch {
		case x == y:
			return 0
		case x:
			return -1
		default:
			return 1
		}
	}
	waits := func(t time.Time) int64 { // who has never asked before comes last
		if t.IsZero() {
			return 1 << 62
		}
		return t.Unix()
	}
	return cmp.Or(
		first(!a.wantsMore(), !b.wantsMore()),
		cmp.Compare(priority(b.pod), priority(a.pod)),
		first(a.guaranteed, b.guaranteed),
		cmp.Compare(waits(a.since), waits(b.since)),
	)
}

func (a *ask) wantsMore() bool {
	had, wants := requests(a.had), requests(a.pod)
	return wants.Cpu().Cmp(*had.Cpu()) > 0 || wants.Memory().Cmp(*had.Memory()) > 0
}

// judge says why an ask is not granted. What may never be granted is infeasible,
// what only lacks room is deferred.
func judge(a *ask, others Load, room Room) *Rejection {
	if qos.ComputeClass(a.had) != qos.ComputeClass(a.pod) {
		return &Rejection{corev1.PodReasonInfeasible, "Pod QOS Class may not change as a result of resizing"}
	}
	if r := admitResources(a.pod, others, room.allocatable()); r != nil {
		return &Rejection{corev1.PodReasonDeferred, r.Message}
	}
	return nil
}

// loadBeside is what all pods but one hold.
func (p *Pool) loadBeside(pod *corev1.Pod) (l Load) {
	staying, leaving := p.holders()
	for _, other := range append(staying, leaving...) {
		if other.UID != pod.UID {
			l.Add(other)
		}
	}
	return l
}

// asks says whether the newest version of the pod asks for other resources than it has.
func (w *worker) asks(pod *corev1.Pod) (ask, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rec.End != nil || w.source == pod && w.rec.Pending == nil || grantOf(w.pod).equals(pod) {
		return ask{}, false
	}
	a := ask{worker: w, pod: pod, had: w.pod, guaranteed: qos.ComputeClass(pod) == corev1.PodQOSGuaranteed}
	if c := findCondition(w.rec.Status.Conditions, corev1.PodResizePending); c != nil {
		a.since = c.LastTransitionTime.Time
	}
	return a, true
}

// regrant gives the pod what it asks for. The cgroups follow in the next passes.
func (w *worker) regrant(pod *corev1.Pod) {
	w.mu.Lock()
	if w.rec.Sized == nil {
		had := grantOf(w.pod)
		w.rec.Sized = &had
	}
	w.pod, w.rec.Pending, w.rec.Resizing = pod, nil, new(pod.Generation)
	delete(w.facts.held, holdKey(ResizePod{})) // what failed was another resize
	w.facts.stale, w.dirty = true, true        // the downward API shows resources
	w.mu.Unlock()
	w.note("ResizeStarted", "%s", resizeMessage("Pod resize started", pod, pod.Generation, ""))
	w.resized(false)
	w.poke()
}

// putOff notes why the pod does not get what it asks for, and tells what is new in that.
func (w *worker) putOff(pod *corev1.Pod, r Rejection) {
	next := Pending{Reason: r.Reason, Message: r.Message, Generation: pod.Generation}
	w.mu.Lock()
	news := w.rec.Pending == nil || *w.rec.Pending != next
	w.rec.Pending, w.dirty = &next, w.dirty || news
	w.mu.Unlock()
	if !news {
		return
	}
	w.warn("Resize"+r.Reason, "%s", resizeMessage("Pod resize "+r.Reason, pod, pod.Generation, r.Message))
	w.poke()
}
