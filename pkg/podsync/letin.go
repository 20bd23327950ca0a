package podsync

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// byClaim orders pods that are to be let in: first those that are here already,
// then those that were before the machine was restarted, then the more
// important, then the older.
func (p *Pool) byClaim(pods []*corev1.Pod) {
	here := map[types.UID]bool{}
	for _, pod := range p.cfg.Runtime.Pods() {
		here[pod.UID] = true
	}
	slices.SortStableFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(
			cmp.Compare(standing(b, here), standing(a, here)),
			cmp.Compare(priority(b), priority(a)),
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
		)
	})
}

// standing is how far a pod had come before this agent met it.
func standing(pod *corev1.Pod, here map[types.UID]bool) int {
	switch {
	case here[pod.UID]:
		return 2
	case pod.Status.StartTime != nil:
		return 1
	default:
		return 0
	}
}

// room is what the node has to offer now.
func (p *Pool) room() Room {
	room := p.cfg.Room
	if p.cfg.Node != nil {
		room.Node = p.cfg.Node()
	}
	return room
}

// admit gives a pod its worker. One that does not fit gets a worker that rejects
// it, unless it would fit when those that are ending have ended: then it gets
// none yet, and the end of each of them comes back here. What ran before the
// agent started needs no leave to go on.
func (p *Pool) admit(ctx context.Context, pod *corev1.Pod, staying, all Load) *worker {
	rec, err := p.cfg.records().load(pod.UID)
	if err != nil {
		p.cfg.Log.Error("record not read", "uid", pod.UID, "err", err)
	}
	var rejected *record
	if rec != nil && rec.End != nil && rec.End.Rejected && isStatic(pod) {
		rec, rejected = nil, rec // the node may have more room than it had
	}
	w := newWorker(&p.cfg, pod, rec, p.resized)
	if _, runs := p.cfg.Runtime.Pod(pod.UID); rec != nil || runs || terminal(pod.Status.Phase) || pod.DeletionTimestamp != nil {
		return w
	}
	room := p.room()
	if r := Admit(pod, all, room); r != nil && r.ofNode() {
		room.Node = p.askNode(ctx)
	}
	if r := Admit(pod, all, room); r != nil {
		if Admit(pod, staying, room) == nil {
			return nil
		}
		w.reject(*r, rejected)
	}
	if _, err := p.cfg.BackOff.forPod(pod); err != nil {
		p.cfg.Event(pod, "", corev1.EventTypeWarning, "InvalidAnnotation", err.Error())
	}
	return w
}

// askNode is the Node as it is now: labels and taints may have changed a moment
// before the pod was sent here. A node that cannot be asked refuses nobody.
func (p *Pool) askNode(ctx context.Context) *corev1.Node {
	if p.cfg.AskNode == nil {
		return p.room().Node
	}
	node, err := p.cfg.AskNode(ctx)
	if err != nil {
		p.cfg.Log.Warn("node not read; pods are let in whatever they want of it", "err", err)
		return nil
	}
	return node
}

// load is what the pods that stay hold, and what all hold that have not yet
// given back what they had.
func (p *Pool) load() (staying, all Load) {
	stay, leave := p.holders()
	for _, pod := range stay {
		staying.Add(pod)
		all.Add(pod)
	}
	for _, pod := range leave {
		all.Add(pod)
	}
	return staying, all
}
