package podsync

import (
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Desired merges what the sources want into one set of pods by UID. Each source
// hands over its full list every time; a pod that is no longer in any list is to
// be removed, but only once every source has reported.
//
// It is safe for concurrent use.
type Desired struct {
	changed chan struct{} // capacity 1

	mu      sync.Mutex // guards all below
	silent  map[string]bool
	sources map[string][]*corev1.Pod
	evicted map[types.UID]Eviction
}

// Eviction is a decision to end a pod which stays in its source.
type Eviction struct {
	Reason, Message string
	// Disruption says that it is the node that ends the pod, and not what the pod
	// did: who made the pod may then take its end for none of its failures.
	Disruption bool
	// Grace is how long the pod may take to stop at the most; 0 leaves that to it.
	Grace time.Duration
}

// NewDesired returns an empty set which waits for the named sources.
func NewDesired(sources ...string) *Desired {
	d := &Desired{
		changed: make(chan struct{}, 1),
		silent:  map[string]bool{},
		sources: map[string][]*corev1.Pod{},
		evicted: map[types.UID]Eviction{},
	}
	for _, s := range sources {
		d.silent[s] = true
	}
	return d
}

// Set replaces the pods of a source. The pods must not be changed afterwards.
func (d *Desired) Set(source string, pods []*corev1.Pod) {
	d.mu.Lock()
	delete(d.silent, source)
	d.sources[source] = pods
	d.mu.Unlock()
	d.notify()
}

// StandIn gives a source pods to go on with until it has reported.
func (d *Desired) StandIn(source string, pods []*corev1.Pod) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.silent[source] {
		d.sources[source] = pods
	}
}

// Evict ends a pod for good: it becomes Failed with this reason and stays so
// until its source drops it. The first eviction of a pod wins.
func (d *Desired) Evict(uid types.UID, reason, message string) {
	d.EvictWith(uid, Eviction{Reason: reason, Message: message})
}

// EvictWith is Evict with more to say.
func (d *Desired) EvictWith(uid types.UID, e Eviction) {
	d.mu.Lock()
	if _, already := d.evicted[uid]; !already {
		d.evicted[uid] = e
	}
	d.mu.Unlock()
	d.notify()
}

// Pods are all that the sources want. They must not be changed.
func (d *Desired) Pods() []*corev1.Pod { return d.view().pods }

// Synced says whether every source has reported once.
func (d *Desired) Synced() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.silent) == 0
}

func (d *Desired) notify() {
	select {
	case d.changed <- struct{}{}:
	default: // a wake-up is pending already, and it will see this change too
	}
}

// view is one consistent look at Desired.
type view struct {
	pods    []*corev1.Pod // source by source, in the order the sources gave
	evicted map[types.UID]Eviction
	synced  bool
}

// view forgets the evictions of pods that are gone as it looks.
func (d *Desired) view() view {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := view{synced: len(d.silent) == 0}
	seen := map[types.UID]bool{}
	for _, s := range slices.Sorted(maps.Keys(d.sources)) {
		for _, pod := range d.sources[s] {
			if !seen[pod.UID] {
				seen[pod.UID] = true
				v.pods = append(v.pods, pod)
			}
		}
	}
	if v.synced {
		maps.DeleteFunc(d.evicted, func(uid types.UID, _ Eviction) bool { return !seen[uid] })
	}
	v.evicted = maps.Clone(d.evicted)
	return v
}
