package podsync

import (
	"cmp"
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
