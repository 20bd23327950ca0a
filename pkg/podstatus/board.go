package podstatus

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// maxTombstones bounds how many removed pods a slow watcher can still be told of.
const maxTombstones = 1024

// Change is one step of a watch.
type Change struct {
	Type string // ADDED, MODIFIED or DELETED
	Pod  corev1.Pod
}

// Board holds the newest pods with their status. The zero value is not usable;
// see NewBoard. It is safe for concurrent use.
type Board struct {
	mu         sync.Mutex // guards all below; never held while calling out
	seq        uint64     // grows with every change
	pods       map[types.UID]entry
	tombstones []entry                   // oldest first
	events     map[string][]corev1.Event // by namespace/name
	changed    chan struct{}             // closed and replaced at each change
}

type entry struct {
	pod   *corev1.Pod // never changed once stored
	seq   uint64      // of the last change
	added uint64      // of the first
}

// NewBoard returns an empty board.
func NewBoard() *Board {
	return &Board{pods: map[types.UID]entry{}, events: map[string][]corev1.Event{}, changed: make(chan struct{})}
}

// Set stores pod with its status. The caller must not change it afterwards.
func (b *Board) Set(pod *corev1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bump()
	e, known := b.pods[pod.UID]
	if !known {
		e.added = b.seq
	}
	e.pod, e.seq = pod, b.seq
	b.pods[pod.UID] = e
}

// Remove forgets a pod; its events stay for as long as another pod of that name
// does not push them out. An unknown uid is not an error.
func (b *Board) Remove(uid types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, known := b.pods[uid]
	if !known {
		return
	}
	b.bump()
	delete(b.pods, uid)
	e.seq = b.seq
	b.tombstones = append(b.tombstones, e)
	if len(b.tombstones) > maxTombstones {
		b.tombstones = slices.Clone(b.tombstones[len(b.tombstones)-maxTombstones:])
	}
}

// bump counts a change and wakes the watchers. The caller holds mu.
func (b *Board) bump() {
	b.seq++
	close(b.changed)
	b.changed = make(chan struct{})
}

// Changed closes at the next change of any pod.
func (b *Board) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

// List returns copies of all pods, ordered by namespace and name.
func (b *Board) List() []corev1.Pod {
	b.mu.Lock()
	entries := make([]entry, 0, len(b.pods))
	for _, e := range b.pods {
		entries = append(entries, e)
	}
	b.mu.Unlock()
	slices.SortFunc(entries, func(x, y entry) int {
		return cmp.Or(strings.Compare(x.pod.Namespace, y.pod.Namespace), strings.Compare(x.pod.Name, y.pod.Name),
			cmp.Compare(x.added, y.added))
	})
	out := make([]corev1.Pod, len(entries))
	for i, e := range entries {
		e.pod.DeepCopyInto(&out[i])
	}
	return out
}

// Watch sends every pod as ADDED and then each change, until ctx ends (nil) or
// send fails. Several changes to one pod may be sent as one.
func (b *Board) Watch(ctx context.Context, send func(Change) error) error {
	var last uint64
	for {
		changes, seq, wait := b.since(last)
		for _, c := range changes {
			if err := send(c); err != nil {
				return err
			}
		}
		last = seq
		select {
		case <-ctx.Done():
			return nil
		case <-wait:
		}
	}
}

// since lists what changed after last in order, with the newest sequence number
// and a channel that closes at the next change.
func (b *Board) since(last uint64) ([]Change, uint64, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	type step struct {
		entry
		kind string
	}
	var steps []step
	for _, e := range b.pods {
		switch {
		case e.added > last:
			steps = append(steps, step{e, "ADDED"})
		case e.seq > last:
			steps = append(steps, step{e, "MODIFIED"})
		}
	}
	for _, e := range b.tombstones {
		if e.seq > last && e.added <= last {
			steps = append(steps, step{e, "DELETED"})
		}
	}
	slices.SortFunc(steps, func(x, y step) int { return cmp.Compare(x.seq, y.seq) })
	changes := make([]Change, len(steps))
	for i, s := range steps {
		changes[i] = Change{Type: s.kind, Pod: *s.pod.DeepCopy()}
	}
	return changes, b.seq, b.changed
}
