package cri

import (
	"context"
	"fmt"
	"os"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// outdated says whether the file that would be started now is another one than
// that which runs: an upgrade has replaced it.
func (e *Embedded) outdated(d *daemon) bool {
	binary, err := LookBinary("containerd", e.BinDirs)
	if err != nil { // then what runs is better than nothing
		return false
	}
	now, err := os.Stat(binary)
	if err != nil {
		return false
	}
	running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", d.pid)) // also when it has been removed
	return err == nil && !os.SameFile(now, running)
}

// replaceable says whether all containers would live through another containerd.
// It takes those for dead whose processes runc does not find, and removes them: on
// cgroup v1 with systemd runc looks in the devices cgroup, which some versions of
// systemd keep containers out of. There the next boot brings the new version.
func (e *Embedded) replaceable(ctx context.Context, d *daemon) bool {
	lost, err := e.unseen(ctx)
	if err != nil || lost != "" {
		e.Log.Warn("containerd runs in another version until the next boot; a new one would take running containers for dead",
			"pid", d.pid, "container", lost, "err", err)
	}
	return err == nil && lost == ""
}

// unseen is a running container of which containerd sees no process; empty means
// that there is none.
func (e *Embedded) unseen(ctx context.Context) (string, error) {
	client, err := containerd.New(e.Address())
	if err != nil {
		return "", err
	}
	defer client.Close()
	spaces, err := client.NamespaceService().List(ctx)
	if err != nil {
		return "", fmt.Errorf("list namespaces: %w", err)
	}
	for _, space := range spaces {
		ctx := namespaces.WithNamespace(ctx, space)
		list, err := client.TaskService().List(ctx, &tasks.ListTasksRequest{})
		if err != nil {
			return "", fmt.Errorf("list tasks: %w", err)
		}
		for _, t := range list.Tasks {
			if t.Status != task.Status_RUNNING {
				continue
			}
			seen, err := client.TaskService().ListPids(ctx, &tasks.ListPidsRequest{ContainerID: t.ID})
			if err != nil {
				return t.ID, fmt.Errorf("list processes of %s: %w", t.ID, err)
			}
			if len(seen.Processes) == 0 {
				return t.ID, nil
			}
		}
	}
	return "", nil
}
