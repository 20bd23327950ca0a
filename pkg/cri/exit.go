package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	corev1 "k8s.io/api/core/v1"
)

const (
	reasonCompleted  = "Completed"
	reasonError      = "Error"
	reasonOOMKilled  = "OOMKilled"
	reasonStartError = "StartError"
	reasonLost       = "ContainerStatusUnknown"
)

const (
	// drainTimeout bounds the wait for the last lines of an exited container; a
	// grandchild can hold its pipes for as long as it likes.
	drainTimeout = 2 * time.Second
	// reconnectDelay is between attempts to reach a containerd that is away.
	reconnectDelay = 200 * time.Millisecond
	// maxTerminationMessage is the kubelet's limit, in bytes.
	maxTerminationMessage = 4096
	// maxLogMessage and maxLogLines limit a message taken from the log.
	maxLogMessage = 2048
	maxLogLines   = 80
)

// awaitExit waits for the end of a container and records it. A connection that
// breaks is never taken for an exit.
func (r *Runtime) awaitExit(ctx context.Context, p *podState, c *containerState) {
	for {
		resp, err := r.client.TaskService().Wait(ctx, &tasksapi.WaitRequest{ContainerID: c.ID})
		if err == nil {
			r.exited(ctx, p, c, resp.ExitStatus, resp.ExitedAt.AsTime())
			return
		}
		if ctx.Err() != nil {
			return // the agent ends; the container does not
		}
		if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
			r.lost(ctx, p, c)
			return
		}
		r.cfg.Log.Debug("wait for container interrupted", "container", c.ID, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(reconnectDelay):
		}
	}
}

// exited records the end of a container whose exit code is known.
func (r *Runtime) exited(ctx context.Context, p *podState, c *containerState, code uint32, at time.Time) {
	oom := r.oomKilled(p, c, code)
	select { // the log is complete before anyone hears of the end
	case <-c.io.Drained():
	case <-time.After(drainTimeout):
	case <-ctx.Done():
		return // the next agent sees the stopped task
	}
	message := r.terminationMessage(ctx, c, code)
	value := r.update(c, func(c *Container) {
		c.ExitCode, c.FinishedAt, c.Message = int32(code), at, message
		c.Signal, c.OOMKilled = signalOf(int32(code)), oom
		if c.StartedAt.After(at) { // an agent that was killed had not noted the start
			c.StartedAt = at
		}
		switch {
		case oom:
			c.Reason = reasonOOMKilled
		case code == 0:
			c.Reason = reasonCompleted
		default:
			c.Reason = reasonError
		}
	})
	r.finish(ctx, p, c, value)
}

// lost records the end of a container of which nothing is known any more.
func (r *Runtime) lost(ctx context.Context, p *podState, c *containerState) {
	value := r.update(c, func(c *Container) {
		c.ExitCode, c.Reason = 255, reasonLost
		c.Message = "The container could not be located when the agent looked for it"
		c.FinishedAt = time.Now()
		if c.StartedAt.IsZero() {
			c.StartedAt = c.CreatedAt
		}
	})
	r.finish(ctx, p, c, value)
}

// finish tells of an exit, keeps its facts, and then cleans up. Whoever hears of
// it may act before the facts are in containerd: until then the stopped task is
// the witness, and it is deleted last.
func (r *Runtime) finish(ctx context.Context, p *podState, c *containerState, value Container) {
	r.tell(p, c)
	if !r.keepExit(ctx, &value) {
		return // the next agent sees the stopped task
	}
	r.cleanUp(ctx, p, c)
}

// tell makes an exit known.
func (r *Runtime) tell(p *podState, c *containerState) {
	r.mu.Lock()
	if c.State != Exited {
		c.State, c.PID = Exited, 0
		close(c.exited)
	}
	r.mu.Unlock()
	r.wake(p.uid)
}

// keepExit writes the facts of an exit into containerd; false means that ctx
// ended first.
func (r *Runtime) keepExit(ctx context.Context, value *Container) bool {
	for {
		err := r.persistExit(ctx, value)
		if err == nil || errdefs.IsNotFound(err) {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.cfg.Log.Warn("exit of container not recorded, trying again", "container", value.ID, "err", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(reconnectDelay):
		}
	}
}

// cleanUp releases what only a running container needs.
func (r *Runtime) cleanUp(ctx context.Context, p *podState, c *containerState) {
	err := r.deleteTask(ctx, p, c)
	if c.io != nil {
		err = errors.Join(err, c.io.Remove())
	}
	if err != nil && ctx.Err() == nil {
		r.cfg.Log.Warn("clean up after container", "container", c.ID, "err", err)
	}
}

func (r *Runtime) persistExit(ctx context.Context, c *Container) error {
	var fields []string
	labels := exitLabels(c)
	for k := range labels {
		fields = append(fields, "labels."+k)
	}
	_, err := r.client.ContainerService().Update(ctx, containers.Container{ID: c.ID, Labels: labels}, fields...)
	return err
}

// terminationMessage is what the container left to say: the file it may write,
// or the end of its log if it asked for that and failed.
func (r *Runtime) terminationMessage(ctx context.Context, c *containerState, code uint32) string {
	record, err := r.client.ContainerService().Get(ctx, c.ID)
	if err != nil {
		return ""
	}
	var message string
	if path := record.Labels[labelTermLog]; path != "" {
		if message, err = readTail(path, maxTerminationMessage); err != nil {
			message = fmt.Sprintf("Error on reading termination log %s: %v", path, err)
		}
	}
	policy := corev1.TerminationMessagePolicy(record.Labels[labelTermPolicy])
	if message != "" || code == 0 || policy != corev1.TerminationMessageFallbackToLogsOnError {
		return message
	}
	tail, err := logTail(ctx, c.LogPath, maxLogLines, maxLogMessage)
	if err != nil {
		return fmt.Sprintf("Error reading termination message from logs: %v", err)
	}
	return tail
}

// logTail returns the last lines of a log, at most limit bytes of them.
func logTail(ctx context.Context, path string, lines int64, limit int) (string, error) {
	var b strings.Builder
	if err := ReadLogs(ctx, LogQuery{Path: path, Tail: lines}, &b, &b); err != nil {
		return "", err
	}
	s := b.String()
	if len(s) > limit {
		s = s[len(s)-limit:]
	}
	return s, nil
}

// readTail reads the last bytes of a regular file that a container could write.
func readTail(path string, limit int64) (string, error) {
	f, err := openRegular(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return "", err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return string(data), err
}

// CgroupDir turns an OCI cgroupsPath into a path below a cgroup mount.
func CgroupDir(path string) string {
	slice, rest, isSystemd := strings.Cut(path, ":")
	if !isSystemd {
		return path
	}
	prefix, name, _ := strings.Cut(rest, ":")
	var dir string
	parts := strings.Split(strings.TrimSuffix(slice, ".slice"), "-")
	for i := range parts {
		dir = filepath.Join(dir, strings.Join(parts[:i+1], "-")+".slice")
	}
	return filepath.Join("/", dir, prefix+"-"+name+".scope")
}
