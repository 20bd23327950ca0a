package cri

import (
	"context"
	"fmt"
	"sync"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
)

// keepShim keeps the pod's shim, if there is one, until release, which may be
// called more than once.
func (r *Runtime) keepShim(p *podState) (there bool, release func()) {
	p.shim.RLock()
	r.mu.Lock()
	for _, c := range p.containers {
		there = there || c.task
	}
	r.mu.Unlock()
	if !there {
		p.shim.RUnlock()
		return false, func() {}
	}
	return true, sync.OnceFunc(p.shim.RUnlock)
}

// startShim keeps others from starting or ending the pod's shim until release,
// unless another has started it meanwhile.
func (r *Runtime) startShim(p *podState) (release func()) {
	if there, release := r.keepShim(p); there {
		return release
	}
	p.shim.Lock()
	return p.shim.Unlock
}

// deleteTask makes containerd forget a task that has ended. The last one of a
// pod takes the shim along.
func (r *Runtime) deleteTask(ctx context.Context, p *podState, c *containerState) error {
	p.shim.Lock()
	defer p.shim.Unlock()
	r.mu.Lock()
	has := c.task
	r.mu.Unlock()
	if !has {
		return nil
	}
	_, err := r.client.TaskService().Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: c.ID})
	if err := ignoreNotFound(errgrpc.ToNative(err)); err != nil {
		return fmt.Errorf("delete the task of container %s: %w", c.ID, err)
	}
	r.mu.Lock()
	c.task = false
	r.mu.Unlock()
	return nil
}
