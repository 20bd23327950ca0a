package cri

import (
	"context"
	"fmt"
)

// LayerUsage is what a container has written to its root file system.
type LayerUsage struct{ Bytes, Inodes uint64 }

// Layer counts what a container has written. It takes longer the more that is.
func (r *Runtime) Layer(ctx context.Context, id string) (LayerUsage, error) {
	container, err := r.client.ContainerService().Get(ctx, id)
	if err != nil {
		return LayerUsage{}, fmt.Errorf("load container %s: %w", id, err)
	}
	u, err := r.client.SnapshotService(container.Snapshotter).Usage(ctx, container.SnapshotKey)
	if err != nil {
		return LayerUsage{}, fmt.Errorf("usage of container %s: %w", id, err)
	}
	return LayerUsage{Bytes: uint64(max(u.Size, 0)), Inodes: uint64(max(u.Inodes, 0))}, nil
}
