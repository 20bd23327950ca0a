package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
)

// adoptParallel bounds the requests in flight while taking over.
const adoptParallel = 16

// adopt takes over every sandbox and container that an earlier agent left.
func (r *Runtime) adopt(ctx context.Context) error {
	var broken strays
	if err := r.adoptSandboxes(&broken); err != nil {
		return err
	}
	records, err := r.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q==%s", labelKind, kindContainer))
	if err != nil {
		return err
	}
	g, each := errgroup.WithContext(ctx)
	g.SetLimit(adoptParallel)
	for _, record := range records {
		g.Go(func() error { return r.adoptContainer(each, record, &broken) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := r.endStrayShims(&broken); err != nil {
		return err
	}
	for _, c := range broken.containers {
		if err := r.forget(ctx, c); err != nil {
			return err
		}
	}
	if err := r.dropStrayLeases(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adopted = true
	return nil
}

// dropStrayLeases deletes the leases of pods of which there is nothing else: an agent
// was killed before it made more of them, or after it had removed the rest. A pod that
// is wanted gets its lease again.
func (r *Runtime) dropStrayLeases(ctx context.Context) error {
	found, err := r.client.LeasesService().List(ctx, fmt.Sprintf("labels.%q", labelPodUID))
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for _, l := range found {
		uid := types.UID(l.Labels[labelPodUID])
		if _, known := r.Pod(uid); known || l.ID != leaseID(uid) {
			continue
		}
		if err := r.client.LeasesService().Delete(ctx, l); ignoreNotFound(err) != nil {
			return fmt.Errorf("delete the lease of pod %s: %w", uid, err)
		}
	}
	return nil
}

func (r *Runtime) adoptSandboxes(broken *strays) error {
	entries, err := os.ReadDir(filepath.Join(r.cfg.StateDir, "sandboxes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		uid := types.UID(e.Name())
		record, err := r.readRecord(uid)
		if errors.Is(err, fs.ErrNotExist) { // killed before anything was pinned
			if err := os.RemoveAll(r.sandboxDir(uid)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		p := r.ensurePod(uid, record.Namespace, record.Name)
		if record.Ready && !r.intact(&record.Sandbox) {
			record.Ready, record.Error = false, "its namespaces are gone"
		}
		r.setSandbox(p, &record.Sandbox)
		if record.PIDInit != 0 {
			p.init = true // nobody else knows p yet
			r.spawn(func(ctx context.Context) { r.watchInit(ctx, uid, record.ID) })
		} else if record.SharePID {
			broken.add(p, initID(record.ID), nil)
		}
	}
	return nil
}

func (r *Runtime) adoptContainer(ctx context.Context, record containers.Container, broken *strays) error {
	uid, value, err := fromLabels(record.ID, record.Image, record.Labels, record.CreatedAt)
	var spec oci.Spec
	if err == nil {
		err = typeurl.UnmarshalTo(record.Spec, &spec)
	}
	if err != nil { // somebody else's doing: it must not keep the others from being taken over
		r.cfg.Log.Error("container left alone: its record cannot be read; remove it with ctr", "container", record.ID, "err", err)
		return nil
	}
	if spec.Linux != nil {
		value.CgroupPath = spec.Linux.CgroupsPath
	}
	value.User = userOf(&spec)
	p := r.ensurePod(uid, record.Labels[labelPodNamespace], record.Labels[labelPodName])
	c := &containerState{Container: *value, exited: make(chan struct{})}
	if c.State == Exited {
		close(c.exited)
		c.task = true // the agent may have died before it deleted the task
		r.keep(p, c)
		return r.deleteTask(ctx, p, c)
	}
	return r.adoptTask(ctx, p, c, record.Labels, broken)
}

func (r *Runtime) keep(p *podState, c *containerState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.containers[c.ID] = c
}

// adoptTask takes over a container whose end was not recorded.
func (r *Runtime) adoptTask(ctx context.Context, p *podState, c *containerState, labels map[string]string, broken *strays) error {
	started, err := os.ReadFile(filepath.Join(r.containerDir(c.ID), "started"))
	if err == nil {
		c.StartedAt, err = time.Parse(time.RFC3339Nano, strings.TrimSpace(string(started)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("start time of container %s: %w", c.ID, err)
	}
	resp, err := r.client.TaskService().Get(ctx, &tasksapi.GetRequest{ContainerID: c.ID})
	if err := ignoreNotFound(errgrpc.ToNative(err)); err != nil {
		return fmt.Errorf("ask for the task of container %s: %w", c.ID, err)
	}
	switch {
	case err != nil && c.StartedAt.IsZero() && labels[labelBoot] == r.bootID:
		r.keep(p, c) // the agent died before it started: as if it had never been
		broken.add(p, c.ID, c)
		return nil
	case err != nil:
		r.keep(p, c)
		if c.io, err = newContainerIO(r.ioConfig(c.ID, c.LogPath, parseIOFlags(labels[labelIO]))); err != nil {
			return err
		}
		r.spawn(func(ctx context.Context) { r.lost(ctx, p, c) })
		return nil
	}
	c.task = true
	if neverStarted(resp.Process, c.StartedAt) {
		r.keep(p, c)
		return r.forget(ctx, c)
	}
	if c.io, err = newContainerIO(r.ioConfig(c.ID, c.LogPath, parseIOFlags(labels[labelIO]))); err != nil {
		return err
	}
	if c.StartedAt.IsZero() {
		c.StartedAt = time.Now() // killed between start and its note
	}
	if resp.Process.Status != task.Status_STOPPED { // else how it ended is still to be found out
		r.countOOM(p, c)
	}
	c.State, c.PID = Running, resp.Process.Pid
	r.keep(p, c)
	r.spawn(func(ctx context.Context) { c.io.Run(ctx) })
	r.spawn(func(ctx context.Context) { r.awaitExit(ctx, p, c) })
	return nil
}

// neverStarted says whether an agent was killed before the task had started, whose
// start was then broken off: it is still as it was created, or was killed with the
// start before anyone had noted it.
func neverStarted(t *task.Process, noted time.Time) bool {
	return t.Status == task.Status_CREATED ||
		t.Status == task.Status_STOPPED && t.ExitStatus == 128+uint32(unix.SIGKILL) && noted.IsZero()
}

// forget removes a container that was created and never started.
func (r *Runtime) forget(ctx context.Context, c *containerState) error {
	if c.task {
		if err := r.signal(ctx, c.ID, 9, true); err != nil {
			return err
		}
		if _, err := r.client.TaskService().Wait(ctx, &tasksapi.WaitRequest{ContainerID: c.ID}); err != nil && !errdefs.IsNotFound(errgrpc.ToNative(err)) {
			return err
		}
	}
	r.mu.Lock()
	c.State = Exited
	close(c.exited)
	r.mu.Unlock()
	return r.RemoveContainer(ctx, c.ID, false) // of its log, too, nothing was ever written
}
