package cri

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// podState is what the runtime knows of a pod. Runtime.mu guards its fields.
type podState struct {
	uid             types.UID
	namespace, name string
	sandbox         *Sandbox
	hostID          uint32                     // of the sandbox that is being made
	containers      map[string]*containerState // by ID
	// init says that containerd has a task of the pod's init process.
	init bool
	// oomKills are the kills in the pod's cgroup that are accounted for.
	oomKills int

	// lifecycle serialises what starts and ends the sandbox.
	lifecycle sync.Mutex
	// shim keeps apart what starts and what may end the pod's shim: two that start
	// for one group can each believe to be the first, and one that ends with its
	// last task takes a create that has just reached it along. Creates in a shim
	// that is there share it.
	shim sync.RWMutex
}

// containerState is one container; Runtime.mu guards the embedded value.
type containerState struct {
	Container
	io     *containerIO
	exited chan struct{} // closed when State has become Exited
	// ioUID and ioGID are who the shim's pipes belong to.
	ioUID, ioGID uint32
	// task says that containerd still has a task to delete.
	task bool
}

// Pods returns copies of every pod that is there, ordered by UID.
func (r *Runtime) Pods() []Pod {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Pod, 0, len(r.pods))
	for _, uid := range slices.Sorted(maps.Keys(r.pods)) {
		out = append(out, r.pods[uid].snapshot())
	}
	return out
}

// Pod returns a copy of one pod.
func (r *Runtime) Pod(uid types.UID) (Pod, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pods[uid]
	if !ok {
		return Pod{}, false
	}
	return p.snapshot(), true
}

// snapshot copies p. The caller holds Runtime.mu.
func (p *podState) snapshot() Pod {
	out := Pod{UID: p.uid, Namespace: p.namespace, Name: p.name}
	if p.sandbox != nil {
		s := *p.sandbox
		s.IPs = slices.Clone(s.IPs)
		out.Sandbox = &s
	}
	for _, c := range p.containers {
		out.Containers = append(out.Containers, c.Container)
	}
	slices.SortFunc(out.Containers, func(a, b Container) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(b.Attempt, a.Attempt), b.CreatedAt.Compare(a.CreatedAt))
	})
	return out
}

// ensurePod returns the state of a pod, which it makes if there is none.
func (r *Runtime) ensurePod(uid types.UID, namespace, name string) *podState {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.pods[uid]
	if !ok {
		p = &podState{uid: uid, namespace: namespace, name: name, containers: map[string]*containerState{}}
		r.pods[uid] = p
	}
	return p
}

// find returns a container and its pod, or nil.
func (r *Runtime) find(id string) (*podState, *containerState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pods {
		if c, ok := p.containers[id]; ok {
			return p, c
		}
	}
	return nil, nil
}

// get copies a container's value.
func (r *Runtime) get(c *containerState) Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	return c.Container
}

// update changes a container's value under the lock.
func (r *Runtime) update(c *containerState, f func(*Container)) Container {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&c.Container)
	return c.Container
}
