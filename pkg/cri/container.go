package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	apitypes "github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"
	"k8s.io/apimachinery/pkg/types"
)

func (r *Runtime) containerDir(id string) string {
	return filepath.Join(r.cfg.StateDir, "containers", id)
}

// podLogDir is the directory of all logs of a pod.
func (r *Runtime) podLogDir(namespace, name string, uid types.UID) string {
	return filepath.Join(r.cfg.LogDir, strings.Join([]string{namespace, name, string(uid)}, "_"))
}

// logPath is the log file of an attempt, where the kubelet keeps it too.
func (r *Runtime) logPath(cfg *ContainerConfig) string {
	pod := cfg.Pod
	return filepath.Join(r.podLogDir(pod.Namespace, pod.Name, pod.UID), cfg.Container.Name, fmt.Sprintf("%d.log", cfg.Attempt))
}

// StartContainer creates and starts one attempt of a container. The pod's sandbox
// must be ready. A failure is a *StartError; when it came after the container
// was created, the attempt stays as Exited with code 128.
func (r *Runtime) StartContainer(ctx context.Context, cfg ContainerConfig) (Container, error) {
	r.mu.Lock()
	p := r.pods[cfg.Pod.UID]
	r.mu.Unlock()
	if p == nil {
		return Container{}, &StartError{Reason: "CreateContainerError", Err: fmt.Errorf("pod %s has no sandbox", cfg.Pod.UID)}
	}
	sandbox, ok := r.sandboxOf(p)
	if !ok || !sandbox.Ready {
		return Container{}, &StartError{Reason: "CreateContainerError", Err: fmt.Errorf("the sandbox of pod %s is not ready", cfg.Pod.UID)}
	}
	ctx = leases.WithLease(ctx, leaseID(p.uid))
	// A shim whose last container has just ended stays for this one.
	kept, release := r.keepShim(p)
	defer release()
	var back undo
	c, rootfs, err := r.createContainer(ctx, p, &sandbox, &cfg, &back)
	if err != nil {
		err = fmt.Errorf("create container %s: %w", cfg.Container.Name, err)
		return Container{}, &StartError{Reason: "CreateContainerError", Err: errors.Join(err, back.run(ctx))}
	}
	if err := r.startTask(ctx, p, c, rootfs, kept); err != nil {
		release() // what is left of the attempt may end the shim
		err = fmt.Errorf("start container %s: %w", cfg.Container.Name, err)
		r.startFailed(ctx, p, c, err)
		return r.get(c), &StartError{Reason: "RunContainerError", Err: err}
	}
	return r.get(c), nil
}

// createContainer makes everything of a container but its task.
func (r *Runtime) createContainer(ctx context.Context, p *podState, sandbox *Sandbox, cfg *ContainerConfig, back *undo) (*containerState, []mount.Mount, error) {
	id, err := newID()
	if err != nil {
		return nil, nil, err
	}
	snapshotter := r.client.SnapshotService(r.cfg.Snapshotter)
	back.add(func(ctx context.Context) error { return ignoreNotFound(snapshotter.Remove(ctx, id)) })
	rootfs, err := snapshotter.Prepare(ctx, id, cfg.Image.ChainID, append(snapshotOwner(sandbox), snapshots.WithLabels(map[string]string{labelPodUID: string(p.uid)}))...)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare the root file system: %w", err)
	}
	spec, err := r.spec(ctx, sandbox, cfg, id)
	if err != nil {
		return nil, nil, err
	}
	stopSignal := stopSignalOf(cfg)
	labels, err := containerLabels(cfg, r.bootID, r.logPath(cfg), stopSignal)
	if err != nil {
		return nil, nil, err
	}
	record, err := r.createRecord(ctx, id, cfg.Container.Image, labels, spec)
	if err != nil {
		return nil, nil, err
	}
	back.add(func(ctx context.Context) error { return ignoreNotFound(r.client.ContainerService().Delete(ctx, id)) })
	c := &containerState{
		Container: Container{
			ID: id, Name: cfg.Container.Name, Attempt: cfg.Attempt, SpecHash: cfg.SpecHash,
			Image: cfg.Container.Image, ImageRef: imageRef(cfg.Image), ImageID: cfg.Image.ID,
			CreatedAt: record.CreatedAt, LogPath: r.logPath(cfg), CgroupPath: spec.Linux.CgroupsPath,
			StopSignal: stopSignal, User: userOf(spec), Resources: *cfg.Container.Resources.DeepCopy(),
			PodResources: cfg.Pod.Spec.Resources.DeepCopy(),
		},
		exited: make(chan struct{}),
	}
	if c.io, err = newContainerIO(r.ioConfig(id, c.LogPath, parseIOFlags(labels[labelIO]))); err != nil {
		return nil, nil, err
	}
	r.mu.Lock()
	p.containers[id] = c
	r.mu.Unlock()
	if sandbox.HostID != 0 { // or the process could not open its own /dev/stderr
		c.ioUID, c.ioGID = sandbox.HostID+spec.Process.User.UID, sandbox.HostID+spec.Process.User.GID
	}
	return c, rootfs, nil
}

func (r *Runtime) createRecord(ctx context.Context, id, image string, labels map[string]string, spec *specs.Spec) (containers.Container, error) {
	return r.createRecordWith(ctx, id, image, id, labels, spec)
}

// createRecordWith makes a container record whose root file system is a
// snapshot, or none when its key is empty.
func (r *Runtime) createRecordWith(ctx context.Context, id, image, snapshot string, labels map[string]string, spec *specs.Spec) (containers.Container, error) {
	specAny, err := typeurl.MarshalAny(spec)
	if err != nil {
		return containers.Container{}, err
	}
	options, err := r.runcOptions(0, 0)
	if err != nil {
		return containers.Container{}, err
	}
	c := containers.Container{
		ID: id, Labels: labels, Image: image, Spec: specAny, Runtime: containers.RuntimeInfo{Name: runtimeName, Options: options},
	}
	if snapshot != "" {
		c.SnapshotKey, c.Snapshotter = snapshot, r.cfg.Snapshotter
	}
	return r.client.ContainerService().Create(ctx, c)
}

// runcOptions are the shim's options for a task whose streams belong to these
// IDs of the host.
func (r *Runtime) runcOptions(uid, gid uint32) (*anypb.Any, error) {
	options, err := typeurl.MarshalAny(&runcoptions.Options{BinaryName: r.cfg.RuncBinary, SystemdCgroup: r.cfg.SystemdCgroup, IoUid: uid, IoGid: gid})
	if err != nil {
		return nil, err
	}
	return typeurl.MarshalProto(options), nil
}

// startTask runs the container's process.
func (r *Runtime) startTask(ctx context.Context, p *podState, c *containerState, rootfs []mount.Mount, shimKept bool) error {
	select {
	case r.creates <- struct{}{}:
		defer func() { <-r.creates }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// What has begun is finished: a create that is broken off can leave a shim that
	// containerd does not know.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
	defer cancel()
	pid, err := r.createTask(ctx, p, c, rootfs, shimKept)
	if err != nil {
		return err
	}
	r.spawn(func(ctx context.Context) { c.io.Run(ctx) })
	r.countOOM(p, c)
	started := time.Now() // taken before it may already have ended
	if _, err := r.client.TaskService().Start(ctx, &tasksapi.StartRequest{ContainerID: c.ID}); err != nil {
		return errgrpc.ToNative(err)
	}
	// Not in containerd: that would cost a commit to disk for each start.
	if err := writeFileAtomically(filepath.Join(r.containerDir(c.ID), "started"), []byte(started.Format(time.RFC3339Nano)), 0o600); err != nil {
		return err
	}
	value := r.update(c, func(c *Container) { c.PID, c.State, c.StartedAt = pid, Running, started })
	if err := makeLogLink(r.cfg.ContainerLogDir, p, &value); err != nil {
		r.cfg.Log.Warn("link to container log not made", "container", c.ID, "err", err)
	}
	r.spawn(func(ctx context.Context) { r.awaitExit(ctx, p, c) })
	return nil
}

// createTask creates the task, and with it the pod's shim when it is the first.
func (r *Runtime) createTask(ctx context.Context, p *podState, c *containerState, rootfs []mount.Mount, shimKept bool) (uint32, error) {
	if !shimKept {
		defer r.startShim(p)()
	}
	stdin, stdout, stderr := c.io.Paths()
	req := &tasksapi.CreateTaskRequest{
		ContainerID: c.ID, Terminal: c.io.cfg.TTY, Stdin: stdin, Stdout: stdout, Stderr: stderr,
	}
	for _, m := range rootfs {
		req.Rootfs = append(req.Rootfs, &apitypes.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	options, err := r.runcOptions(c.ioUID, c.ioGID)
	if err != nil {
		return 0, err
	}
	req.Options = options
	for attempt := range shimAttempts {
		var resp *tasksapi.CreateTaskResponse
		resp, err = r.client.TaskService().Create(ctx, req)
		if err == nil {
			r.mu.Lock()
			c.task = true
			r.mu.Unlock()
			return resp.Pid, nil
		}
		err = errgrpc.ToNative(err)
		// The pod's last shim may be ending just now.
		if !shimClosed(err) {
			return 0, err
		}
		if err := pause(ctx, attempt); err != nil {
			return 0, err
		}
	}
	return 0, err
}

// startFailed records an attempt that never ran. There may be no task to be a
// witness, so the facts are kept before they are told.
func (r *Runtime) startFailed(ctx context.Context, p *podState, c *containerState, cause error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	now := time.Now()
	value := r.update(c, func(c *Container) {
		c.ExitCode, c.Reason, c.Message = 128, reasonStartError, cause.Error()
		c.StartedAt, c.FinishedAt = now, now
	})
	r.keepExit(ctx, &value)
	r.tell(p, c)
	r.cleanUp(ctx, p, c)
}

// StopContainer asks a container to end, waits for grace and kills it. It
// returns when the container has exited; one that is not running is success.
// When ctx ends first, nothing more is done to the container.
func (r *Runtime) StopContainer(ctx context.Context, id string, grace time.Duration) error {
	_, c := r.find(id)
	if c == nil || r.get(c).State == Exited {
		return nil
	}
	if grace > 0 {
		sig := parseSignal(r.get(c).StopSignal)
		if pid := r.get(c).PID; !signalInit(int(pid), id, sig) {
			if err := r.signal(ctx, id, sig, false); err != nil {
				return err
			}
		}
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-c.exited:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
	if err := r.signal(ctx, id, syscall.SIGKILL, true); err != nil {
		return err
	}
	select {
	case <-c.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for container %s to end after SIGKILL: %w", id, ctx.Err())
	}
}

// signal sends a signal; a process that is gone is success.
func (r *Runtime) signal(ctx context.Context, id string, sig syscall.Signal, all bool) error {
	_, err := r.client.TaskService().Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: uint32(sig), All: all})
	err = errgrpc.ToNative(err)
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) {
		return nil
	}
	return fmt.Errorf("send %s to container %s: %w", sig, id, err)
}

// killAll ends every container of a pod at once.
func (r *Runtime) killAll(ctx context.Context, p *podState) error {
	r.mu.Lock()
	var ids []string
	for id, c := range p.containers {
		if c.State == Running || c.State == Unknown {
			ids = append(ids, id)
		}
	}
	r.mu.Unlock()
	errs := make(chan error, len(ids))
	for _, id := range ids {
		go func() { errs <- r.StopContainer(ctx, id, 0) }()
	}
	var all []error
	for range ids {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// RemoveContainer removes an attempt, which it kills if it runs, and its log
// unless that is to be kept. An attempt that is not there is success.
func (r *Runtime) RemoveContainer(ctx context.Context, id string, keepLog bool) error {
	p, c := r.find(id)
	if c == nil {
		return nil
	}
	if err := r.StopContainer(ctx, id, 0); err != nil {
		return err
	}
	if err := r.deleteTask(ctx, p, c); err != nil {
		return err
	}
	if err := ignoreNotFound(r.client.SnapshotService(r.cfg.Snapshotter).Remove(ctx, id)); err != nil {
		return fmt.Errorf("remove the root file system of container %s: %w", id, err)
	}
	var errs []error
	if c.io != nil {
		errs = append(errs, c.io.Remove())
	}
	errs = append(errs, os.RemoveAll(r.containerDir(id)), removeLogLink(r.cfg.ContainerLogDir, p, &c.Container))
	if !keepLog {
		errs = append(errs, removeLogs(c.LogPath))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove files of container %s: %w", id, err)
	}
	// Last: by the record an agent that starts anew finds what is left to do.
	if err := ignoreNotFound(r.client.ContainerService().Delete(ctx, id)); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	r.mu.Lock()
	delete(p.containers, id)
	r.mu.Unlock()
	return nil
}

func ignoreNotFound(err error) error {
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// wake tells the owner of a pod to look again.
func (r *Runtime) wake(uid types.UID) { r.cfg.Wake(uid) }
